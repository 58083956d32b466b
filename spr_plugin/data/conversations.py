"""Boxes mined from a LLaVA data file's grounded conversations."""

from __future__ import annotations

import itertools
import math
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from spr_plugin.boxes import Box, iou_matrix
from spr_plugin.data.annotations import AnnotatedImage, Annotation, label_of, usable
from spr_plugin.data.pictures import image_size
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat
from spr_plugin.loading import read_json
from spr_plugin.progress import say

PADDING_ROUNDING = 0.02  # boxes of two decimals, drawn a little beyond their picture
PADDING_SEEN, PADDING_SURE = 4000, 20  # number of boxes that are asked; number that decides
# Share in the stripes that padded boxes may have; that others exceed.
PADDING_ERRORS, SQUARE_ERRORS = (0.005, 0.05)
WORD = re.compile(r"\w+")
ASKED = 20  # characters of a question that tell how it is asked
COMMON = 0.1  # share of the questions that end in a sentence which belongs to how the file asks
REC_QUESTION = re.compile(r"describes:\s*(\S(?:.*\S)?)", re.DOTALL)
# What asks for a form of the answer and follows the phrase: a line or a sentence of its own, in the
# imperative.
INSTRUCTION = re.compile(
    r"(?<!\s)\s*\n.*|(?:^|(?<!\s)\s+)(?:Please|Answer|Respond|Reply|Output|Provide|Return)\s.*"
    r"|(?<=[.?!,;:])\s+(?:Be|Format|Give|Just|Keep|Only|Report|Use|Write)\s.*",
    re.DOTALL,
)
# Words that name no object: of grammar, and of asking for a box and answering with one.
ARTICLES = frozenset("a an the".split())
NO_NAMES = ARTICLES | frozenset(
    "this that these those it its they them i me my you your we our one single each all any both which what"
    " where who how here there is are was were be been being am can could will would shall should may might"
    " must do does did has have had of in on at to for from by with within as and or not no yes so only just"
    " also then than if per above below following follows given sure ok okay please kindly briefly exactly"
    " answer answers answered reply respond response output return provide give report write say show use"
    " mark find found locate located location position detect detected detection result corresponding"
    " requested described describes description question sentence phrase format coordinate coordinates coords"
    " bounding bound bounded box boxes bbox brackets xyxy json put region regions area object objects"
    " image".split()
)
ASKING = re.compile(
    r"\s+(?:(?:please|just|only|kindly)\s+)?(?:answer|reply|respond|output|return|provide|give|report|write)\s+\w",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<=[.?!;:\n])\s+|\n")
CLAUSE_END = re.compile(r"(?<=[.?!;:,\n])\s+|\n|(?<!\s)\s+(?=[(–—-])")
HUMAN, MODEL, OTHERS = {"human", "user"}, {"gpt", "assistant"}, {"system"}
REG_QUESTION = re.compile(r"\bdescri(?:be|ption)\b", re.IGNORECASE)


