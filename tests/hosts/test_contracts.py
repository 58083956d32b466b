"""What a plugin gives is tried before the host trains, under a real trainer.

A wrong shape is one line with plugin, hook and what was wrong.
"""

import json
from pathlib import Path

import pytest
import transformers
from PIL import Image

from spr_plugin import follow
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.plugins import manager
from spr_plugin.runs.log import Log

from . import make_vlm

IMPORTS = """
import dataclasses
import numpy as np
import torch
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.boxes import Box, Space
from spr_plugin.formats import BracketFormat, FAMILIES
from spr_plugin.formats.base import BoxFormat
from spr_plugin.formats.parsed import Parsed
from spr_plugin.hooks.transformers_vlm import TransformersHost, find_processor
from spr_plugin.hookspecs import hookimpl
from spr_plugin.training.host import Host
"""

SCORER = """
class Lab:
    def score(self, picture, descriptions):
        return [self.one(each) for each in descriptions]

    def one(self, each):
        return {"letters": len(each.text)}, len(each.predicted)

    {{change}}

@hookimpl
def spr_scorer(config, device):
    return Lab()
"""

MODELS = """
class Lab:
    def score(self, picture, asked):
        return [(0.3, 0.2) for _ in asked]

    def detect(self, picture, phrases):
        return [(phrase, Box(1, 2, 30, 40, Space.pixels(*picture.size)), 0.5) for phrase in phrases]

    {{change}}

@hookimpl
def spr_similarity(config, device):
    return Lab()

@hookimpl
def spr_detector(config, device):
    return Lab()
"""

FORMAT = """
@dataclasses.dataclass(frozen=True)
class Brackets(BracketFormat):
    family: str = "lab"
    space_name: str = "normalized"

    {{change}}

@hookimpl
def spr_box_format(family, aspect):
    return Brackets() if family == "lab" else None
"""

HOST = """
class Script(TransformersHost):
    {{change}}

@hookimpl
def spr_host(trainer, namespace, config):
    return Script(trainer, find_processor(trainer, namespace), config)
"""

ANNOTATIONS = """
BOXES = [(2, 2, 12, 10), (30, 3, 42, 13), (50, 28, 64, 40), (4, 28, 16, 40), (70, 40, 97, 60)]

def image(number, folder, **changes):
    space = Space.pixels(96, 64)
    boxes = [Box(*map(float, box), space) for box in BOXES]  # the last reaches a little beyond the picture
    found = tuple(Annotation(place, "red circle", box) for place, box in enumerate(boxes))
    whole = AnnotatedImage(str(number), f"{folder}/{number}.png", 96, 64, found)
    return dataclasses.replace(whole, **changes)

def one(box=(2.0, 2.0, 12.0, 10.0), space=Space.pixels(96, 64), id=0, label="cup"):
    return Annotation(id, label, Box(*box, space))

@hookimpl
def spr_annotations(source, image_folder, skipped):
    folder = image_folder
    {{change}}
"""


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    model, processor = make_vlm.make("internvl")
    arguments = transformers.TrainingArguments(
        str(tmp_path_factory.mktemp("out")), use_cpu=True, report_to=[], remove_unused_columns=False
    )
    return transformers.Trainer(model.eval(), arguments, train_dataset=[0], processing_class=processor)


@pytest.fixture
def start(trainer, tmp_path):
    """``start(template, change, flags)``: the stage with this plugin, until the host's training begins."""
    for number in range(6):
        Image.new("RGB", (96, 64), (40 * number, 90, 90)).save(tmp_path / f"{number}.png")
    rows = [
        {"id": 4 * n + i, "image_id": n, "category_id": 1, "bbox": [20 * i, 5, 15, 20]}
        for n in range(6)
        for i in range(4)
    ]
    images = [{"id": n, "file_name": f"{n}.png", "width": 96, "height": 64} for n in range(6)]
    coco = tmp_path / "coco.json"
    coco.write_text(
        json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "circle"}]})
    )
    file = tmp_path / "lab.py"

    def train():
        raise AssertionError("the host's training begins")

    def go(template, change, **flags):
        file.write_text(IMPORTS + template.replace("{{change}}", change.replace("\n", "\n    ")))
        trainer.args.output_dir = str(tmp_path / "out")
        given = dict(
            spr_plugin=[str(file)],
            spr_annotations=str(coco),
            spr_image_folder=str(tmp_path),
            spr_box_format="llava",
            spr_more_than=2,
        )
        follow.train(trainer, SPRConfig(spr=True, **given | flags), {}, train)

    yield go
    if manager().has_plugin(str(file)):
        manager().unregister(name=str(file))


