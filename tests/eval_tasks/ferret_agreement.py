"""Made-up answers, and what Ferret's own evaluators say of each.

    python tests/eval_tasks/ferret_agreement.py DIR     # a checkout of apple/ml-ferret

writes ferret_verdicts.jsonl anew.

A line is one of

    ["expression", width, height, [x1, y1, x2, y2], answer, "11100"]    a digit for each threshold
    ["phrases", width, height, [[phrase, [[x1, y1, x2, y2], …]], …], answer, "101"]     a digit a phrase
    ["class", name, [synonym, …], answer, "1"]

The answers are ours; Ferret's files are run where they lie, one answer at a time, and nothing of them is kept
but the digits.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import random
import runpy
import sys
import tempfile
import types
from pathlib import Path

FILE = Path(__file__).with_name("ferret_verdicts.jsonl")
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
COUNTS = {"expression": 800, "phrases": 600, "class": 600}


def rows() -> list[list]:
    """The lines of the file, whose last part is the verdict."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


# --- answers


def made_up() -> list[list]:
    """The lines without verdicts."""
    makers = {"expression": expression, "phrases": phrases, "class": classes}
    rngs = {kind: random.Random(f"ferret {kind}") for kind in makers}
    return [[kind, *makers[kind](rngs[kind])] for kind, count in COUNTS.items() for _ in range(count)]


def corners(rng, width, height):
    x, y = (sorted(rng.sample(range(side + 1), 2)) for side in (width, height))
    return [x[0], y[0], x[1], y[1]]


def said(rng, box, width, height, spread):
    """A box near `box` as Ferret writes one."""
    sides = [box[2] - box[0], box[3] - box[1]] * 2
    near = [value + rng.uniform(-spread, spread) * side for value, side in zip(box, sides)]
    steps = [min(max(int(1000 * value / size), 0), 999) for value, size in zip(near, (width, height) * 2)]
    return f"[{', '.join(map(str, steps))}]"


