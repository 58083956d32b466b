"""Tensors on disk: whole or not at all, checked when read."""

import json
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file

from spr_plugin.errors import UserError
from spr_plugin.training import weights


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    first, second = model(), model()
    names = weights.trainable(first) + weights.persistent_buffers(first)
    weights.save(first, names, tmp_path / "entry")
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1)
    weights.load(second, tmp_path / "entry")
    assert weights.digests(first, names) == weights.digests(second, names)
    assert {"1.running_mean", "1.num_batches_tracked"} <= set(names)


def test_shards_are_cut_by_size(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHARD_BYTES", 20)
    first = model()
    names = weights.trainable(first)
    weights.save(first, names, tmp_path / "entry")
    assert len(list((tmp_path / "entry").glob("*.safetensors"))) > 1
    second = model()
    torch.nn.init.zeros_(second[0].weight)
    weights.load(second, tmp_path / "entry")
    assert torch.equal(first[0].weight, second[0].weight)


def test_a_draft_that_a_crash_left_is_no_entry(tmp_path):
    (tmp_path / "entry.tmp").mkdir()
    (tmp_path / "entry.tmp" / "half").write_text("x")
    weights.save(model(), ["0.weight"], tmp_path / "entry")
    assert json.loads((tmp_path / "entry" / "index.json").read_text()).keys() == {"0.weight"}
    assert not (tmp_path / "entry.tmp").exists()


def test_a_folder_that_was_moved_and_linked_is_replaced_and_its_target_stays(tmp_path, capsys):
    weights.save(model(), ["1.bias"], tmp_path / "scratch")
    for name in ("entry", "entry.tmp"):
        (tmp_path / name).symlink_to(tmp_path / "scratch")
    weights.save(model(), ["0.weight"], tmp_path / "entry")
    kept = [json.loads((tmp_path / name / "index.json").read_text()).keys() for name in ("entry", "scratch")]
    assert kept == [{"0.weight"}, {"1.bias"}] and not (tmp_path / "entry").is_symlink()
    assert f"{tmp_path}/entry was a link" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_nothing_half(tmp_path):
    """The kernel refuses files above a size, as it would on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    weights.save(model(), ["1.bias"], tmp_path / "entry")
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(
            UserError, match="entry: cannot be written .*make room and start the same command again"
        ) as caught:
            weights.save(model(), ["0.weight"], tmp_path / "entry")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["entry"] and json.loads(
        (tmp_path / "entry" / "index.json").read_text()
    ).keys() == {"1.bias"}


def test_a_damaged_tensor_is_named(tmp_path):
    weights.save(model(), ["0.weight"], tmp_path / "entry")
    (path,) = (tmp_path / "entry").glob("*.safetensors")
    save_file({"0.weight": load_file(path)["0.weight"] + 1}, path)
    with pytest.raises(UserError, match="0.weight is damaged"):
        weights.load(model(), tmp_path / "entry")


@pytest.mark.parametrize("cut", ["missing", "half"])
def test_a_shard_that_is_not_whole_is_named_and_never_passed_over(tmp_path, monkeypatch, cut):
    monkeypatch.setattr(weights, "SHARD_BYTES", 16)
    model = torch.nn.Linear(2, 3)
    weights.save(model, ["weight", "bias"], tmp_path / "entry")
    shard = tmp_path / "entry" / "00001.safetensors"
    shard.unlink() if cut == "missing" else shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(
        UserError, match="entry lacks .* of its weights" if cut == "missing" else f"{shard} is damaged"
    ):
        weights.load(model, tmp_path / "entry")


def test_another_structure_is_refused(tmp_path):
    weights.save(model(), ["0.weight"], tmp_path / "entry")
    with pytest.raises(UserError, match="another structure"):
        weights.load(torch.nn.BatchNorm1d(3), tmp_path / "entry")


def test_trained_weights_get_the_narrowest_type_among_them():
    parts = [
        torch.nn.Parameter(torch.ones(2, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16, torch.float32)
    ]
    parts[2].ds_tensor = torch.full((1,), 3.0)  # as ZeRO-3 keeps a rank's part
    weights.share_type(iter(parts))
    assert (
        [part.dtype for part in parts] == 3 * [torch.bfloat16]
        and parts[2].ds_tensor.dtype == torch.bfloat16
        and parts[2].ds_tensor == 3
    )
    weights.share_type([])
