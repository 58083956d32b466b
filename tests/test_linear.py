"""No text that a model, a user or a stranger's file holds keeps a run waiting: every pattern is linear.

Every compiled pattern of the package is found and fed runs, repetitions and near matches of its own parts, by
the methods that the code calls.
"""

import ast
import importlib
import importlib.util
import json
import pickle
import pkgutil
import re
import time
from collections import Counter
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import spr_plugin
from spr_plugin import hooks
from spr_plugin.data.annotations import CocoImages
from spr_plugin.data.conversations import REC_QUESTION, mine_conversations
from spr_plugin.formats import FAMILIES, box_format, qwen_vl
from spr_plugin.formats.entries import entries_in
from spr_plugin.plain_pickle import load_plain
from spr_plugin.recipes.spr.refinement import refine
from spr_plugin.redaction import _pattern, redacted

try:
    from re import _constants as codes
    from re import _parser as parser
except ImportError:  # Python 3.10
    import sre_constants as codes
    import sre_parse as parser

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SOURCES = [
    path for folder in ("spr_plugin", "hooks", "eval_tasks") for path in sorted((ROOT / folder).rglob("*.py"))
]
LONG, SECONDS = 100_000, 1.0
READING = 5.0  # of LONG by a whole family, most of it spent in linear Python; squared it would take minutes
SHORT, SUSPICIOUS = 1000, 0.00015  # a run of time squared that takes a second on LONG takes so much here
# For ten times the text linear takes ten times as long; squared, if by a tenth alone on SHORT, sixteen times.
MIDDLE, GROWN = 10_000, 12
# Patterns made of words that are known only later, and where; each is of escaped words.
MADE = {
    "eval_tasks/classification.py": {"_says"},
    "spr_plugin/formats/tagged.py": {"_tags"},
    "spr_plugin/redaction.py": {"_pattern"},
    "spr_plugin/runs/growing.py": {"__init__"},
}
ALL = {"finditer", "match", "fullmatch"}
HOW = {
    "sub": "finditer",
    "findall": "finditer",
    "split": "finditer",
    "search": "finditer",
    "subn": "finditer",
}


def compiled(thing):
    """The patterns in an attribute's value."""
    if isinstance(thing, re.Pattern):
        yield thing
    elif isinstance(thing, (tuple, list, set, frozenset)):
        for item in thing:
            yield from compiled(item)
    elif isinstance(thing, dict):
        yield from compiled(tuple(thing.values()))


@cache
def patterns() -> dict[str, re.Pattern]:
    """``module.name`` → pattern, of every module of ours that can be imported here."""
    packages = [spr_plugin, hooks]
    packages += (
        [importlib.import_module("spr_plugin.eval_tasks")] if importlib.util.find_spec("datasets") else []
    )
    patterns_of = {}
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            try:
                loaded = importlib.import_module(module.name)
            except ImportError as error:  # of an optional part: lmms-eval
                assert not (error.name or "").startswith("spr_plugin"), error
                continue
            owners = [
                loaded,
                *(
                    thing
                    for thing in vars(loaded).values()
                    if isinstance(thing, type) and thing.__module__ == module.name
                ),
            ]
            for owner in owners:
                for name, value in vars(owner).items():
                    for index, pattern in enumerate(compiled(value)):
                        patterns_of[f"{module.name}.{name}" + (f"[{index}]" if index else "")] = pattern
    return patterns_of


@cache
def methods() -> dict[str, set[str]]:
    """Name of a variable → methods that are called on it somewhere, by the name that they are tried under."""
    called = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute)):
                name = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                called.setdefault(name, set()).add(HOW.get(node.attr, node.attr))
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "end_of":
                called.setdefault(ast.unparse(node.args[0]).rpartition(".")[2], set()).add("match")
    return {name: used & ALL for name, used in called.items()}


def of_set(items) -> tuple[str, list[str]]:
    """(a character that a set of a pattern holds, some that it names, also in order not to hold them)."""
    named = []
    for kind, value in items:
        if kind is codes.LITERAL:
            named.append(chr(value))
        elif kind is codes.RANGE:
            named += [chr(value[0]), chr(value[1])]
        elif kind is codes.CATEGORY:
            named.append(
                {"CATEGORY_SPACE": " ", "CATEGORY_DIGIT": "7", "CATEGORY_WORD": "a"}.get(str(value), "-")
            )
    if items[0][0] is codes.NEGATE:
        return next(character for character in "a 7-" if character not in named), named[:6]
    return named[0], named[:6]


