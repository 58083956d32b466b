"""Pickles of plain data, and no others."""

import pickle
from pathlib import Path

import pytest

from spr_plugin.plain_pickle import load_plain


def test_text_of_a_pickle_can_be_written(tmp_path):
    (tmp_path / "a.p").write_bytes(pickle.dumps(["a\ud83d", "\ud83d\ude00", "d\u00f6g"], 2))
    assert load_plain(tmp_path / "a.p") == ["a\ufffd", "\U0001f600", "d\u00f6g"]
    (tmp_path / "b.p").write_bytes(pickle.dumps(["a\ud83d"], 4))
    assert load_plain(tmp_path / "b.p") == ["a\ufffd"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back(tmp_path, protocol):
    data = {"refs": [1, -2.5, "a dög", None, True, (3, [b"x"])], 4: {}}
    (tmp_path / "a.p").write_bytes(pickle.dumps(data, protocol))
    if protocol > 2:  # bytes of the older ones are a call of codecs
        assert load_plain(tmp_path / "a.p") == data
    else:
        with pytest.raises(
            pickle.UnpicklingError, match="it wants _codecs.encode, and only plain data is read"
        ):
            load_plain(tmp_path / "a.p")


@pytest.mark.parametrize("what", [print, Path, Path("a"), ValueError("a")], ids=str)
def test_nothing_that_names_code_is_read(tmp_path, what):
    (tmp_path / "a.p").write_bytes(pickle.dumps([what]))
    with pytest.raises(pickle.UnpicklingError, match="only plain data is read"):
        load_plain(tmp_path / "a.p")


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x09.", pickle.dumps([1, 2])[:-3], b"N0.", b"("])
def test_what_is_no_pickle_is_one_kind_of_error(tmp_path, data):
    (tmp_path / "a.p").write_bytes(data)
    with pytest.raises(pickle.UnpicklingError):
        load_plain(tmp_path / "a.p")


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_plain(tmp_path / "a.p")
