"""What a command is about to write is looked at before it computes."""

import os

import pytest
from click.testing import CliRunner

from spr_plugin.cli import commands
from spr_plugin.errors import UserError
from spr_plugin.outputs import refuse_overwriting, refuse_unwritable, refuse_within


@pytest.fixture
def there(tmp_path):
    """A folder with the file ``a`` and the folder ``sub``, in which the file ``b`` lies."""
    (tmp_path / "sub").mkdir()
    for name in ("a", "sub/b"):
        (tmp_path / name).write_text("mine")
    return tmp_path


@pytest.mark.parametrize("path", ["a", "new", "sub/b", "no/such/folder/yet"])
def test_a_file_that_can_be_written_is_taken(there, path):
    refuse_unwritable({"--out": str(there / path)})


@pytest.mark.parametrize(
    "words",
    [
        ["status", ""],
        ["report", " "],
        ["inspect", ""],
        ["export", "", "--format", "trl", "--to", "x"],
        ["compare", "", "x"],
        ["data", "lvis", "--from", "", "--to", "x"],
        ["data", "spatial_ssrl", "--from", "", "--to", "x"],
        ["data", "lvis", "--from", "x", "--to", ""],
        ["demo", "--out", ""],
        ["doctor", "--out", "", "--", "true", "--spr"],
    ],
)
def test_an_empty_name_is_not_the_current_folder(words, tmp_path, monkeypatch):
    """A shell makes one of an unset variable."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    told = CliRunner().invoke(commands, words)
    assert isinstance(told.exception, UserError) and "is empty; name a" in str(told.exception)
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("folders", [True, False])
def test_a_file_system_that_takes_no_files_from_anybody(folders):
    """Not even from root, whom no rights hold back."""
    with pytest.raises(UserError, match="^--out /proc/x: /proc cannot be written to$"):
        refuse_unwritable({"--out": "/proc/x"}, folders)


@pytest.mark.parametrize(
    ("path", "folders", "words"),
    [
        ("sub", False, "is there already, and is no file"),
        ("a", True, "is there already, and is no folder"),
        ("a/b", False, "a is no folder"),
        ("a/b/c", True, "a is no folder"),
        ("x" * 300, True, "File name too long; take another name"),
        ("x" * 240, False, "File name too long; take another name"),  # of its draft
    ],
)
def test_a_path_that_cannot_become_what_is_written_is_refused_by_its_flag(there, path, folders, words):
    with pytest.raises(UserError, match=f"^--out {there / path}: .*{words}"):
        refuse_unwritable(
            {"--pairs": str(there / ("new" if folders else "a")) + "2", "--out": str(there / path)}, folders
        )


@pytest.mark.parametrize("folders", [False, True])
def test_a_blank_path_is_none(folders):
    with pytest.raises(UserError, match=f"^--out: is empty; name a {'folder' if folders else 'file'}"):
        refuse_unwritable({"--out": " "}, folders)


def test_a_link_to_nowhere_is_a_file_to_come_and_no_folder(there):
    (there / "link").symlink_to(there / "later")
    refuse_unwritable({"--out": str(there / "link")})
    with pytest.raises(UserError, match="is there already, and is no folder"):
        refuse_unwritable({"--out": str(there / "link")}, folders=True)


@pytest.mark.parametrize("name", ["a", "sub/../a", "symbolic", "hard"])
def test_an_input_by_any_of_its_names_is_no_output(there, name):
    (there / "symbolic").symlink_to(there / "a")
    os.link(there / "a", there / "hard")
    with pytest.raises(UserError, match=f"^--out {there / name}: is read as --in, and would be lost"):
        refuse_overwriting({"--out": str(there / name)}, [("--in", str(there / "a"))])


def test_of_a_folder_that_is_read_no_file_is_written_over_and_new_ones_are_let_be(there):
    with pytest.raises(UserError, match="sub/b: is read as --images"):
        refuse_overwriting({"--out": str(there / "sub" / "b")}, [("--images", str(there / "sub"))])
    refuse_overwriting({"--out": str(there / "sub" / "new")}, [("--images", str(there / "sub"))])
    refuse_overwriting({"--out": str(there / "a")}, [("--images", str(there / "sub"))])


@pytest.mark.parametrize("name", ["a", "sub/../a", "new"])
def test_two_outputs_are_two_files(there, name):
    first = there / ("new" if name == "new" else "a")
    with pytest.raises(UserError, match=f"^--pairs {there / name}: --out names the same file"):
        refuse_overwriting({"--out": str(first), "--pairs": str(there / name)}, [])


def test_nothing_lies_in_a_folder_that_goes_with_the_command(there):
    (there / "link").symlink_to(there / "sub")
    refuse_within(str(there / "sub"), [("--out", str(there / "a")), ("--log", str(there / "subordinate"))])
    for name in ("sub/b", "link/b", "sub"):
        with pytest.raises(UserError, match=f"^--out {there / name}: lies in {there}/sub"):
            refuse_within(str(there / "sub"), [("--out", str(there / name))])