def examples(tree, branch: int = 0) -> tuple[str, set[str], set[int]]:
    """(a text that matches, or nearly, with the branches of that number; characters that the pattern names;
    places in the text where a repetition begins or ends)."""
    text, alphabet, places = "", set(), {0}
    for kind, value in tree:
        parts = []
        if kind is codes.LITERAL:
            text, alphabet = text + chr(value), alphabet | {chr(value)}
        elif kind is codes.IN:
            character, named = of_set(value)
            text, alphabet = text + character, alphabet | {character, *named}
        elif kind in (codes.ANY, codes.NOT_LITERAL):
            text += "b"
        elif kind is codes.BRANCH:
            parts = [value[1][branch % len(value[1])]]
        elif kind is codes.SUBPATTERN:
            parts = [value[-1]]
        elif kind in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            parts = [value[2]] * min(max(value[0], 1), 20)
            places.add(len(text))
        for part in parts:
            more, named, inner = examples(part, branch)
            places |= {len(text) + place for place in inner}
            text, alphabet = text + more, alphabet | named
        if kind in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            places.add(len(text))
    return text, alphabet, places


def hostile(pattern: re.Pattern) -> list:
    """Functions of a length that make texts on which backtracking has much to look back on; none for a
    pattern that repeats nothing, which is linear.
    """
    tree = parser.parse(pattern.pattern, pattern.flags)
    if "REPEAT" not in repr(tree):
        return []
    found = [examples(tree, branch) for branch in range(3)]
    alphabet = sorted({" ", "a"}.union(*(named for _, named, _ in found)), key=str.isalnum)[:8]
    prefixes = {sample[:end] for sample, _, places in found for end in (*places, len(sample))}

    def run(start, unit, end):
        return lambda length: start + unit * (length // len(unit)) + end

    units = [prefix + more for prefix, more in product(prefixes, ["", *alphabet])]
    units += ["".join(some) for count in (2, 3) for some in product(alphabet[:6], repeat=count)]
    made = [run(prefix, character, end) for prefix, character, end in product(prefixes, alphabet, ("", "\0"))]
    return made + [run("", unit, "\0") for unit in sorted(set(filter(None, units)))]


def seconds(pattern: re.Pattern, method: str, text: str) -> float:
    read = text.encode() if isinstance(pattern.pattern, bytes) else text
    start = time.process_time()
    found = getattr(pattern, method)(read)
    if method == "finditer":
        for _ in found:
            pass
    return time.process_time() - start


def slow(pattern: re.Pattern, how: set[str]) -> tuple[str, str] | None:
    """A method and the beginning of a text on which it takes too long; None for a pattern that is linear."""
    for text_of, method in product(hostile(pattern), sorted(how)):
        text = text_of(SHORT)
        if (short := seconds(pattern, method, text)) <= SUSPICIOUS:
            continue
        short = min(short, seconds(pattern, method, text))  # a pause of the machine is no slowness
        if short > SUSPICIOUS and seconds(pattern, method, text_of(MIDDLE)) > GROWN * short:
            if seconds(pattern, method, text_of(LONG)) > SECONDS:
                return method, text[:40]
    return None


def test_every_pattern_of_the_package_is_linear():
    found, used = patterns(), methods()
    assert len(found) > 45 and "spr_plugin.data.conversations.REC_QUESTION" in found
    how: dict[re.Pattern, set[str]] = {}  # one that several modules import is tried once
    for name, pattern in found.items():
        how.setdefault(pattern, set()).update(used.get(name.rpartition(".")[2].partition("[")[0]) or ALL)
    late = {pattern: bad for pattern, methods in how.items() if (bad := slow(pattern, methods))}
    assert not late


ONCE = {
    "an object in text": (r'\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*\}', 0, "finditer"),
    "the phrase of a question": (r"describes:\s*(.+?)\s*$", re.DOTALL, "finditer"),
    "what is denied": (r"\s+no[^,.]*[,.]", 0, "finditer"),
    "a phrase of Flickr30k": (r"\[/EN#(\d+)/\S+ ([^\]]+)\]", 0, "finditer"),
    "what stands between boxes": (r"\s*(?:,?\s*\band\b|[,;&])?\s*", 0, "fullmatch"),
    "an answer's letter": (r"<answer>\s*\(?([A-Za-z])(?:\)[^<]*)?\s*</answer>", 0, "finditer"),
    "a file of samples": (r"(?P<time>\w+?)_samples_(?P<task>.+)\.jsonl", 0, "fullmatch"),
}


@pytest.mark.parametrize("what", ONCE)
def test_a_pattern_that_is_not_is_found(what, monkeypatch):
    """Each was in the package; on fewer characters, since each took seconds."""
    monkeypatch.setitem(globals(), "MIDDLE", 5000)
    monkeypatch.setitem(globals(), "LONG", 8000)
    monkeypatch.setitem(globals(), "SECONDS", 0.004)
    pattern, flags, method = ONCE[what]
    assert slow(re.compile(pattern, flags), {method})


def test_no_pattern_is_made_where_the_test_above_cannot_see_it():
    calls = {}
    for path in SOURCES:
        for function in (
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef)
        ):
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                made = (
                    isinstance(call.func, ast.Attribute)
                    and isinstance(call.func.value, ast.Name)
                    and call.func.value.id == "re"
                )
                if made and call.func.attr != "escape":
                    calls.setdefault(str(path.relative_to(ROOT)), set()).add(function.name)
    assert calls == MADE


