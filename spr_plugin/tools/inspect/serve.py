"""The command: a socket on this machine alone, and the pages on it until Ctrl-C."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from spr_plugin.errors import UserError
from spr_plugin.files import AnyPath
from spr_plugin.tools.inspect.indexed import IndexedRun

ADDRESS, PORT = "127.0.0.1", 8765


def serve(
    directory: AnyPath, port: int = PORT, images: str | None = None, plugins: Iterable[str] = ()
) -> None:
    """Serve the pages of the run in ``directory`` and print their address.

    Args:
        port: 0 for any that is free.
        images: where the pictures are, if they are not where the run found them.
        plugins: Python files that know the run's box format or recipe.

    Raises:
        UserError: there is no run, the port cannot be had, a folder is none, a package is missing.
    """
    try:
        import uvicorn

        from spr_plugin.tools.inspect.app import application
    except ImportError as error:
        why = f"{error.name.partition('.')[0]} is missing" if error.name else str(error)
        raise UserError(
            f"spr inspect needs starlette, uvicorn and jinja2 ({why}): pip install 'spr-plugin[inspect]'"
        ) from None
    with listening(port) as own:
        app = application(IndexedRun(directory, tuple(plugins), images))
        print(f"http://{ADDRESS}:{own.getsockname()[1]}/ shows {directory}; Ctrl-C ends it", flush=True)
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off"
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[own])


def listening(port: int) -> socket.socket:
    """A socket of this machine alone. UserError where the port cannot be had."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind((ADDRESS, port))
        own.listen()
    except (OSError, OverflowError) as error:
        own.close()
        why = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise UserError(f"--port {port}: {why}; name another one, or 0 for any that is free") from None
    return own