ANY = {"spr_scorer": "lab"}
OURS = {"spr_clip": "lab", "spr_detector": "lab"}
SOURCE = {**ANY, "spr_annotations": "lab:"}
# without a scorer of the plugin's own, the one of hosts' tests would be asked for CLIP
WITH_SCORER = SCORER.replace("{{change}}", "")


@pytest.mark.parametrize(
    "template, flags",
    [
        (SCORER, ANY),
        (MODELS, OURS),
        (FORMAT + WITH_SCORER, {**ANY, "spr_box_format": "lab"}),
        (HOST + WITH_SCORER, ANY),
    ],
    ids=["scorer", "similarity and detector", "format", "host"],
)
def test_right_shapes_reach_the_training(start, template, flags):
    """The templates, unchanged."""
    with pytest.raises(AssertionError, match="training begins"):
        start(template, "pass", **flags)


LISTS = "return [image(n, folder) for n in range(6)]"
GENERATOR = "return (image(n, folder) for n in range(6))"
BY_NUMBER = """
class Lab:
    ids = list("012345")
    def image(self, number):
        return image(number, folder) if number % 2 else None
return Lab()"""


@pytest.mark.parametrize("change", [LISTS, GENERATOR, BY_NUMBER], ids=["list", "generator", "by number"])
def test_annotations_as_a_list_a_generator_and_by_number(start, change):
    with pytest.raises(AssertionError, match="training begins"):
        start(ANNOTATIONS + WITH_SCORER, change, **SOURCE)


def numbered(cases):
    """Short names for cases of code; the last words say what is expected."""
    return [f"{index} {case[-1]}" for index, case in enumerate(cases)]


def method(signature, result):
    return f"def {signature}:\n    {result}"


SCORE, ONE = "score(self, picture, descriptions)", "one(self, each)"
SCORERS = [
    # (what is otherwise, words of the line)
    (method("score(self, queries, picture, texts)", "return []"), "Lab.score raised TypeError: .*score"),
    (
        method(SCORE, "return [self.one(each) for each in descriptions][1:]"),
        "Lab.score gives 7 .*8 descriptions",
    ),
    (method(SCORE, "return None"), "Lab.score gives None"),
    (method(SCORE, "return 0.5"), "Lab.score gives float"),
    (method(ONE, "return 0.5"), "Lab.score .*float"),
    (method(ONE, "return {'a': 0.5, 'total': 0.5}"), "Lab.score .*dict"),
    (method(ONE, "return {}, 1.0, 'no reason'"), "Lab.score gives 3 .*terms, score"),
    (method(ONE, "return {}, float('nan')"), "Lab.score .*score nan"),
    (method(ONE, "return {}, torch.zeros(2)"), "Lab.score .*score"),
    (method(ONE, "return {'a': None}, 1.0"), "Lab.score gives the term a None"),
    (method(ONE, "return {1: 0.5}, 1.0"), "Lab.score .*name of a term"),
    (method(ONE, "return [0.5], 1.0"), "Lab.score .*terms"),
    (
        method(ONE, "return {'n': 1 / len(each.predicted)}, 1.0"),
        "Lab.score raised ZeroDivisionError: .*lab.py, line",
    ),
    ("score = None", "gives Lab, which has no method score"),
]


@pytest.mark.parametrize("change, words", SCORERS, ids=numbered(SCORERS))
def test_a_scorer_of_the_wrong_shape(start, change, words):
    assert_refused(start, SCORER, change, "spr_scorer", words, **ANY)


