"""Pickles of plain data, as the REFER releases are. Loading any other could run code, so that it is refused."""

import io
import pickle
from pathlib import Path


class _PlainData(pickle.Unpickler):
    """Reads lists, dicts, text and numbers."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it wants {module}.{name}, and only plain data is read")


def load_plain(file: Path) -> object:
    """What ``file`` holds, text of Python 2 included. Raises OSError, and UnpicklingError for whatever is no pickle of plain data."""
    data = io.BytesIO(file.read_bytes())
    try:
        return _PlainData(data, encoding="utf-8", errors="replace").load()
    except Exception as error:  # the pickle module raises many kinds for broken data
        raise pickle.UnpicklingError(str(error)) from None
