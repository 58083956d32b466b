"""Whether models can run where somebody says that they are to."""

from __future__ import annotations

from spr_plugin.errors import UserError


def refuse_no_device(device: object, named: str | None = None) -> None:
    """UserError where nothing can be computed on it.

    Args:
        named: how the line calls what was given; `spr score`'s flag without it.
    """
    import torch

    if device is None:  # torch takes it for its default
        raise UserError(f"{named or '--device'}: is none; name one, such as cpu")
    try:
        torch.ones(1, device=device).tolist()  # type: ignore[arg-type]
    # As torch says it, by kind of device; TypeError for what names none.
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(f"{named or f'--device {device}'}: {why}") from None
