"""Checkpoints of helper models: whole, or refused in one line."""

import pytest

pytest.importorskip("transformers")

import transformers

from spr_plugin.errors import UserError
from spr_plugin.hooks.checkpoint import refused, whole


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KeyError("text_config"), "'text_config'"),
        (OSError("no file\nof that name"), "no file"),
        (RuntimeError(), "RuntimeError"),
        (ValueError("\n\n  size mismatch  \n"), "size mismatch"),
    ],
)
def test_whatever_goes_wrong_is_one_line(error, why):
    with pytest.raises(UserError) as caught, refused("--spr_clip", "/a", "not a CLIP checkpoint"):
        raise error
    assert str(caught.value) == f"--spr_clip /a: not a CLIP checkpoint ({why})"


def test_a_user_s_mistake_stays_and_nothing_wrong_is_nothing():
    with pytest.raises(UserError, match="^mine$"), refused("--spr_clip", "/a", "no"):
        raise UserError("mine")
    with refused("--spr_clip", "/a", "no") as nothing:
        assert nothing is None


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny model, of which the last layer's weights are not there."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("saved")
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    config = transformers.CLIPTextConfig(**sizes, vocab_size=32, max_position_embeddings=8)
    transformers.CLIPTextModel(config).save_pretrained(folder)
    file = folder / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if "layers.1.mlp" not in name}
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def test_weights_that_are_missing_are_named(saved):
    with pytest.raises(ValueError, match=r"^no weights for .*layers.1.mlp.fc1.bias and 3 more$"):
        whole(transformers.CLIPTextModel, str(saved), ())


def test_what_is_computed_may_be_missing(saved):
    with pytest.raises(ValueError, match=r"layers.1.mlp.fc2.bias and 1 more$"):
        whole(transformers.CLIPTextModel, str(saved), ("fc1.bias", "fc1.weight"))
    computed = tuple(f"fc{number}.{kind}" for number in (1, 2) for kind in ("bias", "weight"))
    assert isinstance(whole(transformers.CLIPTextModel, str(saved), computed), transformers.CLIPTextModel)
