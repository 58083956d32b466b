"""Pictures with object boxes: COCO-format JSON, or mined from a LLaVA data file's grounded conversations.

Single bad records never stop a run: each is left out and counted under its reason in the caller's `skipped` Counter. What raises
:class:`~spr_plugin.errors.UserError` is a file that is wrong as a whole.

Boxes refer to the pixels as stored in the file. EXIF orientation is not applied, because LLaVA opens pictures without it too.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from spr_plugin.boxes import Box, Space, finite, iou_matrix
from spr_plugin.data.coco_index import CocoIndex
from spr_plugin.data.loading import read_json
from spr_plugin.data.pictures import BadImage, Picture, image_size, open_image  # noqa: F401 (for plugins' sources)
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat
from spr_plugin.hookspecs import hookimpl
from spr_plugin.progress import say

SMALLEST = 1.0  # px; a box with a shorter side is no object that a description could name
PADDING_ROUNDING = 0.02  # boxes of two decimals, drawn a little beyond their picture
PADDING_SEEN, PADDING_SURE = 4000, 20  # number of boxes that are asked; number that decides
PADDING_ERRORS, SQUARE_ERRORS = 0.005, 0.05  # share in the stripes that padded boxes may have; that others exceed
ASKED = 20  # characters of a question that tell how it is asked
COMMON = 0.1  # share of the questions that end in a sentence which belongs to how the file asks
REC_QUESTION = re.compile(r"describes:\s*(\S(?:.*\S)?)", re.DOTALL)
# What asks for a form of the answer and follows the phrase: a line or a sentence of its own, in the imperative.
INSTRUCTION = re.compile(
    r"(?<!\s)\s*\n.*|(?:^|(?<!\s)\s+)(?:Please|Answer|Respond|Reply|Output|Provide|Return)\s.*"
    r"|(?<=[.?!,;:])\s+(?:Be|Format|Give|Just|Keep|Only|Report|Use|Write)\s.*",
    re.DOTALL,
)
TAG = re.compile(r"</?\|?[A-Za-z_][\w ]*\|?/?>")
# Words that name no object: of grammar, and of asking for a box and answering with one.
ARTICLES = frozenset("a an the".split())
NO_NAMES = ARTICLES | frozenset(
    "this that these those it its they them i me my you your we our one single each all any both which what where "
    "who how here there is are was were be been being am can could will would shall should may might must do does "
    "did has have had of in on at to for from by with within as and or not no yes so only just also then than if "
    "per above below following follows given sure ok okay please kindly briefly exactly "
    "answer answers answered reply respond response output return provide give report write say show use mark "
    "find found locate located location position detect detected detection result corresponding requested "
    "described describes description question sentence phrase format coordinate coordinates coords bounding bound "
    "bounded box boxes bbox brackets xyxy json put region regions area object objects image".split()
)
ASKING = re.compile(
    r"\s+(?:(?:please|just|only|kindly)\s+)?(?:answer|reply|respond|output|return|provide|give|report|write)\s+\w",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<=[.?!;:\n])\s+|\n")
CLAUSE_END = re.compile(r"(?<=[.?!;:,\n])\s+|\n|(?<!\s)\s+(?=[(–—-])")
BOX_MARKS = re.compile(r"[][<>{}()\"\\|]")
NAME_END = re.compile(r"_\(|/")
LONGEST_PATH = 4096  # characters; no file system has longer ones
HUMAN, MODEL, OTHERS = {"human", "user"}, {"gpt", "assistant"}, {"system"}
REG_QUESTION = re.compile(r"\bdescri(?:be|ption)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Annotation:
    """One object.

    Attributes:
        id: unique within its picture.
        label: category name or phrase; never empty.
        box: in pixels of the picture, clipped to it.
        coarse: read back from rounded box text (half a step of LLaVA's is 3 px at 640 px), not annotated to the pixel.
    """

    id: int | str
    label: str
    box: Box
    coarse: bool = False


@dataclass(frozen=True)
class AnnotatedImage(Picture):
    """A picture file with its objects."""

    annotations: tuple[Annotation, ...]


# --- COCO-format JSON: COCO, LVIS, Objects365


class CocoImages:
    """Pictures of a COCO file with at least one usable box, in the file's order, or any one by its number.

    Records that name one file are one picture, with the first one's id and the objects of all. Boxes are
    clipped to the picture. With `keep_crowd` groups and ignored objects are objects too. Left out and counted
    in `skipped`, as far as pictures are asked for: annotations as ``crowd``, ``ignored``, ``bad_box``,
    ``not_finite``, ``zero_area``, ``outside``, ``no_label``, ``duplicate_id``, ``duplicate`` (of another
    record's); pictures under `pictures.REASONS`, as ``size_mismatch`` (with the record), ``no_objects``; and of
    the whole file ``unknown_image``, ``bad_image_record``, ``duplicate_image_id``.
    Raises UserError where `file` is not COCO JSON, or one id or one file is named in two ways.

    Attributes:
        ids: of all pictures of the file, usable or not.
    """

    def __init__(self, file: str, image_folder: str, skipped: Counter, keep_crowd: bool = False):
        self._index = CocoIndex(file, file_name_of, skipped)
        self._folder, self._skipped, self._keep_crowd = image_folder, skipped, keep_crowd
        self._labels = {record.get("id"): _category(record.get("name")) for record in self._index.categories if isinstance(record, dict)}
        self._names: dict[str, str] = {}  # path → the name that led there
        self.ids = [str(id) for id in self._index.ids]
        if self._index.again:
            again = f"{self._index.again} image records name a file that an earlier one names"
            say(f"{file}: {again}; their objects are taken together")

    def image(self, number: int) -> AnnotatedImage | None:
        """The picture ``ids[number]``, or None, counted."""
        return self._image(self._index.ids[number])

    def named(self, name: str) -> AnnotatedImage | None:
        """The picture whose records have this ``file_name``, or None, counted. KeyError where none has it."""
        if (id := self._index.named(name)) is None:
            raise KeyError(name)
        return self._image(id)

    def _image(self, id: int | str) -> AnnotatedImage | None:
        records = self._index.images(id)
        path = self._path(_file_name(records[0]))
        size = image_size(path)
        fitting = [record for record in records if (record["width"], record["height"]) == size]
        if len(fitting) < len(records):
            self._skipped[size if isinstance(size, str) else "size_mismatch"] += len(records) - len(fitting)
        if not fitting:
            return None
        found = [self._annotations(record["id"], Space.pixels(*size)) for record in fitting]
        annotations = _joined(found, self._skipped)
        if not annotations:
            self._skipped["no_objects"] += 1
            return None
        return AnnotatedImage(str(id), path, *size, annotations)

    def _annotations(self, id: int | str, space: Space) -> list[Annotation]:
        """The usable objects of one record, the first of each id."""
        rows = [row for row in self._index.annotations(id) if isinstance(row, dict)]
        read = (_coco_annotation(row, self._labels, space, self._skipped, self._keep_crowd) for row in rows)
        found = [annotation for annotation in read if annotation]
        annotations = {annotation.id: annotation for annotation in reversed(found)}
        if len(found) > len(annotations):
            self._skipped["duplicate_id"] += len(found) - len(annotations)
        return list(reversed(annotations.values()))

    def _path(self, name: str) -> str:
        """Where the file lies: under its name in the folder, or under a tail of it that is no tail of another
        record's name. UserError for a file that another name has led to."""
        first, *tails = _tails(name)
        found = os.path.join(self._folder, first)
        if not os.path.exists(found):
            there = (tail for tail in tails if os.path.exists(os.path.join(self._folder, tail)))
            own = next((tail for tail in there if not self._index.shared(name, tail)), first)
            found = os.path.join(self._folder, own)
        if (other := self._names.setdefault(os.path.abspath(found), name)) != name:
            raise UserError(
                f"--spr_annotations {self._index.file}: {other} and {name} are one file, {found}: name it alike"
            )
        return found

    def __iter__(self) -> Iterator[AnnotatedImage]:
        return filter(None, map(self.image, range(len(self.ids))))


def _tails(name: str) -> list[str]:
    """``images/v1/patch8/a.jpg``, ``v1/patch8/a.jpg`` … ``a.jpg``: as Objects365 and LVIS name files, and as
    they are unpacked."""
    places = range(max(len(name) - LONGEST_PATH, 0), len(name) - 1)
    return [name, *(name[place + 1 :] for place in places if name[place] == "/" != name[place + 1])]


def _joined(found: list[list[Annotation]], skipped: Counter) -> tuple[Annotation, ...]:
    """The objects of all records of one file: no box twice under one label, no id twice."""
    joined = {annotation.id: annotation for annotation in found[0]}
    for number, later in enumerate(found[1:], 2):
        for annotation in later:
            if any((known.label, known.box) == (annotation.label, annotation.box) for known in joined.values()):
                skipped["duplicate"] += 1
                continue
            id = annotation.id if annotation.id not in joined else f"{annotation.id} of record {number}"
            joined[id] = dataclasses.replace(annotation, id=id)
    return tuple(joined.values())


def _hashable(value: object) -> bool:
    return isinstance(value, (int, str))


def file_name_of(record: object, skipped: Counter) -> str:
    """The file name of an ``images`` entry; "", counted, unless it has an id and whole positive sizes too."""
    good = isinstance(record, dict) and _hashable(record.get("id"))
    good = good and all(isinstance(record.get(side), int) and record[side] > 0 for side in ("width", "height"))
    name = _file_name(record) if good else ""
    skipped.update([] if name else ["bad_image_record"])
    return name


def _file_name(record: dict) -> str:
    """``file_name``, or the end of LVIS's ``coco_url`` (``train2017/000000000009.jpg``)."""
    name = record.get("file_name") or "/".join(str(record.get("coco_url") or "").split("/")[-2:])
    return name if isinstance(name, str) else ""


def _coco_annotation(row: dict, labels: dict, space: Space, skipped: Counter, keep_crowd: bool) -> Annotation | None:
    """The annotation of one row, or None, counted."""
    label = labels.get(row.get("category_id"), "") if _hashable(row.get("category_id")) else ""
    box = _coco_box(row, space, keep_crowd)
    reason = "no_label" if not label else box if isinstance(box, str) else None
    if reason:
        skipped[reason] += 1
        return None
    return Annotation(row["id"] if _hashable(row.get("id")) else f"{box.xyxy}", label, box)


def _coco_box(row: dict, space: Space, keep_crowd: bool) -> Box | str:
    """COCO's xywh as a box on the picture, or the reason why it is left out."""
    if not keep_crowd and (row.get("iscrowd") or row.get("ignore")):
        return "crowd" if row.get("iscrowd") else "ignored"
    numbers = row.get("bbox")
    if not isinstance(numbers, list) or len(numbers) != 4 or not all(isinstance(n, (int, float)) for n in numbers):
        return "bad_box"
    x, y, width, height = map(float, numbers)
    if not all(map(math.isfinite, (x, y, width, height))):
        return "not_finite"
    if width <= 0 or height <= 0:
        return "zero_area"
    return usable(Box(x, y, x + width, y + height, space)) or "outside"


def usable(box: Box) -> Box | None:
    """`box` in pixels, clipped to its picture; None where less than a pixel of it lies there, or it is no number."""
    if not finite(box.xyxy):
        return None
    clipped = box.to(Space.pixels(box.space.width, box.space.height)).clip()
    return clipped if clipped.width >= SMALLEST and clipped.height >= SMALLEST else None


def _label(name: object) -> str:
    """A phrase without what box text is made of, which would be read back as something else: tags, brackets, quotes."""
    bare = TAG.sub(" ", name) if isinstance(name, str) else ""
    return " ".join(BOX_MARKS.sub(" ", bare).split()).strip(",.;: ")


# Words of Objects365's category names as they are spelled in its files.
MISSPELT = {
    "moniter": "monitor", "bakset": "basket", "ballon": "balloon", "dinning": "dining", "extention": "extension", "hamimelon": "Hami melon",
    "mushroon": "mushroom", "measur": "measure", "campel": "camel", "buttefly": "butterfly", "noddles": "noodles", "teniis": "tennis",
}  # fmt: skip


def _category(name: object) -> str:
    """A category's name as a phrase: LVIS's ``bow_(decorative_ribbons)`` is a bow, Objects365's ``Moniter/TV`` a monitor."""
    first = NAME_END.split(name)[0] if isinstance(name, str) else ""
    return " ".join(MISSPELT.get(word.lower(), word) for word in _label(first.replace("_", " ")).split())


def _own_words(text: str) -> Iterator[re.Match]:
    """The words that may name something."""
    words = re.finditer(r"\w+", text)
    return (word for word in words if word[0].lower() not in NO_NAMES and not word[0].isdecimal())


def _names_nothing(label: str) -> bool:
    """Whether a phrase has no word of its own, as "bounding box is"; a box may be what is in the picture, and a
    number what stands on it."""
    others = set(re.findall(r"\w+", label.lower())) - ARTICLES
    alone = others in ({"box"}, {"boxes"}) or others and all(map(str.isdecimal, others))
    return not alone and next(_own_words(label), None) is None


# --- LLaVA data files


def mine_conversations(
    file: str, image_folder: str, box_format: BoxFormat, skipped: Counter
) -> Iterator[AnnotatedImage]:
    """Pictures with the boxes that a LLaVA data file's conversations name, one per picture file, in order of first appearance.

    Read are referring-expression turns (the answer is a box, the phrase is what the question ``describes: …``), region
    descriptions (the question holds one box, the answer is the phrase) and answers that hold phrases with boxes. `box_format`
    says how the file writes boxes; where it is 0-1 of the padded square, or of the picture, `check_padding`
    looks first whether the file's own boxes allow that, and a padded box that lies in the padding is left out.
    What the file says to every phrase alike (`instructions`), and words that only ask or answer, are no part of
    a phrase. The same object found again (IoU >= 0.5 under one label, or >= 0.9 under any) is dropped. All
    annotations are `coarse`.

    Counted in `skipped`: ``no_image``, ``bad_record``, ``unknown_speaker`` (records), `pictures.REASONS`,
    ``no_phrase``, ``outside``, ``in_padding``, ``duplicate``, and the box format's parsing failures as
    ``box_malformed`` …. Raises UserError where `file` is no JSON list.
    """
    turns_by_image = _turns_by_image(file, skipped)
    check_padding(turns_by_image, image_folder, box_format, file)
    told = instructions(question for turns in turns_by_image.values() for question, _ in turns)
    for name, turns in turns_by_image.items():
        path = os.path.join(image_folder, name)
        size = image_size(path)
        if isinstance(size, str):
            skipped[size] += 1
            continue
        found = [
            mention
            for question, answer in turns
            for mention in _mined(question, answer, *size, box_format, told, skipped)
        ]
        if annotations := _annotations(found, skipped):
            yield AnnotatedImage(name, path, *size, annotations)


def check_padding(turns_by_image: dict, image_folder: str, box_format: BoxFormat, file: str) -> None:
    """UserError where the file's boxes on clearly non-square pictures speak against the declared reading, or for
    both. The boxes are a seeded sample of all.

    On the padded square of a wide picture nothing lies in the stripes above and below it; boxes in 0-1 of the
    picture itself reach into them as often as into stripes of that breadth at its sides. So one reading is
    refuted by boxes in the stripes, the other by their absence, in all of the file or in a stretch of it, and a
    share between those of the two is a mixture. Pictures all of a kind (roads, say) may look like padding.
    """
    if box_format.space_name not in ("padded_square", "normalized"):
        return
    seen = list(itertools.islice(_beside_stripes(turns_by_image, image_folder, box_format), PADDING_SEEN))
    inside, sides = sum(one.inside for one in seen), sum(one.beside for one in seen)
    padded = box_format.space_name == "padded_square"
    found = (
        f"{inside} of {len(seen)} boxes on non-square pictures of --data_path {file} reach into the stripes that "
        "padding to a square adds"
    )
    mixed = inside < 0.75 * sides and sides - inside > 4 * math.sqrt(sides + inside)
    both = f"{found}, {sides} into as broad ones at the sides"
    alike = "some boxes count padding and some do not; write them alike, or give boxes by --spr_annotations"
    if 0 < len(seen) < PADDING_SURE:
        say(f"{found}: too few to tell whether they count padding, taken as {'pad' if padded else 'square'} (--spr_data_aspect)")
    elif padded and inside > PADDING_ERRORS * len(seen):
        if mixed:
            raise UserError(f"{both}: {alike}")
        raise UserError(
            f"{found}: they are no boxes of the padded square; say --spr_data_aspect square, or give boxes by "
            "--spr_annotations"
        )
    elif padded and inside:
        say(f"{found}: such boxes are left out, and others like them may be read wrongly (--spr_data_aspect)")
    elif not padded and seen:
        if inside <= SQUARE_ERRORS * len(seen):
            raise UserError(
                f"{found}: they are boxes of the padded square, as in LLaVA's own data; say --spr_data_aspect pad"
            )
        if mixed:
            raise UserError(f"{both}: {alike}")
        longest, where = max((_longest_stretch(seen, order), order) for order in ORDERS)
        if longest > STRETCH + math.log2(len(seen)):
            raise UserError(f"{found}, but none of {longest} boxes that lie together {ORDERS[where]}: {alike}")


@dataclass(frozen=True)
class _Seen:
    """Where one box lies: whether it reaches into the stripes that padding would add, and into as broad ones at
    the two other sides; the place of its picture in the file, its folder, and how it is asked for."""

    inside: bool
    beside: bool
    place: int
    folder: str
    asked: str


# What may keep two sources in one file apart, though it is shuffled → in words.
ORDERS = {"place": "in the file", "folder": "in one folder", "asked": "under one question"}
STRETCH = 16  # boxes in a row that reach to a side alone; log2 of all comes by chance, were the two ways alike


def _longest_stretch(seen: Sequence[_Seen], order: str) -> int:
    """The most boxes that reach to a side with none between them that reaches into a stripe, in this order."""
    longest = now = 0
    for one in sorted(seen, key=lambda one: (getattr(one, order), one.place)):
        now = 0 if one.inside else now + one.beside
        longest = max(longest, now)
    return longest


def _beside_stripes(turns_by_image: dict, image_folder: str, box_format: BoxFormat) -> Iterator[_Seen]:
    """The boxes of pictures whose sides differ by a fifth, in a seeded order of pictures."""
    numbered = list(enumerate(turns_by_image))
    for place, name in random.Random(0).sample(numbered, len(numbered)):
        size = image_size(os.path.join(image_folder, name))
        if isinstance(size, str) or max(size) < 1.2 * min(size):
            continue
        for question, text in ((pair[0], text) for pair in turns_by_image[name] for text in pair):
            for box in box_format.parse(text, *size).boxes:
                wide, ends = size[0] > size[1], [(box.y1, box.y2), (box.x1, box.x2)]
                across, along = ends if wide else reversed(ends)
                where = place, os.path.dirname(name), question[:ASKED]
                yield _Seen(_in_stripe(across, size), _in_stripe(along, size), *where)


def _in_stripe(ends: tuple[float, float], size: tuple[int, int]) -> bool:
    """Whether a box's two ends, in 0-1 of the padded square, reach into a stripe that padding would add."""
    stripe = (1 - min(size) / max(size)) / 2 - PADDING_ROUNDING
    return ends[0] < stripe or ends[1] > 1 - stripe


def _turns_by_image(file: str, skipped: Counter) -> dict[str, list[tuple[str, str]]]:
    """Picture file → its (question, answer) turns that may hold a box, over all records."""
    records = read_json(file, f"--data_path {file}")
    if not isinstance(records, list):
        raise UserError(f"--data_path {file}: a LLaVA data file is a JSON list of records")
    names: dict[str, str] = {}  # one name of a file → the first
    turns: dict[str, list[tuple[str, str]]] = {}
    for record in records:
        name = record.get("image") if isinstance(record, dict) else None
        talk = _talk(record.get("conversations")) if isinstance(record, dict) else None
        if talk is None:
            skipped["bad_record"] += 1
        elif not isinstance(name, str) or not name:
            skipped["no_image"] += 1
        else:
            if {speaker for speaker, _ in talk} - HUMAN - MODEL - OTHERS:
                skipped["unknown_speaker"] += 1
            if found := [pair for pair in _pairs(talk) if "[" in "".join(pair) or "<" in "".join(pair)]:
                turns.setdefault(names.setdefault(os.path.normpath(name), name), []).extend(found)
    return turns


def _talk(given: object) -> list[tuple[str, str]] | None:
    """(speaker, words) of each turn, by LLaVA's keys or by OpenAI's; None for what is no conversation."""
    if not isinstance(given, list) or not all(isinstance(turn, dict) for turn in given):
        return None
    talk = [(turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))) for turn in given]
    return talk if all(isinstance(word, str) for turn in talk for word in turn) else None


