"""The embedded LLaVA answers batches: memory that runs out, pictures that break or vanish,
work dealt to any number of ranks.
"""

import contextlib
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.config.candidates import CandidatesFlags
from spr_plugin.data import pictures as picture_files
from spr_plugin.data.annotations import CocoImages
from spr_plugin.errors import UserError
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.regions import region_queries
from spr_plugin.runs.log import Log
from spr_plugin.sampling import live as sampling
from spr_plugin.sampling.decoding import decode
from spr_plugin.sampling.stage import sample
from spr_plugin.training import engine, ranks


@pytest.fixture(scope="module")
def world(tiny_world):
    return tiny_world(sft=8, spr=8)


@pytest.fixture(scope="module")
def host(world, tmp_path_factory, embedded_llava):
    return embedded_llava(world, tmp_path_factory.mktemp("live") / "llava")


CONFIG = SPRConfig(spr=True, spr_greedy=False, spr_regions=4, spr_max_new_tokens=32, spr_sample_batch=6)


def queries_of(world, images=None):
    return list(
        region_queries(
            CocoImages(f"{world}/spr.json", str(images or world / "images"), Counter()),
            seed=0,
            limit=4,
            skipped=Counter(),
        )
    )


def run_stage(host, queries, folder, config=CONFIG) -> dict:
    sample(
        host,
        queries,
        find_recipe(config, host.box_format),
        config.only(CandidatesFlags),
        Log(folder / "candidates", ranks.rank()),
        Log(folder / "batches", ranks.rank()),
    )
    return dict(Log(folder / "candidates").read())


@pytest.fixture(scope="module")
def calm(host, world, tmp_path_factory):
    return run_stage(host, queries_of(world), tmp_path_factory.mktemp("calm"))


@pytest.mark.slow
def test_any_number_of_ranks_gives_the_same_candidates(host, world, tmp_path, calm, monkeypatch):
    """1 → 2 → 4 → 1: each time a rank takes its share of what is left and dies in its second batch; the last
    one finishes alone.
    """
    queries, asked = queries_of(world), []
    texts = host.texts

    def counted(host, rows, *more, **named):
        asked.append(len(rows))
        return decode(host, rows, *more, **named)

    monkeypatch.setattr(sampling, "decode", counted)
    monkeypatch.setattr(ranks, "barrier", lambda: None)
    monkeypatch.setattr(ranks, "from_rank_0", lambda decide: decide())
    config = CONFIG.but_for({"spr_sample_batch": 3})
    for world_size, rank in ((1, 0), (2, 1), (4, 3)):
        monkeypatch.setattr(ranks, "world", lambda world_size=world_size: world_size)
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        left = iter(range(3))  # prompts of one batch
        monkeypatch.setattr(
            host,
            "texts",
            lambda answers, left=left: texts(answers) if next(left, None) is not None else 1 / 0,
        )
        with contextlib.suppress(ZeroDivisionError):
            run_stage(host, queries, tmp_path, config)
    monkeypatch.setattr(host, "texts", texts)
    monkeypatch.setattr(ranks, "world", lambda: 1)
    monkeypatch.setattr(ranks, "rank", lambda: 0)
    assert {path.name for path in (tmp_path / "candidates").iterdir()} >= {
        "rank-00000.jsonl",
        "rank-00001.jsonl",
    }
    assert run_stage(host, queries, tmp_path, config) == calm
    assert 12 <= sum(asked) <= 12 + 3 * 3


@pytest.mark.slow
def test_the_likeliest_answer_is_the_first_to_the_plain_prompt_and_others_stay(host, world, tmp_path, calm):
    config = CONFIG.but_for({"spr_greedy": True})
    queries = queries_of(world)
    found = run_stage(host, queries, tmp_path, config)
    first = {id for id, one in found.items() if (one["kind"], one["index"]) == ("plain", 0)}
    assert len(first) == len(queries) and found.keys() == calm.keys()
    assert all(found[id] == calm[id] for id in found.keys() - first)
    likeliest = {}
    for query in queries:
        with Image.open(query.sources[0]) as picture:
            (row,) = host.questions(
                [picture.convert("RGB")], [find_recipe(config, host.box_format).question(query)]
            )
        ((tokens,),) = decode(host, [row], [[0]], None, config.spr_max_new_tokens)
        (likeliest[query.id],) = host.texts([tokens])
    assert {found[id]["query"]: found[id]["raw"] for id in first} == likeliest


