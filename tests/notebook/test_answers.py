"""score, refine and make_pairs: what a run does, for anybody's answers; a mistake is one line."""

import doctest

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("transformers")

import spr_plugin
from spr_plugin import UserError
from spr_plugin.pairing import PreferencePair
from tests.notebook.asked import FLAGS, OBJECTS, REGION, ROOT, TEXTS


def test_the_examples_of_the_documentation_say_what_comes_out(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(spr_plugin).failed == 0 and doctest.testmod(spr_plugin).attempted > 8


def test_the_parts_say_what_a_run_s_would(finished_output, tmp_path):
    """Each region of a run, asked for again: the same answers, the same pair. Where an object that is missed
    goes depends on the region's seed.
    """
    saved = spr_plugin.load_run(finished_output(tmp_path / "out", 8, spr_add_missed=False)).saved
    flags = {"spr_box_format": "llava", "spr_clip": saved.config["spr_clip"], "spr_min_kept": 0.6}
    flags["spr_add_missed"] = False
    pairs = {pair.query: pair for pair in saved.pairs}
    for id, record in saved.records("scores").items():
        query, texts = saved.queries[id], [row["text"] for row in record["candidates"]]
        objects = [(one.label, one.box.xyxy) for one in query.image.annotations]
        scored = spr_plugin.score(query.image.path, query.region.xyxy, texts, objects, **flags)
        assert [answer.repaired for answer in scored.answers] == [
            row["repaired"] for row in record["candidates"]
        ]
        for answer, row in zip(scored.answers, record["candidates"]):
            assert answer.score == pytest.approx(row["score"]) and answer.reason == row["reason"]
            assert answer.not_choosable == row["not_choosable"]
        repaired = spr_plugin.refine(
            query.image.path, query.region.xyxy, texts, objects, spr_box_format="llava"
        )
        assert repaired == [answer.repaired for answer in scored.answers]
        (made,) = spr_plugin.make_pairs([scored])
        assert isinstance(made, PreferencePair) == (id in pairs)
        if id in pairs:
            names = ("prompt", "pictures", "chosen", "rejected")
            assert [getattr(made, name) for name in names] == [getattr(pairs[id], name) for name in names]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"image": "/nowhere/a.png"}, "/nowhere/a.png .No such file"),
        ({"region": (0, 0, 60)}, "region: .0, 0, 60. is no box x1, y1, x2, y2 in pixels of this"),
        ({"region": "abcd"}, "region: 'abcd' is no box"),
        ({"region": (200, 200, 300, 300)}, "region: .* is no box"),
        ({"objects": [("cup", (5, 5, 5, 9))]}, r"objects.0.: .* is no box"),
        ({"objects": []}, "objects: none of 0 lies in the region"),
        ({"objects": [("cup", (70, 70, 90, 90))]}, "objects: none of 1 lies in the region"),
        ({"texts": "a cup"}, "texts: give a list of answers"),
        ({"texts": [3]}, "texts: give a list of answers"),
        ({"aspect": "round"}, "aspect='round': llava knows no aspect"),
        ({"spr_box_format": None}, "spr_box_format: say how the answers write boxes"),
        ({"spr_box_format": "mine"}, "mine: no such family"),
        ({"spr_lamda": 0.5}, "spr_lamda.*spr_lambda"),
        ({"spr_lambda": 3}, "spr_lambda"),
        ({"spr_clip": None}, "--spr_clip"),
        ({"spr_clip": "/nowhere"}, "/nowhere"),
        ({"spr_repair": "mine"}, "spr_repair mine: no plugin has it"),
        ({"device": "potato"}, "^device='potato': Expected one of cpu"),
        ({"device": None}, "^device=None: is none; name one"),
        ({"device": [1]}, r"^device=\[1\]: "),
        ({"image": None}, "^image: give a picture of PIL or the path of one, not None; PIL"),
        (
            {"image": np.zeros((9, 9, 3), np.uint8)},
            "^image: give .*, not ndarray; PIL.Image.fromarray.image. makes",
        ),
        ({"image": b"content"}, "^image: give .*, not bytes"),
        ({"image": Image.new("I;16", (96, 96))}, "^image: I;16: more than 8 bits a channel"),
        ({"texts": None}, "^texts: give a list of answers, each a str, not None"),
        ({"texts": {"a cup": 1}}, "^texts: give a list"),
        ({"objects": None}, "^objects: give a list of .name, .*, not None"),
        ({"objects": {"cup": (1, 1, 9, 9)}}, "^objects: give a list"),
        ({"aspect": None}, "^aspect=None: is no text"),
        ({"aspect": ["pad"]}, r"^aspect=\['pad'\]: is no text"),
        ({"spr_plugin": ["/nowhere.py"]}, "^--spr_plugin /nowhere.py: no such file"),
        ({"objects": [{"name": "a"}]}, r"objects\[0\]: {'name': 'a'} is no \(name, "),
    ],
)
def test_a_mistake_says_what_and_where(picture, change, words):
    given = {"image": picture, "region": REGION, "texts": TEXTS, "objects": OBJECTS, **FLAGS, **change}
    with pytest.raises(UserError, match=words) as refused:
        spr_plugin.score(**given)
    assert "\n" not in str(refused.value)