def expression(rng):
    width, height = rng.randint(120, 640), rng.randint(120, 640)
    truth = corners(rng, width, height)
    if rng.random() < 0.5:
        truth = [round(value + rng.random() / 2, 2) for value in truth]
    spread = rng.choice([0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
    one, other = said(rng, truth, width, height, spread), said(rng, truth, width, height, 0.5)
    # At a threshold.
    exact = [truth[0], truth[1], truth[0] + (truth[2] - truth[0]) * rng.choice(THRESHOLDS), truth[3]]
    ways = [one, f"It is at {one}.", f"the cat {one}.", f"a cat {other} and a dog {one}.", f"{one}, {other}", f"[{one}, {other}]",  # noqa: E501
            f"[{one}]", one[:-1], one[1:], one.replace(",", ""), one.replace(", ", ",,"), one.replace(", ", ","), one.replace("[", "("),  # noqa: E501
            one.replace(", ", "; "), f"a cat {one}, a dog [0.1, 0.2, 0.3, 0.4].", f"a [note] {one}", f"{one} [1, 2", f"{one} see [5, 6, 7, 8, 9]",  # noqa: E501
            f"{one}]", f"[9, 8, 1, 2] {one}", f"[-5, -5, 400, 400] {one}", f"[1200, 0, 1900, 900] {other}", "", "no cat", "[]", "It is not there.",  # noqa: E501
            one.replace(", ", ", +"), "[ 10 ,20,\n30, 999 ]", one.replace("[", "[ 0"), f"{one}! {other}?", f"{{{one}}}",  # noqa: E501
            said(rng, exact, width, height, 0.0), said(rng, exact, width, height, 0.0), one, one, one]  # fmt: skip  # noqa: E501
    return width, height, truth, rng.choice(ways)


PHRASES = [
    "A man",
    "two dogs",
    "a red shirt",
    "the woman's hat",
    "People",
    "a man",
    "t-shirts",
    'a "stop" sign',
    "a black-and-white cat",
    "his bike",
]


def phrases(rng):
    width, height = rng.randint(120, 640), rng.randint(120, 640)
    asked = [
        [rng.choice(PHRASES), [corners(rng, width, height) for _ in range(rng.choice([1, 1, 1, 2, 3]))]]
        for _ in range(rng.randint(1, 4))
    ]
    parts = []
    for phrase, boxes in asked:
        around = [
            *(min(box[k] for box in boxes) for k in (0, 1)),
            *(max(box[k] for box in boxes) for k in (2, 3)),
        ]
        written = [said(rng, around, width, height, rng.choice([0.0, 0.05, 0.3]))]
        if rng.random() < 0.2:
            written = [said(rng, box, width, height, 0.05) for box in boxes]
        words = rng.choice(
            [
                phrase,
                phrase,
                phrase.lower(),
                phrase.upper(),
                f"{phrase} ",
                phrase.replace("'", ""),
                "There is " + phrase,
                "some " + phrase,
            ]
        )
        parts.append(f"{words} {rng.choice([' ', ', ', ' and ', '']).join(written)}")
    answer = rng.choice([", ", ", ", ". ", " and ", "; ", " ", "! ", "\n"]).join(parts) + rng.choice(
        [".", ".", " ", ""]
    )
    ways = [answer] * 9 + [answer[: 2 * len(answer) // 3], answer + " [note]", answer.replace("]", "", 1), "", "There is nothing.",  # noqa: E501
            answer.replace(" [", "["), "I see: " + answer]  # fmt: skip
    return width, height, asked, rng.choice(ways)


NAMES = {"bow_(weapon)": ["bow_(weapon)"], "bow_(decorative_ribbons)": ["bow_(decorative_ribbons)", "hair ribbon"], "notebook": ["notebook"],  # noqa: E501
         "truck": ["truck"], "nose_ring": ["nose_ring"], "knot": ["knot"], "cat": ["cat", "kitty"], "tea_cup": ["teacup", "tea_cup"],  # noqa: E501
         "pop_(soda)": ["pop_(soda)", "soda_(pop)", "soft_drink"], "dog": ["dog"], "northern_cardinal": []}  # fmt: skip  # noqa: E501


def classes(rng):
    name, other = rng.sample(sorted(NAMES), 2)
    plain, wrong = name.replace("_", " "), other.replace("_", " ")
    short = name.partition("_(")[0].replace("_", " ")
    inner = name.partition("(")[2].rstrip(")").replace("_", " ") or plain
    ways = [plain, f"a {plain}.", f"The object is a {short}.", f"It is a {inner}.", wrong, f"{wrong}.", f"It is not a {wrong}, it is a {plain}.",  # noqa: E501
            f"It is not a {plain}.", f"not a {wrong} but a {plain}", f"no {plain}", f" no {plain}, but a {wrong}.", f"A {wrong} no {inner} not {short}, {plain}.",  # noqa: E501
            f"A no b not c, {plain}.", plain.upper(), plain.capitalize(), f"{wrong} or {plain}", f"a {plain}s", f"a notebook. {plain}",  # noqa: E501
            f"nose ring, {plain}.", f"I do not know. {plain}", f"It is  \n not {wrong}. {plain}", "", f"nothing {plain}", f"\tno\t{wrong}.{plain}",  # noqa: E501
            f"{plain} not, no. {short}", f"another {short}, not {plain}", name]  # fmt: skip
    return name, NAMES[name], rng.choice(ways)


# --- verdicts of Ferret's files


class Ferret:
    """Ferret's evaluators in a checkout."""

    def __init__(self, checkout: Path, work: Path):
        self.folder, self.work = checkout / "ferret/eval", work
        sys.path.insert(0, str(checkout))
        for name in (
            "prettytable",
            "matplotlib",
            "matplotlib.pyplot",
            "matplotlib.patches",
        ):  # they print and draw
            _stand_in(name, PrettyTable=None)
        # MDETR's, not in Ferret's repository.
        _stand_in("misc.refcoco.box_ops", generalized_box_iou=None, box_iou=box_iou)
        self.refexp, self.flickr = self.module("eval_refexp"), self.module("eval_flickr_entities")

    def module(self, name: str):
        spec = importlib.util.spec_from_file_location(f"ferret_{name}", self.folder / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def verdict(self, kind: str, *row) -> str | None:
        """The digits; None where Ferret's file stops with an error."""
        kinds = {"expression": self.expression, "phrases": self.phrases, "class": self.classes}
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
            try:
                return kinds[kind](*row, printed)
            except (IndexError, AssertionError):  # foreign code's, on an answer that it does not expect
                return None

    def file(self, name: str, content) -> str:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    def expression(self, width, height, box, answer, printed) -> str:
        image = {"id": 1, "width": width, "height": height, "caption": "the cat", "dataset_name": "refcoco"}
        annotation = {"image_id": 1, "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
        truth, said = (
            self.file("truth.json", {"images": [image], "annotations": [annotation]}),
            self.file("said.jsonl", {"image_id": 1, "text": answer}),
        )
        hits = [
            self.refexp.RefExpEvaluatorFromJsonl(truth, k=(1,), thresh_iou=t).summarize(said)["refcoco"][0]
            for t in THRESHOLDS
        ]
        return "".join(str(int(hit)) for hit in hits)

    def phrases(self, width, height, asked, answer, printed) -> str:
        caption, sentence, spans, objects = "", "", [], ""
        for number, (phrase, boxes) in enumerate(asked):
            spans.append([[len(caption), len(caption) + len(phrase)]])
            caption, sentence = (
                f"{caption}{phrase} and ",
                f"{sentence}[/EN#{number + 1}/p{number} {phrase}] and ",
            )
            for box in boxes:
                sides = "".join(
                    f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box)
                )
                objects += f"<object><name>{number + 1}</name><bndbox>{sides}</bndbox></object>"
        self.file("flickr/test.txt", "1")
        self.file("flickr/Sentences/1.txt", sentence)
        self.file(
            "flickr/Annotations/1.xml",
            f"<a><size><width>{width}</width><height>{height}</height><depth>3</depth></size>{objects}</a>",
        )
        image = {"file_name": "1.jpg", "caption": caption, "height": str(height), "width": str(width), "tokens_positive_eval": spans,  # noqa: E501
                 "original_img_id": 1, "sentence_id": 0}  # fmt: skip
        evaluator = self.flickr.Flickr30kEntitiesRecallEvaluatorFromJsonl(
            str(self.work / "flickr"), subset="test", topk=(1,), merge_boxes=True
        )
        report = evaluator.evaluate(
            self.file("truth.json", {"images": [image]}), self.file("said.jsonl", {"text": answer})
        )[1]
        # The one whose type is counted.
        first = [[phrase for phrase, _ in asked].index(phrase) for phrase, _ in asked]
        return "".join(str(int(report[f"p{number}"])) for number in first)

    def classes(self, name, synonyms, answer, printed) -> str:
        given, sys.argv = (
            sys.argv,
            [
                "eval_lvis.py",
                "--pred_file",
                self.file("said.jsonl", {"name": name, "synonyms": synonyms, "text": answer}),
            ],
        )
        try:
            runpy.run_path(str(self.folder / "eval_lvis.py"), run_name="__main__")
        finally:
            sys.argv = given
        return str(int("Acc:100" in printed.getvalue()))


def box_iou(a, b):
    """IoU of every box of `a` with every one of `b`, xyxy, and the areas of their unions."""
    import torch

    width, height = (
        (torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2]))
        .clamp(min=0)
        .unbind(-1)
    )
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1] - width * height
    return width * height / union, union


def _stand_in(name: str, **members) -> None:
    """A module that Ferret's files import and this machine need not have."""
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
        return
    for depth in range(1, name.count(".") + 2):
        part = ".".join(name.split(".")[:depth])
        module = sys.modules.setdefault(part, types.ModuleType(part))
        module.__path__ = []
    module.__dict__.update(members)


def main(checkout: str) -> None:
    with tempfile.TemporaryDirectory() as work:
        ferret = Ferret(Path(checkout).resolve(), Path(work))
        judged = [[*row, ferret.verdict(*row)] for row in made_up()]
    FILE.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in judged), encoding="utf-8")
    print(
        f"{FILE}: {len(judged)} answers, {sum(row[-1] is None for row in judged)} of which stop Ferret's"
        " files"
    )


if __name__ == "__main__":
    main(sys.argv[1])