@pytest.mark.slow
def test_ranks_in_step_decode_equally_many_rows(host, world, tmp_path, calm, monkeypatch):
    """The other rank has eight; where all pictures of a batch broke, eight of something are decoded all the
    same.
    """
    prefill, sizes = host.prefill, []

    @contextlib.contextmanager
    def in_step(host):
        with engine.generating(host):
            yield True

    monkeypatch.setattr(host, "prefill", lambda rows: sizes.append(len(rows)) or prefill(rows))
    monkeypatch.setattr(sampling, "generating", in_step)
    monkeypatch.setattr(ranks, "from_all", lambda count: [count, 8])
    assert run_stage(host, queries_of(world), tmp_path / "whole") == calm
    shutil.copytree(world / "images", tmp_path / "images")
    queries = queries_of(world, tmp_path / "images")
    for query in queries:
        Path(query.image.path).write_bytes(b"broken")
    broken = run_stage(host, queries, tmp_path / "broken")
    assert broken.keys() == calm.keys() and {record["text"] for record in broken.values()} == {""}
    assert sizes == [8] * 4


@pytest.mark.slow
def test_ranks_in_step_cannot_halve_a_batch(host, world, tmp_path, monkeypatch):
    def no_memory(rows):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(host, "prefill", no_memory)
    monkeypatch.setattr(sampling, "generating", lambda host: contextlib.nullcontext(True))
    with pytest.raises(
        UserError, match="out of memory with 6 prompts while ranks answer in step: lower --spr_sample_batch"
    ):
        run_stage(host, queries_of(world), tmp_path)


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_halved_for_good(host, world, tmp_path, calm, monkeypatch, capsys):
    """Memory for two prompts: a batch of six becomes 2 + 1 + 2 + 1; the plan keeps that, and the answers are
    the same.
    """
    sizes = []

    def small_memory(host, rows, *more, **named):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return decode(host, rows, *more, **named)

    monkeypatch.setattr(sampling, "decode", small_memory)
    assert run_stage(host, queries_of(world), tmp_path) == calm
    assert sizes == [6, 3, 2, 1, 3, 2, 1] * 2
    assert "--spr_sample_batch" in capsys.readouterr().err
    for path in (tmp_path / "candidates").iterdir():
        path.unlink()
    sizes.clear()
    assert run_stage(host, queries_of(world), tmp_path) == calm
    assert sizes == [2, 1, 2, 1] * 2


@pytest.mark.slow
def test_one_prompt_that_does_not_fit_is_one_line(host, world, tmp_path, monkeypatch):
    def no_memory(rows):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(host, "prefill", no_memory)
    with pytest.raises(UserError, match="out of memory with one prompt of 2 samples: lower --spr_samples"):
        run_stage(host, queries_of(world), tmp_path)


@pytest.mark.slow
def test_a_picture_that_vanishes_stops_the_stage_and_one_that_is_broken_is_counted(
    host, world, tmp_path, calm
):
    images = tmp_path / "images"
    shutil.copytree(world / "images", images)
    queries = queries_of(world, images)
    gone, broken = Path(queries[0].image.path), Path(queries[1].image.path)
    kept = gone.rename(gone.with_suffix(".away"))
    with pytest.raises(
        UserError, match=f"record {queries[0].image.id}: {gone} has vanished .* run the same command"
    ):
        run_stage(host, queries, tmp_path / "run")
    kept.rename(gone)
    broken.write_bytes(broken.read_bytes()[:60])
    records = run_stage(host, queries, tmp_path / "run")
    assert records.keys() == calm.keys()
    assert {record["text"] for record in records.values() if record["query"] == queries[1].id} == {""}
    rest = [id for id, record in calm.items() if record["query"] != queries[1].id]
    assert sum(records[id] == calm[id] for id in rest) == len(rest)


@pytest.mark.slow
def test_each_picture_is_decoded_once(host, world, tmp_path, monkeypatch):
    opened, real = Counter(), picture_files.open_image
    monkeypatch.setattr(picture_files, "open_image", lambda path, id: opened.update([path]) or real(path, id))
    queries = queries_of(world)
    run_stage(host, queries, tmp_path)
    assert opened == Counter(query.image.path for query in queries)


@pytest.mark.slow
def test_a_picture_that_is_shown_whole_is_computed_once(host, world, tmp_path, calm, monkeypatch):
    """To the language model too: the plain prompt and the one with references go on from one beginning."""
    prefill, rows = host.prefill, []
    monkeypatch.setattr(host, "prefill", lambda batch: rows.append(len(batch)) or prefill(batch))
    queries = queries_of(world)
    assert run_stage(host, queries, tmp_path) == calm
    prompts = [prompt for query in queries for prompt in find_recipe(CONFIG, host.box_format).prompts(query)]
    crops = sum(prompt.crop is not None for prompt in prompts)
    assert len(prompts) - crops > len(queries) and sum(rows) == len(queries) + crops
