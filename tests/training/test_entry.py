"""Which training an entry belongs to."""

from types import SimpleNamespace

import pytest
import torch

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import write_json
from spr_plugin.runs.layout import Folder
from spr_plugin.training import entry


def trainer(frozen=(), examples=8, width=2, name="base", **args):
    linear = {part: torch.nn.Linear(2, width) for part in ("projector", "language")}
    model = torch.nn.ModuleDict(linear)
    model.config = SimpleNamespace(_name_or_path=name)
    for name in frozen:
        model[name].requires_grad_(False)
    settings = {"max_steps": -1, "num_train_epochs": 1.0, "learning_rate": 1e-5, **args}
    return SimpleNamespace(model=model, train_dataset=[0] * examples, args=SimpleNamespace(**settings))


def training(*how, only=False, **more):
    return entry.training_of(trainer(*how, **more), SPRConfig(spr=True, spr_only=only))


@pytest.fixture
def left(tmp_path):
    """``left(training)`` → the folder of a run that had come to its entry."""

    def leave(what) -> object:
        write_json(tmp_path / "training.json", what)
        write_json(tmp_path / "entry" / "index.json", {})
        return Folder(tmp_path)

    return leave


def test_the_same_command_finds_its_entry(left):
    assert entry.is_end_of(left(training()), training())
    assert entry.is_end_of(
        left(training(max_steps=5, num_train_epochs=1.0)), training(max_steps=5, num_train_epochs=3.0)
    ), "epochs do not count then"
    assert entry.is_end_of(left(training(only=True)), training(only=True, max_steps=9))


def test_nothing_is_found_where_nothing_is_or_a_death_left_half(tmp_path, left):
    assert not entry.is_end_of(Folder(tmp_path), training())
    left(training())
    (tmp_path / "entry" / "index.json").unlink()
    assert not entry.is_end_of(Folder(tmp_path), training(max_steps=7))


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        (
            training(),
            training(["projector"]),
            "other parameters are trained, 2 of them, such as projector.bias",
        ),
        (training(["projector"]), training(["language"]), "4 of them"),
        (training(), training(num_train_epochs=3.0), "num_train_epochs 1.0 became 3.0"),
        (training(max_steps=3), training(max_steps=5), "max_steps 3 became 5"),
        (training(), training(max_steps=5), "max_steps None became 5"),
        (training(), training(examples=9), "examples 8 became 9"),
        (training(), training(learning_rate=1e-3), "learning_rate 1e-05 became 0.001"),
        (training(), training(width=3), "other parameters are trained, 4 of them, such as language.bias"),
        (training(), training(name="other/base"), "model base became other/base"),
        (training(only=True), training(), "trained False became True"),
        (training(), training(only=True), "trained True became False"),
        ({}, training(), "trained None became True"),
    ],
)
def test_another_training_is_refused_by_what_differs(left, was, now, says):
    with pytest.raises(UserError) as refused:
        entry.is_end_of(left(was), now)
    assert says in str(refused.value) and "--spr_overwrite" in str(refused.value)


def test_records_of_another_training_are_refused_though_its_entry_was_deleted(left):
    """README allows to delete the entry; what was made from it stays that training's."""
    folder = left(training())
    folder.log("candidates").append({"id": "a"})
    (folder.entry / "index.json").unlink()
    assert not entry.is_end_of(folder, training())
    with pytest.raises(UserError, match="learning_rate 1e-05 became 0.01"):
        entry.is_end_of(folder, training(learning_rate=0.01))


@pytest.mark.parametrize("known", [3, "x", [], {"trainable": 3}])
def test_a_damaged_record_of_the_training_is_one_line(left, known):
    with pytest.raises(UserError, match="training.json is damaged"):
        entry.is_end_of(left(known), training())