ASKED, PHRASES = "score(self, picture, asked)", "detect(self, picture, phrases)"
BOX = "Box(1, 2, 30, 40, Space.pixels(*picture.size))"
SIMILARITIES = [
    (
        method("score(self, picture, region, texts)", "return [(0.1, 0.2) for _ in texts]"),
        "Lab.score raised TypeError",
    ),
    (method(ASKED, "return None"), "Lab.score gives None"),
    (method(ASKED, "return [0.5 for _ in asked]"), "Lab.score .*float"),
    (method(ASKED, "return [(0.5, 0.5)]"), "Lab.score gives 1 "),
    (method(ASKED, "return torch.zeros(2, len(asked))"), "Lab.score gives 2 "),
    (method(ASKED, "return [(0.5, float('inf')) for _ in asked]"), "Lab.score .*inf"),
    (method(ASKED, "return [(0.5, 0.5, 0.5) for _ in asked]"), "Lab.score .*3"),
    (
        method(ASKED, "return [(len(t.split()) < 60 or 1 / 0, 0.5) for _, t in asked]"),
        "Lab.score raised ZeroDivisionError",
    ),
    (method("likeness(self, first, second)", "return [0.5 for _ in first]"), "Lab.likeness gives float"),
    (method("likeness(self, first, second)", "return [[0.5]]"), "Lab.likeness gives 1 rows for 2 texts"),
    (
        method("likeness(self, first, second)", "return torch.full((len(first), len(second)), torch.nan)"),
        "Lab.likeness gives as likeness .*nan",
    ),
]
DETECTORS = [
    (method("detect(self, picture)", "return []"), "Lab.detect raised TypeError"),
    (method(PHRASES, "return None"), "Lab.detect gives None"),
    (
        method(PHRASES, "return [(p, 1.0, 2.0, 30.0, 40.0, 0.9) for p in phrases]"),
        "Lab.detect .*phrase, Box, score",
    ),
    (
        method(PHRASES, "return [(p, (1.0, 2.0, 30.0, 40.0), 0.9) for p in phrases]"),
        "Lab.detect .*tuple.*Box",
    ),
    (
        method(
            PHRASES, "return [(p, Box(0.1, 0.2, 0.3, 0.4, Space.normalized(9, 9)), 0.9) for p in phrases]"
        ),
        "Lab.detect .*9 x 9",
    ),
    (method(PHRASES, f"return [('a thing', {BOX}, 0.9)]"), "Lab.detect .*a thing"),
    (method(PHRASES, f"return [(p, {BOX}, None) for p in phrases]"), "Lab.detect .*None"),
    (method(PHRASES, f"return [(p, {BOX}, float('nan')) for p in phrases]"), "Lab.detect .*nan"),
    ("detect = None", "gives Lab, which has no method detect"),
]


MODEL_CASES = [
    *(("spr_similarity", *case) for case in SIMILARITIES),
    *(("spr_detector", *case) for case in DETECTORS),
]


@pytest.mark.parametrize("hook, change, words", MODEL_CASES, ids=numbered(MODEL_CASES))
def test_a_similarity_model_or_detector_of_the_wrong_shape(start, hook, change, words):
    assert_refused(start, MODELS, change, hook, words, **OURS)


FORMATS = [
    (method("parse(self, text, width, height)", "return []"), "Brackets.parse gives list, no Parsed"),
    (method("parse(self, text)", "return Parsed()"), "Brackets.parse raised TypeError"),
    (method("parse(self, text, width, height)", "return Parsed()"), "Brackets.render .*0 boxes"),
    (
        method("parse(self, text, width, height)", "return super().parse(text, height, width)"),
        "Brackets.render .*another box",
    ),
    (
        method("parse(self, text, width, height)", "return super().parse(text + text[0], width, height)"),
        "Brackets.parse raised IndexError",
    ),
    (method("write_group(self, boxes)", "return list(boxes)"), "Brackets.write gives list"),
    (method("write_group(self, boxes)", "return '[0.1, 0.1, 0.2, 0.2]'"), "Brackets.render .*another box"),
    (method("space(self, width, height)", "return 'normalized'"), "Brackets.space gives str"),
    (
        method("render(self, mentions)", "return [phrase for phrase, _ in mentions]"),
        "Brackets.render gives list",
    ),
    (
        method("render(self, mentions)", "return ', '.join(phrase for phrase, _ in mentions)"),
        "Brackets.render",
    ),
    (
        method("rewrite(self, text, parsed, changes)", "return super().rewrite(text, parsed, changes)"),
        "Brackets.rewrite raised TypeError",
    ),
    (method("rewrite(self, text, parsed, changes, drop_failures=False)", "return text"), "Brackets.rewrite"),
    (method("words(self, text, parsed)", "return text"), "Brackets.words"),
    (method("describe(self)", "return 'lab'"), "Brackets.describe gives str"),
    (method("describe(self)", "return {'family': 'lab'}"), "Brackets.describe .*space"),
    (
        method("describe(self)", "return {'family': 'other', 'space': 'normalized', 'aspect': None}"),
        "Brackets.describe .*other",
    ),
]


