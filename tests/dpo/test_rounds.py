"""``--spr_rounds`` on a real LLaVA in this process: a round asks, measures against and trains the model that
the one before left.
"""

import time
from pathlib import Path

import pytest
import torch

from spr_plugin import dpo, follow, runs
from spr_plugin.dpo.pairs import batch_of
from spr_plugin.dpo.rows import answers
from spr_plugin.files import read_json
from spr_plugin.marks import mark
from spr_plugin.pairing import PreferencePair
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.runs.log import Log
from spr_plugin.sampling.stage import sample
from spr_plugin.tools.status import status_of
from spr_plugin.training import weights
from spr_plugin.training.engine import generating
from spr_plugin.training.trainable import dropout_off
from tests.random_llava import coco_of

from . import live

pytestmark = pytest.mark.slow

# An adapter of ours, merged after each round; the host's, which goes on.
MODES = {"adapter": {}, "lora": {"lora": True}}
SETTINGS = dict(
    spr_only=True, spr_plugin=[str(Path(__file__).parents[1] / "hosts" / "any_answer.py")], spr_recipe="any", spr_prompts=["plain", "crop"],  # noqa: E501
    spr_regions=6, spr_more_than=1, spr_max_new_tokens=6, spr_batch_size=2, spr_save_steps=1, spr_learning_rate=1e-2, spr_min_kept=0.0,  # noqa: E501
)  # fmt: skip


class Death(Exception):
    pass


class Listen(live.Reporter):
    """Keeps each phase's logs of preference steps, and raises Death before ``step`` of the phase in
    ``folder``.
    """

    def __init__(self, folder=None, step=None):
        self.phases, self.folder, self.step = {}, folder, step

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "rewards/margins" in logs:
            self.phases.setdefault(Path(args.output_dir).parent.name, []).append(dict(logs))

    def on_step_begin(self, args, state, control, **kwargs):
        if Path(args.output_dir).parent.name == self.folder and state.global_step == self.step:
            raise Death


@pytest.fixture(scope="module")
def start(random_llava, tmp_path_factory):
    """``start(OUT, mode, rounds, …)``: the whole stage on the random LLaVA; (host, what was heard)."""
    coco = coco_of(tmp_path_factory.mktemp("source"))

    def go(out, mode, rounds=2, die=(), **settings):
        flags = dict(
            SETTINGS,
            spr_rounds=rounds,
            spr_annotations=str(coco),
            spr_image_folder=str(random_llava / "images"),
        )
        host, config = live.build(random_llava, out, **MODES[mode], **flags | settings)
        heard = Listen(*die)
        host.trainer.add_callback(heard)
        follow.train(host.trainer, config, host.namespace, None)
        return host, heard

    return go


@pytest.fixture(scope="module", params=MODES)
def calm(request, start, tmp_path_factory):
    """Two rounds that nobody disturbed."""
    out = tmp_path_factory.mktemp(request.param)
    return request.param, out, *start(out, request.param)


