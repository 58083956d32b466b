"""A client whose replies are bounded in length and in time."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

LONGEST_REPLY = 1 << 24  # bytes
LAST_READ = 1e-3  # seconds: 0 would be a read that waits for nothing


def bounded_client(openai, seconds: float):
    """The client's transport, in which a reply that is long, or long in coming, is one that failed."""
    client = openai.DefaultHttpxClient
    transport = sys.modules[client.__base__.__module__.partition(".")[0]]  # httpx, or what took its place
    stream: Any = transport.SyncByteStream

    class Bounded(stream):
        def __init__(self, stream):
            self.stream, self.close = stream, stream.close

        def __iter__(self):
            size = 0
            for part in self.stream:
                size += len(part)
                if size > LONGEST_REPLY:
                    raise transport.ReadError(f"a reply of more than {LONGEST_REPLY >> 20} MiB")
                yield part

    def bound(response) -> None:
        response.stream = Bounded(response.stream)

    made = client(event_hooks={"response": [bound]})
    for carrier in filter(None, (made._transport, *made._mounts.values())):
        pool = carrier._pool
        pool._network_backend = _Deadlines(pool._network_backend, seconds)
    return made


class _Deadlines:
    """A network backend of the client's, whose connections give a reply so many seconds from the request's
    last byte to its own: the client's time-out starts anew with every byte that comes, of the headers too.
    """

    def __init__(self, backend, seconds: float):
        self._backend, self._seconds = backend, seconds

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def connect_tcp(self, *given, **named):
        return _Deadline(self._backend.connect_tcp(*given, **named), self._seconds)


class _Deadline:
    """A connection of `_Deadlines`."""

    def __init__(self, stream, seconds: float):
        self._stream, self._seconds, self._until = stream, seconds, math.inf

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, *given, **named):
        self._until = math.inf
        self._stream.write(*given, **named)
        self._until = time.monotonic() + self._seconds

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = max(self._until - time.monotonic(), LAST_READ)
        return self._stream.read(max_bytes, left if timeout is None else min(timeout, left))

    def start_tls(self, *given, **named):
        return _Deadline(self._stream.start_tls(*given, **named), self._seconds)