@pytest.mark.parametrize("change, words", FORMATS, ids=numbered(FORMATS))
def test_a_box_format_of_the_wrong_shape(start, change, words):
    assert_refused(start, FORMAT + WITH_SCORER, change, "spr_box_format", words, **ANY, spr_box_format="lab")


HOSTS = [
    (
        method("questions(self, pictures, prompts)", "return super().question(pictures, prompts[0])"),
        "Script.questions gives",
    ),
    (method("questions(self, pictures)", "return []"), "Script.questions raised TypeError"),
    (
        method(
            "row(self, sources, prompt, answer)",
            "return {**super().row(sources, prompt, answer), 'labels': None}",
        ),
        "Script.row .*labels",
    ),
    (
        method(
            "row(self, sources, prompt, answer)",
            "row = super().row(sources, prompt, answer); return {**row, 'labels': row['labels'][None]}",
        ),
        "Script.row .*labels",
    ),
    (
        method(
            "row(self, sources, prompt, answer)",
            "row = super().row(sources, prompt, answer)\n    row['labels'][:] = -100\n    return row",
        ),
        "Script.row .*-100",
    ),
    (method("batch(self, rows)", "return rows"), "Script.batch gives list"),
    (method("texts(self, answers)", "return 'nothing'"), "Script.texts gives str"),
    (method("fits(self, row)", "return None"), "Script.fits gives None"),
    (method("language_layers(self)", "return ['nowhere.at.all']"), "Script.language_layers .*nowhere.at.all"),
    (method("part_of(self, name)", "return 'decoder'"), "Script.part_of .*decoder"),
    (method("image_encoder(self)", "return self.vlm"), "Script.image_encoder gives"),
    (method("language_model(self)", "return self.vlm.get_decoder()"), "Script.language_model gives"),
    (method("labels_overheard(self)", "return []"), "Script.labels_overheard "),
    ("stop_tokens = ()", "Script.stop_tokens "),
    ("stop_tokens = 7", "Script.stop_tokens gives int"),
    ("box_format = property(lambda self: 'llava', lambda self, value: None)", "Script.box_format"),
]


@pytest.mark.parametrize("change, words", HOSTS, ids=numbered(HOSTS))
def test_a_host_of_the_wrong_shape(start, change, words):
    assert_refused(start, HOST + WITH_SCORER, change, "spr_host", words, **ANY)


HOOKS = [
    ("spr_host", "class Lab(Host): pass\nreturn Lab()", "raised TypeError: .*abstract .*row"),
    ("spr_host", "return config", "SPRConfig, no .*Host"),
    ("spr_host", "return trainer.nothing", "raised AttributeError: .*nothing"),
    ("spr_box_format", "raise KeyError(family)", "raised KeyError: 'llava'"),
    ("spr_box_format", "return 'brackets'", "gives str, which has no method space"),
    ("spr_scorer", "return object()", "gives object, which has no method score"),
    ("spr_scorer", "return 1 / 0", "raised ZeroDivisionError: division by zero .*lab.py, line"),
    ("spr_similarity", "return torch.nn.Linear(1, 1)", "gives Linear, which has no method score"),
    ("spr_annotations", "raise OSError('first\\nsecond')", "raised OSError: first second"),
]
ARGUMENTS = {
    "spr_host": "trainer, namespace, config",
    "spr_box_format": "family",
    "spr_annotations": "source",
}


