"""What the docs say of the study: every number from its data, every word from an interval, the committed
pages those that the script writes.
"""

import copy
import re

import pytest

from spr_plugin.files import read_json

from .world import load, same

pytest.importorskip("datasets")  # the oldest environment has no lmms-eval and what it needs
jinja2 = pytest.importorskip("jinja2")

run = load("reproduce/run")
figures, paired, tables, words = run.figures, run.paired, run.tables, run.tables.words


@pytest.fixture(scope="module")
def committed() -> dict:
    return read_json(tables.DOCS / "reproduction.json")


def row(gain=0.02, low=0.01, high=0.03, by_seed=(0.5, 0.6), **more) -> dict:
    own = {"a": 0.5, "b": 0.5 + gain, "gain": gain, "low": low, "high": high, "p": 0.01, "n": 9}
    own |= {"seeds": len(by_seed)}
    return {**own, "by_seed": list(by_seed), "apart": paired.apart(by_seed), **more}


# --- a word follows from an interval


@pytest.mark.parametrize(
    "low, high, margin, expected",
    [
        (0.01, 0.03, 0.0, 1),
        (0.0, 0.03, 0.0, 0),  # an end on zero is in the interval
        (-0.01, 0.01, 0.0, 0),
        (-0.03, 0.0, 0.0, 0),
        (0.0, 0.0, 0.0, 0),
        (-0.03, -0.01, 0.0, -1),
        (0.02, 0.04, 0.03, 0),
        (0.03, 0.04, 0.03, 0),
        (0.031, 0.04, 0.03, 1),
        (0.01, 0.02, 0.03, -1),
        (-0.004, 0.01, -0.005, 1),
        (-0.016, 0.013, -0.005, 0),
    ],
)
def test_the_sign_of_an_interval(low, high, margin, expected):
    assert paired.sign(row((low + high) / 2, low, high), margin) == expected


def test_nothing_is_said_of_what_was_not_measured_and_of_seeds_that_are_apart():
    """Yes said in 97, 0 and 99 of a hundred: their mean is that of no model."""
    wild = row(-0.2, -0.9, -0.1, by_seed=(0.97, 0.004, 0.99))
    assert paired.sign(None) is None and paired.sign(wild) is None
    assert words.word(None) == "not measured" and words.said(None) == "was not measured"
    assert words.word(wild) == "seeds disagree"
    assert words.said(wild) == "ends at 97.0, 0.4 and 99.0 by seed, from 50.0: too far apart for a mean"


@pytest.mark.parametrize(
    "seeds, expected", [((0.5, 0.7), False), ((0.5, 0.71), True), ((0.1,), False), ((0.7, 0.6, 0.5), False)]
)
def test_how_far_apart_is_too_far(seeds, expected):
    assert paired.apart([round(100 * value) / 100 for value in seeds]) == expected


@pytest.mark.parametrize(
    "gain, low, high, word, sentence",
    [
        (0.083, 0.066, 0.1, "gains", "gains 8.3 points (+6.6 … +10.0)"),
        (-0.061, -0.078, -0.043, "loses", "loses 6.1 points (-7.8 … -4.3)"),
        (0.006, -0.007, 0.022, "no difference seen", "shows no difference (+0.6, -0.7 … +2.2)"),
        (0.01, 0.0, 0.02, "no difference seen", "shows no difference (+1.0, +0.0 … +2.0)"),
    ],
)
def test_how_a_gain_is_said(gain, low, high, word, sentence):
    assert (words.word(row(gain, low, high)), words.said(row(gain, low, high))) == (word, sentence)


@pytest.mark.parametrize(
    "rows, margin, expected",
    [
        ([row()], 0.0, "yes"),
        ([row(), row(0.01, 0.0, 0.02)], 0.0, "open"),  # above, and not shown to be
        ([row(), row(-0.02, -0.03, -0.01)], 0.0, "no"),
        ([row(), None], 0.0, "not measured"),
        (
            [row(-0.001, -0.016, 0.013)],
            -0.005,
            "open",
        ),  # no fall of half a point is neither shown nor refuted
        ([row(0.08, 0.066, 0.1)], 0.03, "yes"),
        ([row(0.035, 0.02, 0.05)], 0.03, "open"),
        ([row(0.01, 0.005, 0.02)], 0.03, "no"),
    ],
)
def test_the_verdict_on_a_claim(rows, margin, expected):
    assert figures.verdict(rows, margin) == expected


def test_a_comparison_turned_round():
    other = figures.turned(row(0.02, -0.01, 0.05, by_seed=(0.5, 0.54)), [0.4, 0.6])
    assert (other["gain"], other["low"], other["high"], other["by_seed"]) == (-0.02, -0.05, 0.01, [0.4, 0.6])
    assert (other["a"], other["b"]) == (0.52, 0.5)


def test_parts_are_counted_over_the_seeds():
    flip = {"part": "1st third", "figure": "Acc@0.5", "n": 10, "won": 1, "lost": 2}
    both = [{"gain": -0.1, "low": -0.2, "high": 0.01}, {"gain": -0.2, "low": -0.3, "high": -0.1}]
    found = figures.parts({seed: {"flips": [{**flip, **one}]} for seed, one in enumerate(both)})
    assert found == {"1st third": {"Acc@0.5": {"n": 20, "won": 2, "lost": 4, "gains": both}}}


def test_fewer_failures_are_no_loss():
    fewer = {**row(-0.02, -0.04, -0.01), "failure": True}
    assert words.word(fewer) == "falls" and words.said(fewer) == "falls 2.0 points (-4.0 … -1.0)"
    assert words.word(row(-0.02, -0.04, -0.01)) == "loses"
    assert words.word({**row(0.02, 0.01, 0.04), "failure": True}) == "rises"
    assert words.word({**row(0.02, -0.01, 0.04), "failure": True}) == "no difference seen"


