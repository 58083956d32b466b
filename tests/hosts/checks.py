"""What must hold of every finished run, and of every host."""

import json
import pickle
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from spr_plugin import runs
from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.dpo.pairs import answer_tokens, batch_of, pair_rows
from spr_plugin.dpo.rehearsal import rehearse
from spr_plugin.dpo.rows import answers, no_joining
from spr_plugin.files import read_json
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.runs.layout import PARTS
from spr_plugin.runs.log import Log
from spr_plugin.sampling.decoding import decode, shared_prefill
from spr_plugin.training.weights import tensor_hash


def dies_in_judging_and_goes_on(train, recipe: type, output: Path, monkeypatch) -> runs.SavedRun:
    """A run of twelve queries whose judging dies behind the fifth, and the same command again: what was
    answered and scored stays, and the rest follows. The finished run.

    Args:
        train: the host's training with the plugin, whose own part comes once → the outcome.
    """
    judge, judged = recipe.judge, []

    def dies(self, pictures, queries, texts, pooled=True):
        judged.extend(queries)
        if len(judged) > 5:
            raise RuntimeError("died")
        return judge(self, pictures, queries, texts, pooled)

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "judge", dies)
        outcome = train()
    assert "scores" in outcome.failure and "died" in outcome.failure
    run = runs.open(output)
    answers, scores = run.records("candidates"), run.records("scores")
    assert len(scores) == 5
    assert train().failure is None
    run = runs.open(output)
    assert run.records("candidates") == answers and run.folder.exit.exists()
    assert len(run.records("scores")) == 12 and scores.items() <= run.records("scores").items()
    return run


def saved_weights(out: Path) -> dict:
    """name → tensor of a full checkpoint as the host saved it."""
    return {
        name: tensor for path in sorted(out.glob("*.safetensors")) for name, tensor in load_file(path).items()
    }


def assert_saved_equals_live(out: Path) -> None:
    live = read_json(out / "spr" / "exit.json")["weights"]
    saved = saved_weights(out)
    assert live and live.keys() <= saved.keys()
    assert {name: tensor_hash(saved[name]) for name in live} == live


def assert_whole(out: Path, part: str = "spr") -> None:
    """Every region has all its candidates once, a score, and a pair or a reason; the logs hold no record
    twice.
    """
    spr = out / part
    # Of a test's plugin.
    made = {path.name.partition("-")[0] for path in spr.iterdir()} - {"live_log_probs.json"}
    assert made <= PARTS, f"--spr_overwrite would leave {made - PARTS}"
    regions, candidates, scores, pairs = (
        Log(spr / stage).read() for stage in ("queries", "candidates", "scores", "pairs")
    )
    assert len(regions) == 12 and scores.keys() == regions.keys()
    assert len(candidates) == 12 * 3 * 2
    assert sorted(record["query"] for record in pairs.values()) == sorted(regions)
    for stage in ("candidates", "scores", "pairs"):
        lines = [
            line for path in (spr / stage).glob("rank-*.jsonl") for line in path.read_text().splitlines()
        ]
        assert len(lines) == len({json.loads(line)["id"] for line in lines}), stage
    assert (spr / "report.html").stat().st_size > 10_000


def assert_engine_on(out: Path, ranks: int) -> None:
    """The stage ran in a real DeepSpeed engine, and each rank sampled."""
    assert read_json(out / "spr" / "exit.json")["engine"] == "DeepSpeedEngine"
    assert len(list((out / "spr" / "candidates").glob("rank-*.jsonl"))) == ranks


def assert_saved_lora_equals_live(out: Path) -> None:
    """Adapter and projector in the two files that LLaVA writes for a LoRA host are the live ones."""
    live = read_json(out / "spr" / "exit.json")["weights"]
    rest = torch.load(out / "non_lora_trainables.bin", weights_only=True)
    adapter = load_file(out / "adapter_model.safetensors")
    assert any("lora_A" in name for name in live) and any("mm_projector" in name for name in live)
    for name, value in live.items():
        saved = rest[name] if name in rest else adapter[name.replace(".default", "")]
        assert tensor_hash(saved.contiguous()) == value, name


# --- of a host: what its own forward says is what decoding and DPO see


@torch.no_grad()
def greedy(host, row: dict, count: int) -> list[int]:
    """``count`` likeliest tokens by whole forwards of one row: no cache, no padding, no position of ours."""
    texts = []
    length = len(row["input_ids"])
    for _ in range(count):
        longer = {
            name: torch.cat([v, v.new_zeros(len(texts))])
            if torch.is_tensor(v) and v.shape == (length,)
            else v
            for name, v in row.items()
        }
        longer["input_ids"][length:] = torch.tensor(texts, dtype=torch.long)
        if "attention_mask" in longer:
            longer["attention_mask"][:] = 1
        with host.labels_overheard():
            texts.append(int(host.trainer.model(**host.batch([longer])).logits[0, -1].argmax()))
    return texts


