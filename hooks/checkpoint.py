"""Helper models (CLIP, detectors) from a folder or hub id: whole, or refused in one line."""

import contextlib

from spr_plugin.errors import UserError


@contextlib.contextmanager
def refused(flag: str, path: str, what: str):
    """Inside, whatever goes wrong is the UserError "FLAG PATH: WHAT (why)"; UserErrors pass."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # transformers raises whatever a broken folder makes it stumble over
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{flag} {path}: {what} ({why})") from None


def whole(auto_class, path: str, computed: tuple[str, ...]):
    """The model of ``path``. ValueError if weights are missing, but for those whose names end in
    ``computed``, which are no weights.
    """
    model, loaded = auto_class.from_pretrained(path, output_loading_info=True)
    if missing := sorted(name for name in loaded["missing_keys"] if not name.endswith(computed)):
        raise ValueError(f"no weights for {missing[0]} and {len(missing) - 1} more")
    return model