def test_a_device_that_this_torch_has_not(picture, monkeypatch):
    monkeypatch.setattr(
        "torch.ones", lambda *sizes, device: (_ for _ in ()).throw(AssertionError("not compiled"))
    )
    with pytest.raises(UserError, match="^device='cuda': not compiled$"):
        spr_plugin.score(picture, REGION, TEXTS, OBJECTS, device="cuda", **FLAGS)


def test_a_closed_picture_is_one_line(picture):
    closed = picture.copy()
    closed.close()
    with pytest.raises(UserError, match="^image: .* cannot be read"):
        spr_plugin.refine(closed, REGION, TEXTS, OBJECTS, spr_box_format="llava")


def test_what_can_be_read_once_alone_is_read(picture):
    """A generator's answers were none, and no word was lost on it."""
    once = [(one for one in TEXTS), (one for one in OBJECTS)]
    given = spr_plugin.refine(picture, REGION, *once, spr_box_format="llava")
    assert (
        given == spr_plugin.refine(picture, REGION, TEXTS, OBJECTS, spr_box_format="llava")
        and len(given) == 3
    )


@pytest.mark.parametrize("scored", [None, 5, "a dog"])
def test_pairs_of_what_is_no_list(scored):
    with pytest.raises(UserError, match="^scored: give a list of what score returned, not "):
        spr_plugin.make_pairs(scored)


def test_pairs_are_made_of_what_score_returned():
    with pytest.raises(UserError, match="scored: give what spr_plugin.score returned, not 'a dog'"):
        spr_plugin.make_pairs(["a dog"])


def test_without_a_model_names_agree_by_their_nouns(picture):
    """A box behind a wrong noun goes, with its item; nothing is added."""
    objects = [("red square", (10, 10, 40, 40)), ("blue dot", (50, 50, 58, 58))]
    square, dot = "A tiny square [0.12, 0.12, 0.42, 0.42]", "a dot [0.52, 0.52, 0.6, 0.6]"
    wrong = dot.replace("dot", "blue ring")
    texts = [f"{square} and {wrong}.", f"{square} and {dot}.", dot, wrong]
    true = "A tiny square [0.1, 0.1, 0.42, 0.42]"
    named = spr_plugin.refine(picture, REGION, texts, objects, spr_box_format="llava", spr_match="name")
    assert named == [f"{true}.", f"{true} and {dot}.", dot, ""]


@pytest.mark.parametrize(
    "function, flags, words",
    [
        ("refine", {"spr_box_format": "llava", "spr_repair": "mine"}, "spr_repair='mine': no plugin has it"),
        ("make_pairs", {"spr_pairing": ["mine"]}, "spr_pairing mine: no plugin has it"),
        ("make_pairs", {"spr_gap": 1}, "spr_gap"),
    ],
)
def test_a_mistake_without_models_does_too(picture, function, flags, words):
    given = (picture, REGION, TEXTS, OBJECTS) if function == "refine" else ([],)
    with pytest.raises(UserError, match=words):
        getattr(spr_plugin, function)(*given, **flags)


def test_why_there_is_no_pair_is_a_word(picture):
    scored = [spr_plugin.score(picture, REGION, texts, OBJECTS, **FLAGS) for texts in (TEXTS, TEXTS[2:], [])]
    made = spr_plugin.make_pairs(scored)
    assert isinstance(made[0], PreferencePair) and made[1:] == ["too_few_valid"] * 2
    assert spr_plugin.make_pairs(scored[:1], spr_min_gap=5.0) == ["gap_too_small"]