def assert_decodes_as_its_own_forward(host, rows: list[dict], count: int = 6) -> None:
    with torch.no_grad():
        told = decode(host, rows, [[0, 1]] * len(rows), None, count)
    for row, (first, second) in zip(rows, told):
        expected = greedy(host, row, count)
        ends = [index for index, token in enumerate(expected) if token in host.stop_tokens]
        # LLaVA's collators take a padding token that was said for padding: what whole forwards say behind one
        # is of another row.
        sure = next(
            (index + 1 for index, token in enumerate(expected) if token == host.tokenizer.pad_token_id), count
        )
        assert first == second and first[:sure] == expected[: min(ends[0] if ends else count, sure)], (
            first,
            second,
            expected,
        )


def assert_beginnings_are_shared(host, rows: list[dict], pictures: int) -> None:
    """Rows of so many pictures: as many beginnings are forwarded, and the next token is the same."""
    asked, prefill = [], host.prefill
    host.prefill = lambda rows: asked.append(len(rows)) or prefill(rows)
    try:
        with torch.no_grad():
            (alone, _, _), (shared, _, _) = host.prefill(rows), shared_prefill(host, rows)
    finally:
        del host.prefill
    assert asked == [len(rows), pictures]
    torch.testing.assert_close(shared, alone, atol=1e-5, rtol=1e-5)
    for count in (1, 12):  # answers go on behind a cache that was put together
        lone, together = (
            decode(host, rows, [[0]] * len(rows), None, count, share=share) for share in (False, True)
        )
        assert lone == together


def assert_rows_in_another_process(host, pairs) -> None:
    """What a data loader's process gets of the host makes the same batch, without trainer and model."""
    away = pickle.loads(pickle.dumps(host))
    assert not hasattr(away, "trainer") and not any(
        isinstance(value, torch.nn.Module) for value in vars(away).values()
    )
    assert _plain(batch_of(away, pairs)) == _plain(batch_of(host, pairs))


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return (value.dtype, value.tolist()) if isinstance(value, torch.Tensor) else value


def assert_log_probs_of_its_own_forward(host, pairs) -> dict:
    """Sums and gradients of two rows a pair and of joined rows against full logits; returns the gradients by
    parameter.
    """
    assert no_joining(host.language_model()[0].config) is None
    inputs = batch_of(host, pairs)
    model, sums, gradients = host.trainer.model, [], []
    for way in ("plain", "two rows", "joined"):
        model.zero_grad()
        batch = dict(inputs["batch"])
        if way == "plain":
            with host.labels_overheard() as heard:
                logits = model(**batch).logits[:, :-1].float()
            labels = heard[0][:, 1:]
            total = (
                logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != -100)
            ).sum(1)
        else:
            ours = answers(host, model, batch, inputs["unshared"], joined=way == "joined")
            assert ours.tokens[: len(pairs)].tolist() == [
                answer_tokens(pair_rows(host, pair)[0]) for pair in pairs
            ]
            total = ours.sums
        (total * torch.linspace(-1, 1, len(total))).sum().backward()
        sums.append(total.detach())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert sums[0].abs().min() > 1
    for total, gradient in zip(sums[1:], gradients[1:]):
        assert torch.allclose(total, sums[0], atol=5e-5, rtol=1e-5), (total - sums[0]).abs().max()
        for name, expected in gradients[0].items():
            assert (gradient[name] - expected).abs().max() < 1e-4 * max(1.0, expected.abs().max()), name
    return gradients[0]


def assert_rehearses(host, file: str) -> None:
    """What is asked of the host before anything trains is asked of all prompts, in the family's own box
    text.
    """
    with Image.open(file) as picture:
        width, height = picture.size
    space = Space.pixels(width, height)
    boxes = [Box(0, 0, width / 2, height / 2, space), Box(width / 4, height / 4, width, height, space)]
    objects = tuple(Annotation(number, "red circle", box) for number, box in enumerate(boxes))
    query = region_query(
        AnnotatedImage("a", file, width, height, objects), Box(0, 0, width, height, space), 0
    )
    config = SPRConfig(spr=True)
    rehearse(host, find_recipe(config, host.box_format), [query], config.spr_max_new_tokens)
