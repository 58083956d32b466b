"""Pickles of plain data, as the REFER releases are. Loading any other could run code, so that it is
refused.
"""

import io
import pickle
from pathlib import Path

from spr_plugin.loading import sound


class _PlainData(pickle._Unpickler):
    """Reads lists, dicts, text and numbers.

    Of the two unpicklers of the standard library the one in Python: a file of ten bytes can have the one in C
    set up a memo of 32 GB. It takes three seconds for RefCOCO's 50,000 refs.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it wants {module}.{name}, and only plain data is read")


def _sound(load):
    def load_sound(self):
        load(self)
        self.stack[-1] = sound(self.stack[-1])

    return load_sound


for _opcode in b"".join((pickle.UNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8)):
    _PlainData.dispatch[_opcode] = _sound(_PlainData.dispatch[_opcode])


def load_plain(file: Path) -> object:
    """What ``file`` holds, text of Python 2 included. Raises OSError, and UnpicklingError for whatever is no
    pickle of plain data.
    """
    data = io.BytesIO(file.read_bytes())
    try:
        return _PlainData(data, encoding="utf-8", errors="replace").load()
    except Exception as error:  # the pickle module raises many kinds for broken data
        raise pickle.UnpicklingError(str(error)) from None
