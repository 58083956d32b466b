"""Seeing a collapse: what is measured, when the stage stops, and which state is kept."""

import pytest
import torch

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.config.dpo import DPOFlags
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.dpo import choose_trainable, improve, probe
from spr_plugin.dpo.probe import held_out
from spr_plugin.errors import UserError
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.regions import PLAIN, TASK, RegionQuery
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.steps import StepLog, probes_of
from spr_plugin.sampling import decoding as sampling

GOOD, FAR, WORDS = (
    "a red circle [0.1, 0.2, 0.5, 0.75]",
    "a red circle [0.6, 0.8, 0.7, 0.9]",
    "a red circle somewhere",
)


def query(path, index=0, width=40, height=40):
    space = Space.pixels(width, height)
    truth = Annotation(
        "1", "circle", Box(0.1 * width, 0.2 * height, 0.5 * width, 0.75 * height, space), False
    )
    return RegionQuery(
        f"q{index}",
        (AnnotatedImage(f"i{index}", str(path), width, height, (truth,)),),
        PLAIN,
        (truth,),
        TASK,
        0,
        Box(0, 0, width, height, space),
    )


def test_held_out_regions_are_at_most_a_tenth():
    recipe = find_recipe(SPRConfig(), None)
    queries = [query("x", index) for index in range(50)]
    assert (
        len(held_out(queries, 16, recipe)) == 5
        and len(held_out(queries, 2, recipe)) == 2
        and held_out(queries[:9], 16, recipe) == []
    )
    assert held_out(queries, 3, recipe) == held_out(queries[::-1], 3, recipe)


class Said(list):
    """Tokens that decoding gave, and not those of a row, whose text is looked at too."""


@pytest.fixture
def watched_run(live_llava, pairs, random_llava, tmp_path, monkeypatch):
    """Run the stage while the held-out answers go through ``script``: a list of texts, one a look (an
    untrained model writes no box).
    """

    def go(script, pictures=("0.png",) * 4, **settings):
        host, config = live_llava(
            spr_batch_size=2,
            spr_probe_steps=1,
            spr_max_new_tokens=2,
            spr_learning_rate=1e-3,
            spr_epochs=1.0,
            **settings,
        )
        looks = iter(script)
        state = []

        def decode(*given):
            return [[Said(tokens) for tokens in row] for row in probe_decode(*given)]

        def texts(answers):
            if not all(isinstance(one, Said) for one in answers):
                return host_texts(answers)
            assert (
                not host.trainer.model.training
                and not torch.is_grad_enabled()
                and len(answers) == sum(name == "0.png" for name in pictures)
            )
            state.append(
                {
                    name: p.detach().clone()
                    for name, p in host.trainer.model.named_parameters()
                    if p.requires_grad
                }
            )
            return [next(looks)] * len(answers)

        host_texts, probe_decode = host.texts, sampling.decode
        monkeypatch.setattr(probe, "decode", decode)
        monkeypatch.setattr(host, "texts", texts)
        flags = config.only(DPOFlags)
        choose_trainable(host, flags)
        queries = [query(random_llava / "images" / name, index) for index, name in enumerate(pictures)]
        improve(
            host,
            find_recipe(config, host.box_format),
            pairs(8),
            queries,
            flags,
            Folder(tmp_path),
            entry="entry",
        )
        return state, {name: p for name, p in host.trainer.model.named_parameters() if p.requires_grad}

    return go


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.slow
def test_the_best_state_is_kept_and_said(watched_run, tmp_path, capfd):
    state, live = watched_run([FAR, FAR, GOOD, FAR, FAR])
    assert same(state[2], live) and not same(state[4], live)
    assert "the state of step 2 is kept" in capfd.readouterr().err
    assert [*probes_of(StepLog(Folder(tmp_path)).read())] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_without_keep_best_the_last_state_stays(watched_run):
    state, live = watched_run([FAR, FAR, GOOD, FAR, FAR], spr_keep_best=False)
    assert same(state[4], live)


@pytest.mark.slow
def test_a_collapse_stops_the_stage_in_one_line(watched_run, capfd):
    state, live = watched_run([GOOD, GOOD, WORDS, GOOD, GOOD])
    assert len(state) == 3 and same(state[1], live)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "DPO stops" in line]
    assert "step 2" in line and "parsable 1.00 → 0.00" in line and "boxes" in line and "s_loc" in line


@pytest.mark.slow
@pytest.mark.parametrize("share, looks", [(0.5, 5), (0.51, 3)])
def test_a_value_of_exactly_the_share_is_no_collapse(watched_run, share, looks):
    """--spr_collapse: two boxes an answer at the entry, one from step 2 on."""
    both = GOOD + " and " + GOOD.replace("circle", "ring")
    state, _ = watched_run([both, both, GOOD, GOOD, GOOD], spr_collapse=share)
    assert len(state) == looks


@pytest.mark.slow
def test_a_collapse_with_nothing_kept_is_an_error(watched_run):
    with pytest.raises(UserError, match="stops answering at step 1"):
        watched_run([GOOD, WORDS], spr_keep_best=False)


@pytest.mark.slow
def test_a_held_out_picture_that_vanished_stops_and_one_that_broke_answers_nothing(watched_run, tmp_path):
    with pytest.raises(UserError, match="record i3: .*gone.png has vanished .* run the same command"):
        watched_run([GOOD] * 5, ["0.png", "0.png", "0.png", "gone.png"])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    watched_run([GOOD] * 5, [tmp_path / "broken.png", "0.png", "0.png", "0.png"])
    seen = probes_of(StepLog(Folder(tmp_path)).read())
    assert len(seen) == 5 and {values["parsable"] for values in seen.values()} == {0.75}