def mine_conversations(
    file: str, image_folder: str, box_format: BoxFormat, skipped: Counter
) -> Iterator[AnnotatedImage]:
    """Pictures with the boxes that a LLaVA data file's conversations name, one per picture file, in order of
    first appearance.

    Read are referring-expression turns (the answer is a box, the phrase is what the question ``describes:
    …``), region descriptions (the question holds one box, the answer is the phrase) and answers that hold
    phrases with boxes. `box_format` says how the file writes boxes; where it is 0-1 of the padded square, or
    of the picture, `check_padding` looks first whether the file's own boxes allow that, and a padded box that
    lies in the padding is left out. What the file says to every phrase alike (`instructions`), and words that
    only ask or answer, are no part of a phrase. The same object found again (IoU >= 0.5 under one label, or
    >= 0.9 under any) is dropped. All annotations are `coarse`.

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
        mined = [
            mention
            for question, answer in turns
            for mention in _mined(question, answer, *size, box_format, told, skipped)
        ]
        if annotations := _annotations(mined, skipped):
            yield AnnotatedImage(name, path, *size, annotations)


def check_padding(turns_by_image: dict, image_folder: str, box_format: BoxFormat, file: str) -> None:
    """UserError where the file's boxes on clearly non-square pictures speak against the declared reading, or
    for both. The boxes are a seeded sample of all.

    On the padded square of a wide picture nothing lies in the stripes above and below it; boxes in 0-1 of the
    picture itself reach into them as often as into stripes of that breadth at its sides. So one reading is
    refuted by boxes in the stripes, the other by their absence, in all of the file or in a stretch of it, and
    a share between those of the two is a mixture. Pictures all of a kind (roads, say) may look like padding.
    """
    if box_format.space_name not in ("padded_square", "normalized"):
        return
    seen = list(itertools.islice(_beside_stripes(turns_by_image, image_folder, box_format), PADDING_SEEN))
    inside, sides = sum(one.inside for one in seen), sum(one.beside for one in seen)
    padded = box_format.space_name == "padded_square"
    reach = (
        f"{inside} of {len(seen)} boxes on non-square pictures of --data_path {file} reach into the stripes"
        " that padding to a square adds"
    )
    mixed = inside < 0.75 * sides and sides - inside > 4 * math.sqrt(sides + inside)
    both = f"{reach}, {sides} into as broad ones at the sides"
    alike = "some boxes count padding and some do not; write them alike, or give boxes by --spr_annotations"
    if 0 < len(seen) < PADDING_SURE:
        say(
            f"{reach}: too few to tell whether they count padding, taken as {'pad' if padded else 'square'}"
            " (--spr_data_aspect)"
        )
    elif padded and inside > PADDING_ERRORS * len(seen):
        if mixed:
            raise UserError(f"{both}: {alike}")
        raise UserError(
            f"{reach}: they are no boxes of the padded square; say --spr_data_aspect square, or give boxes by"
            " --spr_annotations"
        )
    elif padded and inside:
        say(f"{reach}: such boxes are left out, and others like them may be read wrongly (--spr_data_aspect)")
    elif not padded and seen:
        if inside <= SQUARE_ERRORS * len(seen):
            raise UserError(
                f"{reach}: they are boxes of the padded square, as in LLaVA's own data; say"
                " --spr_data_aspect pad"
            )
        if mixed:
            raise UserError(f"{both}: {alike}")
        longest, where = max((_longest_stretch(seen, order), order) for order in ORDERS)
        if longest > STRETCH + math.log2(len(seen)):
            raise UserError(
                f"{reach}, but none of {longest} boxes that lie together {ORDERS[where]}: {alike}"
            )


@dataclass(frozen=True)
class _Seen:
    """Where one box lies: whether it reaches into the stripes that padding would add, and into as broad ones
    at the two other sides; the index of its picture in the file, its folder, and how it is asked for.
    """

    inside: bool
    beside: bool
    index: int
    folder: str
    asked: str


# What may keep two sources in one file apart, though it is shuffled → in words.
ORDERS = {"index": "in the file", "folder": "in one folder", "asked": "under one question"}
STRETCH = (
    16  # boxes in a row that reach to a side alone; log2 of all comes by chance, were the two ways alike
)


def _longest_stretch(seen: Sequence[_Seen], order: str) -> int:
    """The most boxes that reach to a side with none between them that reaches into a stripe, in this
    order.
    """
    longest = now = 0
    for one in sorted(seen, key=lambda one: (getattr(one, order), one.index)):
        now = 0 if one.inside else now + one.beside
        longest = max(longest, now)
    return longest


def _beside_stripes(turns_by_image: dict, image_folder: str, box_format: BoxFormat) -> Iterator[_Seen]:
    """The boxes of pictures whose sides differ by a fifth, in a seeded order of pictures."""
    numbered = list(enumerate(turns_by_image))
    for index, name in random.Random(0).sample(numbered, len(numbered)):
        size = image_size(os.path.join(image_folder, name))
        if isinstance(size, str) or max(size) < 1.2 * min(size):
            continue
        for question, text in ((pair[0], text) for pair in turns_by_image[name] for text in pair):
            if not _may_hold_a_box(text):
                continue
            for box in box_format.parse(text, *size).boxes:
                wide, ends = size[0] > size[1], [(box.y1, box.y2), (box.x1, box.x2)]
                across, along = ends if wide else reversed(ends)
                where = index, os.path.dirname(name), question[:ASKED]
                yield _Seen(_in_stripe(across, size), _in_stripe(along, size), *where)


def _may_hold_a_box(text: str) -> bool:
    """By the signs that every family writes, before anything is parsed."""
    return "[" in text or "<" in text


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
            if grounded := [pair for pair in _pairs(talk) if any(map(_may_hold_a_box, pair))]:
                turns.setdefault(names.setdefault(os.path.normpath(name), name), []).extend(grounded)
    return turns


def _talk(given: object) -> list[tuple[str, str]] | None:
    """(speaker, words) of each turn, by LLaVA's keys or by OpenAI's; None for what is no conversation."""
    if not isinstance(given, list) or not all(isinstance(turn, dict) for turn in given):
        return None
    talk = [(turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))) for turn in given]
    return talk if all(isinstance(word, str) for turn in talk for word in turn) else None


def _pairs(talk: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(question, answer) of each human turn that the model's follows, without the picture's placeholder."""
    for (asker, question), (teller, answer) in itertools.pairwise(talk):
        if asker in HUMAN and teller in MODEL:
            yield question.replace("<image>", "").strip(), answer.strip()