def _pairs(talk: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(question, answer) of each human turn that the model's follows, without the picture's placeholder."""
    for (asker, question), (teller, answer) in zip(talk, talk[1:]):
        if asker in HUMAN and teller in MODEL:
            yield question.replace("<image>", "").strip(), answer.strip()


def instructions(questions: Iterable[str]) -> frozenset[str]:
    """The sentences of two words and more that the file adds to what it asks for: to one phrase in ten, and to
    three different ones at least."""
    tails = [SENTENCE_END.split(asked[1]) for asked in map(REC_QUESTION.search, questions) if asked]
    phrases: dict[str, set[str]] = {}
    for phrase, *others in tails:
        for sentence in others:
            if len(sentence.split()) > 1:
                phrases.setdefault(sentence, set()).add(phrase)
    times = Counter(sentence for _, *others in tails for sentence in set(others) & phrases.keys())
    return frozenset(one for one, of in phrases.items() if len(of) >= 3 and times[one] >= COMMON * len(tails))


def _asked_for(tail: str, told: Set[str]) -> str:
    """The phrase in what follows "describes:", without the instructions after it."""
    first, *others = SENTENCE_END.split(INSTRUCTION.sub("", tail))
    phrase = " ".join([first, *itertools.takewhile(lambda sentence: sentence not in told, others)])
    # an instruction in no capital and behind no full stop: from the word that asks on, none names anything
    named = max((word.end() for word in _own_words(phrase)), default=0)
    if cut := ASKING.match(phrase, named):
        phrase = phrase[: cut.start()]
    clauses = CLAUSE_END.split(phrase)
    while clauses and _names_nothing(clauses[-1]):
        clauses.pop()
    return " ".join(clauses).rstrip(" .,;:?!")


def _mined(
    question: str, answer: str, width: int, height: int, box_format: BoxFormat, told: Set[str], skipped: Counter
) -> list[tuple[str, Box]]:
    """(phrase, box) of one turn; see `mine_conversations`."""
    said = box_format.parse(answer, width, height)
    skipped.update({f"box_{reason}": count for reason, count in said.failures.items()})
    if said.boxes:
        asked = REC_QUESTION.search(question)
        named = _asked_for(asked[1], told) if asked and len(said.boxes) == 1 and not said.failures else ""
        return [(named or mention.phrase, box) for mention in said.mentions for box in mention.boxes]
    boxes = box_format.parse(question, width, height).boxes
    if len(boxes) == 1 and REG_QUESTION.search(question):
        return [(answer.rstrip("."), boxes[0])]
    return []


def _annotations(found: Iterable[tuple[str, Box]], skipped: Counter) -> tuple[Annotation, ...]:
    """Annotations of the (phrase, box) rows of one picture, without repetitions; the first of equals stays."""
    kept: list[Annotation] = []
    for phrase, box in found:
        label, clipped = _label(phrase), usable(box)
        if not label or _names_nothing(label):
            skipped["no_phrase"] += 1
        elif clipped is None:
            skipped["outside"] += 1
        elif _in_padding(box):
            skipped["in_padding"] += 1
        elif _repeats(label, clipped, kept):
            skipped["duplicate"] += 1
        else:
            kept.append(Annotation(len(kept), label, clipped, coarse=True))
    return tuple(kept)


def _in_padding(box: Box) -> bool:
    """Whether a box of the padded square lies in the padding, beyond what rounding does: its space is another."""
    (x1, y1, x2, y2), (width, height) = box.pixels(), (box.space.width, box.space.height)
    beyond = max(-x1, -y1, x2 - width, y2 - height)
    return box.space.name == "padded_square" and beyond > PADDING_ROUNDING * max(width, height)


def _repeats(label: str, box: Box, kept: Sequence[Annotation]) -> bool:
    overlaps = iou_matrix([box.xyxy], [other.box.xyxy for other in kept])[0]
    return any(
        overlap >= (0.5 if other.label.lower() == label.lower() else 0.9) for overlap, other in zip(overlaps, kept)
    )


@hookimpl
def spr_annotations(source: str, image_folder: str, skipped: Counter, keep_crowd: bool) -> CocoImages:
    """``--spr_annotations FILE`` as COCO-format JSON; a plugin that knows another format is asked first."""
    return CocoImages(source, image_folder, skipped, keep_crowd)