@pytest.mark.parametrize("hook, body, words", HOOKS, ids=numbered(HOOKS))
def test_a_hook_that_raises_or_gives_something_else(start, hook, body, words):
    template = f"@hookimpl\ndef {hook}({ARGUMENTS.get(hook, 'config')}):\n    {{{{change}}}}\n" + (
        "" if hook == "spr_similarity" else WITH_SCORER * (hook != "spr_scorer")
    )
    assert_refused(
        start, template, body, hook, words, **({"spr_clip": "lab"} if hook == "spr_similarity" else ANY)
    )


PICTURES = [
    ("return 7", "gives int, which has no method __iter__"),
    ("return [f'{folder}/1.png']", "gives str, no AnnotatedImage"),
    ("return [None]", "gives None, no AnnotatedImage"),
    ("return [(1, 2)]", "gives tuple, no AnnotatedImage"),
    ("return (image(n, folder) for n in (1, 1 / 0))", "raised ZeroDivisionError"),
    (
        "from pathlib import Path\nreturn [image(1, folder, path=Path(folder))]",
        "as path of an AnnotatedImage PosixPath, no str",
    ),
    ("return [image(1, folder, width=96.0)]", "as width of an AnnotatedImage float"),
    ("return [image(1, folder, annotations=[(1, 2, 3, 4)])]", "gives tuple, no Annotation"),
    ("return [image(1, folder, annotations=None)]", "as annotations of an AnnotatedImage None"),
    ("return [image(1, folder, annotations=(one(label=3),))]", "as label of an Annotation of 1 int"),
    ("return [image(1, folder, annotations=(one(id=None),))]", "as id of an Annotation of 1 None"),
    (
        "return [image(1, folder, annotations=(one(np.float32([1, 1, 9, 9])),))]",
        "in a box of 1 float32, no int or float",
    ),
    (
        "return [image(1, folder, annotations=(one((0.1, 0.1, 0.9, 0.9), Space.normalized(96, 64)),))]",
        "in normalized",
    ),
    (
        "return [image(1, folder, annotations=(one((1, 1, 9, 9), Space.pixels(64, 96)),))]",
        "of 64 x 96, not in pixels of 96 x 64",
    ),
    (
        "class Lab:\n    ids = ['1']\n    def image(self):\n        return None\nreturn Lab()",
        "Lab.image raised TypeError",
    ),
    ("class Lab:\n    ids = ['1']\nreturn Lab()", "gives Lab, which has no method image"),
    (
        "class Lab:\n    ids = np.arange(3)\n    def image(self, number):\n        return None\nreturn Lab()",
        "Lab.ids gives int64",
    ),
]


@pytest.mark.parametrize("change, words", PICTURES, ids=numbered(PICTURES))
def test_an_annotation_source_of_the_wrong_shape(start, change, words):
    assert_refused(start, ANNOTATIONS + WITH_SCORER, change, "spr_annotations", words, **SOURCE)


BAD_RECORDS = """
nowhere, inverted = (200.0, 2.0, 220.0, 20.0), (12.0, 10.0, 2.0, 2.0)
unknown = (1.0, 1.0, 9.0, float("nan"))
bad = [one(nowhere, id=5), one(inverted, id=6), one(unknown, id=7), one(id=8, label=" "), one(id=0)]
good = [image(number, folder) for number in range(5)]
mixed = image(5, folder, annotations=(*good[0].annotations, *bad))
return [*good, mixed, image(9, folder), image(4, folder, id="x", width=64, height=96, annotations=())]"""


def test_single_bad_records_of_a_plugin_are_left_out_and_counted(start, trainer):
    """As a COCO file's: no picture, another size, a box off the picture or not finite, no label."""
    with pytest.raises(AssertionError, match="training begins"):
        start(ANNOTATIONS + WITH_SCORER, BAD_RECORDS, **SOURCE)
    folder = Path(trainer.args.output_dir) / "spr" / "queries"
    assert len(Log(folder).read()) == 6
    expected = {"missing_image": 1, "size_mismatch": 1, "outside": 3, "no_label": 1, "duplicate_id": 1}
    assert read_json(folder / "counts.json") == expected


def assert_refused(start, template, change, hook, words, **flags):
    with pytest.raises(UserError, match=words) as caught:
        start(template, change, **flags)
    line = str(caught.value)
    assert "lab.py" in line and hook in line and "\n" not in line and len(line) < 500, line