def test_patterns_of_words_are_linear():
    assert not slow(_pattern(frozenset({"secret-key", "aaaaaaaaab"})), {"finditer"})
    assert not slow(qwen_vl()._tags, {"finditer"})


# --- the functions around them ----------------------------------------------------------------------------


def taken(function, *arguments) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


UNITS = [
    "{", '{"', '{"\\"', '{"a', "\\", '"', '{"a":', '{"bbox_2d": [', '{"bbox_2d": [1, 2, 3, 4]}', "[", "[1,", "(", "<box>", "<ref>a",  # noqa: E501
    "<box>(1,2)", "a ", " ", "] and ", "\n", ", ", "1", "1.", ".", "-", "[/EN#1/a ", "describes: ",
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_read_in_time(family):
    form = box_format(family)
    for unit in UNITS:
        text = unit * (LONG // len(unit))
        assert taken(form.parse, text, 640, 480) < READING, unit


@pytest.mark.parametrize("family", FAMILIES)
def test_what_opens_and_never_closes_is_repaired_in_time(family):
    form, none = box_format(family), np.zeros((0, 4))
    for unit in ("[,", "[[,", "[1,", "("):
        text = unit * (LONG // len(unit))
        assert taken(refine, text, none, form, 640, 480) < READING, unit


def test_names_of_pictures_are_tried_in_time(tmp_path):
    names = ["/" * 20_000, "a/" * 20_000 + "b.png", "./" * 20_000, "a" * 50_000]
    images = [{"id": n, "file_name": name, "width": 9, "height": 9} for n, name in enumerate(names)]
    content = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    skipped = Counter()
    assert taken(lambda: list(CocoImages(str(tmp_path / "coco.json"), str(tmp_path), skipped))) < SECONDS
    assert sum(skipped.values()) == len(names)


PICKLES = {
    "a memo of 32 GB": b"\x80\x02]r\xff\xff\xff\xff.",
    "and of 16 GB": b"\x80\x02]r\xff\xff\xff\x7f.",
    "a string of 4 GB": b"\x80\x02X\xff\xff\xff\xff.",
    "bytes of 16 EB": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "a frame of 16 EB": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f.",
    "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a number of many digits": b"\x80\x02I" + b"9" * LONG + b"\n.",
    "deep lists": b"\x80\x02" + b"]" * LONG + b"a" * (LONG - 1) + b".",
}


@pytest.mark.parametrize("what", PICKLES)
def test_a_pickle_takes_no_more_than_its_file(tmp_path, what):
    (tmp_path / "refs(unc).p").write_bytes(PICKLES[what])

    def load():
        try:
            load_plain(tmp_path / "refs(unc).p")
        except pickle.UnpicklingError:
            pass

    assert taken(load) < SECONDS


def test_secrets_are_looked_for_in_time():
    for unit in ("://", "a://", "://a:b", "secret-", "@"):
        assert taken(redacted, unit * (LONG // len(unit)), frozenset({"secret-key"})) < SECONDS


# --- what they match is what they matched -----------------------------------------------------------------

ENTRY = re.compile(r'\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*\}', re.DOTALL)
OPEN_ENTRY = re.compile(r'\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*(?:"(?:[^"\\]|\\.)*\\?)?\Z', re.DOTALL)


@settings(max_examples=400)
@given(st.text(st.sampled_from('{}"\\ab,\n'), max_size=24))
def test_entries_are_those_of_the_pattern_tried_everywhere(text):
    spans = [match.span() for match in ENTRY.finditer(text)]
    start = text.find("{", spans[-1][1] if spans else 0)
    while start >= 0 and not OPEN_ENTRY.match(text, start):
        start = text.find("{", start + 1)
    assert entries_in(text) == (spans, start)


OLD = {
    "data.conversations.REC_QUESTION": (
        r"describes:\s*(.+?)\s*$",
        re.DOTALL,
        ["describes:", " ", "a", ".", "\n", "describe"],
    ),
    "formats.parsed._BETWEEN_BOXES": (
        r"\s*(?:,?\s*\band\b|[,;&])?\s*",
        0,
        ["and", " ", ",", ";", "&", "a", "]"],
    ),
    "formats.parsed._BEFORE_LAST_BOX": (
        r"(?<=[\]>])\s*(?:,?\s*\band|[,;&])\s*$",
        0,
        ["and", " ", ",", "]", ">", "a", "\n"],
    ),
    "eval_tasks.saved_results.SAMPLES": (
        r"(?P<time>\w+?)_samples_(?P<task>.+)\.jsonl",
        0,
        ["1", "_samples_", "-", ".jsonl", "a", "."],
    ),
    "data.conversations.INSTRUCTION": (
        r"\s*\n.*|(?:^|\s+)(?:Please|Answer|Respond|Reply|Output|Provide|Return)\s.*"
        r"|(?<=[.?!,;:])\s+(?:Be|Format|Give|Just|Keep|Only|Report|Use|Write)\s.*",
        re.DOTALL,
        ["Please", "Use", " ", "  ", "\n", ".", "a"],
    ),
    "eval_tasks.release_flickr30k.PHRASE": (
        r"\[/EN#(\d+)/\S+ ([^\]]+)\]",
        0,
        ["[/EN#1/people ", "[/EN#23/other ", "a man", "]", " ", "."],
    ),
}


@pytest.mark.parametrize("name", OLD)
@given(data=st.data())
def test_a_pattern_matches_what_it_matched(name, data):
    pattern, flags, words = OLD[name]
    module, _, variable = name.rpartition(".")
    new = getattr(importlib.import_module(f"spr_plugin.{module}"), variable)
    text = "".join(data.draw(st.lists(st.sampled_from(words), max_size=8)))
    if "PHRASE" in name and not all("]" in part for part in text.split("[")[1:-1]):
        return  # brackets in brackets, which Flickr30k has none of
    for how in ("search", "fullmatch") if "SAMPLES" not in name else ("fullmatch",):
        was, now = (getattr(each, how)(text) for each in (re.compile(pattern, flags), new))
        if "SAMPLES" in name and text.startswith("_samples_"):
            continue  # a file without a time, which lmms-eval writes none
        if "REC_QUESTION" in name:
            was, now = ((found[1].strip() if found else "") for found in (was, now))
            assert was == now or how == "fullmatch"
        else:
            assert (was and (was.span(), was.groups())) == (now and (now.span(), now.groups()))


@given(st.text(st.sampled_from(" no,.ab\n"), max_size=20))
def test_what_is_denied_is_deleted_as_ferret_deletes_it(text):
    pytest.importorskip("datasets")
    from spr_plugin.eval_tasks import classification

    doc = {"id": "1", "image_id": "1", "name": "a", "synonyms": [], "negative": "b"}
    found = classification.process_results(doc, [text])["accuracy"]["score"]
    assert found == float("a" in re.sub(r"\s+no[^,.]*[,.]", "", text))


def test_a_question_of_spaces_is_mined_in_time(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    talk = [
        {
            "from": "human",
            "value": "Give the box this sentence describes:" + " " * LONG + "cat" + " " * LONG + "x",
        },
        {"from": "gpt", "value": "[0.1, 0.1, 0.5, 0.9]"},
    ]
    (tmp_path / "data.json").write_text(json.dumps([{"image": "a.png", "conversations": talk}]))
    form = box_format("llava", "square")
    assert (
        taken(lambda: list(mine_conversations(str(tmp_path / "data.json"), str(tmp_path), form, Counter())))
        < SECONDS
    )
    assert REC_QUESTION.search("it describes:   a cat. \n")[1] == "a cat."