# --- the committed pages are what the script writes


def test_the_page_is_made_of_the_committed_json(committed):
    assert (tables.DOCS / "reproduction.md").read_text() == tables.page(committed)
    for name, curve in tables.curves(committed).items():
        assert (tables.DOCS / f"reproduction-{name}.svg").read_text() == tables.plot(curve) + "\n", name


def test_the_committed_json_is_made_of_the_committed_results(committed, monkeypatch):
    """All but the intervals, of which one is made anew: all of them take a minute."""
    found = paired.load(tables.RESULTS)
    assert same(paired.against(found, paired.BASE, "main", "rec"), committed["main"]["rec"], set())
    monkeypatch.setattr(figures.metrics, "RESAMPLES", 20)
    drawn = {"low", "high", "p", "verdict", "met", "above", "below", "resamples", "tried_for"}
    assert same(figures.findings(tables.RESULTS), committed, drawn)


def test_other_results_are_other_words(committed):
    """Nothing on the page or in the tables of gains and losses outlives the figures that it was said of."""
    facts = copy.deepcopy(committed)
    before = tables.page(facts)
    gained = facts["main"]["rec"]["Acc@0.9"]
    assert f"{words.said(gained)} at IoU 0.9" in before
    gained.update(gain=-0.012, low=-0.02, high=-0.004, apart=False)
    facts["state"] = figures.state(facts)
    after = tables.page(facts)
    assert "loses 1.2 points (-2.0 … -0.4) at IoU 0.9" in after and "loses 1.2" not in before
    assert "| -1.2 (-2.0 … -0.4) | loses |" in tables.state(facts)


def test_pairs_of_one_candidate_are_said_where_they_were_counted(committed):
    facts = copy.deepcopy(committed)
    unit = {"stage": {"counts": {"preference pairs": 276}, figures.ONE_CANDIDATE: 14}}
    facts["stages"]["main"] = figures.stage(unit)
    assert "Of 276 pairs 14 take both answers from one candidate" in tables.page(facts)
    facts["stages"]["main"] = figures.stage({"stage": {"counts": {"preference pairs": 276}}})
    assert "from one candidate" not in tables.page(facts)


def test_a_page_of_nothing_says_so(tmp_path):
    """Before the first result, and with some of them, the page stands and claims nothing."""
    (tmp_path / "results").mkdir()
    text = tables.write(tmp_path / "results", tmp_path)
    assert "SPR on referring expressions was not measured at IoU 0.5" in text and "gains " not in prose(text)
    assert (tmp_path / "reproduction.md").read_text() == text
    assert read_json(tmp_path / "reproduction.json")["state"][0]["row"] is None


def prose(text: str) -> str:
    return text.split("## What was found")[1].split("## Defaults")[0]


# --- no number in the prose that is not read from the JSON

# What is a name and no finding: thresholds, models, file names and settings in backticks, commands.
NAMES = re.compile(r"`[^`]*`|^    .*$|IoU 0\.[5-9]|VLM-R1|Ferret-7B|7B weights", re.MULTILINE)
SPELLED = (
    "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty hundred"
    " thousand dozen half halves quarter quarters twice thrice double tenth fifth"
)
NUMBER = re.compile(rf"\d|\b(?:{'|'.join(SPELLED.split())})\b", re.IGNORECASE)


def literals(template: str, known: set[str]) -> list[str]:
    """Numbers that the template says by itself, in its text or in an expression that reads nothing."""
    nodes, found = jinja2.nodes, []
    tree = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).parse(template)
    text = "".join(
        node.data if isinstance(node, nodes.TemplateData) else "§"
        for output in tree.find_all(nodes.Output)
        for node in output.nodes
    )
    found += [line for line in NAMES.sub("", text).splitlines() if NUMBER.search(line)]
    spoken = [node for output in tree.find_all(nodes.Output) for node in output.nodes]
    silent = nodes.TemplateData, nodes.Name, nodes.CondExpr  # the last one's branches are looked at below
    found += [str(node) for node in spoken if not isinstance(node, silent) and node.find(nodes.Name) is None]
    for constant in tree.find_all(nodes.Const):
        value = constant.value
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if (number and value != 100) or (
            isinstance(value, str) and NUMBER.search(value) and value not in known
        ):
            found.append(repr(value))
    return found


def names(value) -> set[str]:
    """All keys and texts of plain data, and the formats of numbers."""
    if isinstance(value, dict):
        return set(value) | {name for one in value.values() for name in names(one)}
    if isinstance(value, (list, tuple)):
        return {name for one in value for name in names(one)}
    return {value} if isinstance(value, str) else set()


FORMATS = {"%+.1f", "%.1f", "%.0f", "+.2f"}


def test_the_page_has_no_number_of_its_own(committed):
    assert literals(tables.TEMPLATE.read_text(), names(committed) | FORMATS) == []


@pytest.mark.parametrize(
    "told",
    [
        "928 regions make a pair.",
        "A description has 6.3 boxes before {{ facts.seeds }} and 5.1 after.",
        "Refinement drops 17 % of the small boxes.",
        "The log-prob rises by half a nat.",
        "Recall falls by nine points.",
        "{{ '0.60 to 0.28' }}",
        "{{ 3e-4 }}",
        "{% set lost = 17 %}{{ lost }} %",
        "{{ words.said('17 points') }}",
    ],
)
def test_a_number_of_the_page_s_own_is_found(committed, told):
    assert literals(f"# Page\n\n{told}\n", names(committed) | FORMATS)