def instructions(questions: Iterable[str]) -> frozenset[str]:
    """The sentences of two words and more that the file adds to what it asks for: to one phrase in ten, and
    to three different ones at least.
    """
    requests = [SENTENCE_END.split(asked[1]) for asked in map(REC_QUESTION.search, questions) if asked]
    phrases: dict[str, set[str]] = {}
    for phrase, *others in requests:
        for sentence in others:
            if len(sentence.split()) > 1:
                phrases.setdefault(sentence, set()).add(phrase)
    times = Counter(sentence for _, *others in requests for sentence in set(others) & phrases.keys())
    return frozenset(
        one for one, of in phrases.items() if len(of) >= 3 and times[one] >= COMMON * len(requests)
    )


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
    question: str,
    answer: str,
    width: int,
    height: int,
    box_format: BoxFormat,
    told: Set[str],
    skipped: Counter,
) -> list[tuple[str, Box]]:
    """(phrase, box) of one turn; see `mine_conversations`."""
    parsed = box_format.parse(answer, width, height)
    skipped.update({f"box_{reason}": count for reason, count in parsed.failures.items()})
    if parsed.boxes:
        asked = REC_QUESTION.search(question)
        named = _asked_for(asked[1], told) if asked and len(parsed.boxes) == 1 and not parsed.failures else ""
        return [(named or mention.phrase, box) for mention in parsed.mentions for box in mention.boxes]
    boxes = box_format.parse(question, width, height).boxes
    if len(boxes) == 1 and REG_QUESTION.search(question):
        return [(answer.rstrip("."), boxes[0])]
    return []


def _annotations(rows: Iterable[tuple[str, Box]], skipped: Counter) -> tuple[Annotation, ...]:
    """Annotations of the (phrase, box) rows of one picture, without repetitions; the first of equals
    stays.
    """
    kept: list[Annotation] = []
    for phrase, box in rows:
        label, clipped = label_of(phrase), usable(box)
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
    """Whether a box of the padded square lies in the padding, beyond what rounding does: its space is
    another.
    """
    (x1, y1, x2, y2), (width, height) = box.pixels(), (box.space.width, box.space.height)
    beyond = max(-x1, -y1, x2 - width, y2 - height)
    return box.space.name == "padded_square" and beyond > PADDING_ROUNDING * max(width, height)


def _repeats(label: str, box: Box, kept: Sequence[Annotation]) -> bool:
    overlaps = iou_matrix([box.xyxy], [other.box.xyxy for other in kept])[0]
    return any(
        overlap >= (0.5 if other.label.lower() == label.lower() else 0.9)
        for overlap, other in zip(overlaps, kept)
    )


def _own_words(text: str) -> Iterator[re.Match]:
    """The words that may name something."""
    words = WORD.finditer(text)
    return (word for word in words if word[0].lower() not in NO_NAMES and not word[0].isdecimal())


def _names_nothing(label: str) -> bool:
    """Whether a phrase has no word of its own, as "bounding box is"; a box may be what is in the picture, and
    a number what stands on it.
    """
    others = set(WORD.findall(label.lower())) - ARTICLES
    alone = others in ({"box"}, {"boxes"}) or (others and all(map(str.isdecimal, others)))
    return not alone and next(_own_words(label), None) is None