def values(host):
    return {name: p.detach().clone() for name, p in host.trainer.model.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def entering(random_llava, out, mode, number):
    """The model at the entry of a round, put together from what is on disk."""
    host, config = live.build(random_llava, out, **MODES[mode], **SETTINGS)
    weights.load(host.trainer.model, out / "spr" / "entry")
    if number == 2:
        dpo.choose_trainable(host, config)
        weights.load(host.trainer.model, out / "spr" / "policy")
        dpo.merge_adapter(host.trainer.model)
    return host, config


def test_the_second_round_s_answers_and_reference_are_the_first_round_s_model(calm, random_llava, tmp_path):
    mode, out, *_ = calm
    folder = out / "spr" / "round-2"
    queries = [RegionQuery.from_record(record) for record in Log(folder / "queries").read().values()]
    recorded = Log(folder / "candidates").read()
    pairs = [
        PreferencePair.from_record(record)
        for record in Log(folder / "pairs").read().values()
        if "skip" not in record
    ]
    reference = {
        record["pair"]: [record["chosen"], record["rejected"]]
        for record in Log(folder / "reference").read().values()
    }
    assert (
        len(queries) == 6
        and len(recorded) == 6 * 2 * 2
        and pairs
        and reference.keys() == {pair.id for pair in pairs}
    )
    again, gaps = {}, {}
    for number in (1, 2):
        host, config = entering(random_llava, out, mode, number)
        sample(
            host,
            queries,
            find_recipe(config, host.box_format),
            config,
            log := Log(tmp_path / f"{number}"),
            Log(tmp_path / f"plan-{number}"),
        )
        again[number] = dict(log.read())
        rows = batch_of(host, pairs)
        with generating(host), dropout_off(host.trainer.model):
            own = answers(host, host.trainer.model, rows["batch"], rows["unshared"], joined=False).sums
        known = torch.tensor([reference[pair.id] for pair in pairs]).T.reshape(-1)
        gaps[number] = (own - known).abs().max().item()
    assert again[2] == dict(recorded) and again[1] != dict(recorded)
    assert gaps[2] < 1e-4 and gaps[1] > 1e-2, gaps


def test_each_round_has_regions_of_its_own_starts_at_its_reference_and_moves(calm):
    _, out, host, heard = calm
    regions = [set(Log(folder / "queries").read()) for folder in (out / "spr", out / "spr" / "round-2")]
    assert not regions[0] & regions[1] and len(regions[0]) == len(regions[1]) == 6
    assert set(heard.phases) == {"spr", "round-2"}
    for steps in heard.phases.values():
        assert (
            len(steps) > 1
            and steps[0]["rewards/chosen"] == steps[0]["rewards/rejected"] == 0
            and steps[1]["rewards/margins"]
        )
    first, second = (
        read_json(folder / "policy" / "index.json") for folder in (out / "spr", out / "spr" / "round-2")
    )
    assert first.keys() == second.keys() and all(first[name] != second[name] for name in first)
    first, second = ((out / "spr" / name / "report.html").read_text() for name in ("", "round-2"))
    assert "/spr</code>, finished" in first and "/round-2</code>, finished" in second
    assert '<a href="round-2/report.html">round-2</a>' in first
    names = weights.trainable(host.trainer.model)
    assert read_json(out / "spr" / "exit.json")["weights"] == weights.digests(
        host.trainer.model, sorted(names)
    ) and "spr" not in " ".join(names)


def test_a_death_in_the_second_round_leaves_no_trace(calm, start, tmp_path):
    mode, _, host, _ = calm
    with pytest.raises(Death):
        start(tmp_path / "out", mode, die=("round-2", 1))
    again, heard = start(tmp_path / "out", mode)
    assert set(heard.phases) == {"round-2"}  # the first round was read, not trained again
    assert same(values(again), values(host))


def test_one_more_round_of_a_finished_run_and_the_dpo_stage_started_over(calm, start, tmp_path):
    """Another number of rounds is no other configuration; --spr_restart_dpo takes the rounds that came from
    the first one's result with it.
    """
    mode, out, host, _ = calm
    start(tmp_path / "out", mode, rounds=1)
    more, heard = start(tmp_path / "out", mode)
    assert set(heard.phases) == {"round-2"} and same(values(more), values(host))
    over, heard = start(tmp_path / "out", mode, spr_restart_dpo=True, spr_beta=0.3)
    assert set(heard.phases) == {"spr", "round-2"} and not same(values(over), values(host))
    records = [dict(Log(folder / "spr" / "pairs").read()) for folder in (out, tmp_path / "out")]
    assert records[0] == records[1]


def test_marked_pairs_are_left_out_and_nothing_but_the_dpo_stage_is_made_again(start, tmp_path, capsys):
    """Marks of another run are said and do no harm; a note that changes shapes nothing."""
    out, marks = tmp_path / "out", tmp_path / "out" / "spr-marks.jsonl"
    first, _ = start(out, "adapter", rounds=1)
    pairs = [one for one in Log(out / "spr" / "pairs").read().values() if "skip" not in one]
    stages = "queries", "candidates", "scores", "pairs"
    before = {path: path.read_bytes() for stage in stages for path in (out / "spr" / stage).glob("rank-*")}
    trained = len(pairs)  # one at most is held out, and may be the one that is marked
    for pair, note in [(pairs[0]["id"], "wrong box"), ("0123", "of another run"), (pairs[1]["id"], "")]:
        mark(marks, pair, note)
    mark(marks, pairs[1]["id"], None)
    capsys.readouterr()
    second, heard = start(out, "adapter", rounds=1, spr_exclude_pairs=str(marks))
    err = capsys.readouterr().err
    assert f"spr: {trained - 1} pairs from 6 queries (marked 1" in err
    assert f"--spr_exclude_pairs {marks}: 1 of its 2 pairs, such as 0123, are not of this run" in err
    assert heard.phases.keys() == {"spr"} and not same(values(first), values(second))
    again = runs.open(out)
    assert again.excluded == {pairs[0]["id"], "0123"}
    assert status_of(again, time.time())["rounds"][0]["skips"]["pairs"]["marked"] == 1
    assert {path: path.read_bytes() for path in before} == before
    mark(marks, pairs[0]["id"], "another note")
    third, heard = start(out, "adapter", rounds=1, spr_exclude_pairs=str(marks))
    assert not heard.phases and same(values(second), values(third))
