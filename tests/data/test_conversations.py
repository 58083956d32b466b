"""Boxes mined from LLaVA conversations, with everything that real files get wrong."""

import json
import random
from collections import Counter

import pytest
from PIL import Image

from spr_plugin.data.conversations import mine_conversations
from spr_plugin.errors import UserError
from spr_plugin.formats import ferret, llava

REC = "Please provide the bounding box coordinate of the region this sentence describes: {}."


REG = "Please provide a short description for this region: {}."


def record(turns, image="a.jpg"):
    talk = [{"from": who, "value": text} for pair in turns for who, text in zip(("human", "gpt"), pair)]
    return {"id": "x", "image": image, "conversations": talk}


def mine(folder, records, form=None, **more):
    file = folder / "data.json"
    file.write_text(json.dumps(records))
    skipped = Counter()
    return list(mine_conversations(str(file), str(folder), form or llava("pad"), skipped, **more)), skipped


def test_rec_and_reg_turns_and_grounded_answers_are_mined(folder):
    turns = [
        ("<image>\n" + REC.format("dark suit near a coat"), "[0.0, 0.25, 0.2, 0.5]"),
        (REG.format("[0.5, 0.25, 1.0, 0.75]"), "Third person from right."),
        (
            "Describe the objects.",
            "a red cup [0.3, 0.3, 0.4, 0.6] and two dogs [0.6, 0.3, 0.65, 0.4] and [0.8, 0.3, 0.9, 0.4].",
        ),
        ("What colour is it?", "Red."),
    ]
    [image], skipped = mine(folder, [record(turns)])
    boxes = {annotation.label: annotation.box.pixels() for annotation in image.annotations[:3]}
    assert list(boxes) == ["dark suit near a coat", "Third person from right", "red cup"]
    # A 100 x 50 picture is padded by 25 above and below: 0.25 of the square is the picture's upper edge.
    assert boxes["dark suit near a coat"] == pytest.approx((0, 0, 20, 25))
    assert boxes["Third person from right"] == pytest.approx((50, 0, 100, 50))
    assert [annotation.label for annotation in image.annotations[3:]] == ["two dogs", "two dogs"]
    assert all(annotation.coarse for annotation in image.annotations) and not skipped
    assert [annotation.id for annotation in image.annotations] == [0, 1, 2, 3, 4]


def test_boxes_are_read_in_the_given_family(folder):
    [image], _ = mine(folder, [record([(REC.format("cup"), "[100, 200, 500, 800]")])], ferret())
    assert image.annotations[0].box.pixels() == pytest.approx((10, 10, 50, 40))


def test_records_of_one_picture_are_merged_without_repetition(folder):
    box, near = "[0.0, 0.25, 0.4, 0.5]", "[0.0, 0.25, 0.39, 0.5]"
    records = [
        record([(REC.format("man"), box)]),
        record([(REG.format(box), "Man.")]),
        record([(REC.format("left guy"), near)]),
        record(
            [
                (REC.format("left guy"), "[0.0, 0.25, 0.2, 0.5]"),
                (REC.format("his hat"), "[0.1, 0.25, 0.2, 0.3]"),
            ]
        ),
        record([(REC.format("tree"), "[0.25, 0.0, 0.5, 0.5]")], image="b.png"),
    ]
    images, skipped = mine(folder, records)
    assert [[a.label for a in image.annotations] for image in images] == [
        ["man", "left guy", "his hat"],
        ["tree"],
    ]
    assert skipped == {"duplicate": 2}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"conversations": []}, "no_image"),
        ({"image": ["a.jpg"], "conversations": []}, "no_image"),
        ({"image": "a.jpg"}, "bad_record"),
        ("text", "bad_record"),
        ({"image": "a.jpg", "conversations": [{"from": "human"}]}, "bad_record"),
        (record([(REC.format("cup"), "[0.1, 0.3, 0.2, 0.4]")], image="gone.jpg"), "missing_image"),
        (record([(REC.format("cup"), "[0.1, 0.3, 0.2, 0.4]")], image="data.json"), "unreadable_image"),
        (record([("Where?", "[0.1, 0.3, 0.2, 0.4]")]), "no_phrase"),
        (record([(REC.format("cup"), "[0.1, 0.0, 0.2, 0.1]")]), "outside"),
        (record([(REC.format("cup"), "[0.1, 0.0, 0.2]")]), "box_malformed"),
        (record([(REC.format("cup"), "[10, 20, 30, 40]")]), "box_out_of_range"),
    ],
)
def test_a_bad_record_is_counted_and_the_others_stay(folder, bad, reason):
    good = record([(REC.format("tree"), "[0.6, 0.3, 0.7, 0.5]")])
    [image], skipped = mine(folder, [bad, good])
    assert [annotation.label for annotation in image.annotations] == ["tree"]
    assert skipped == {reason: 1}


def boxed(folder, aspect, size=(100, 50), count=30):
    """A data file of boxes all over pictures of this size, in 0-1 of the padded square ("pad") or of the
    picture.
    """
    from spr_plugin.boxes import Box, Space

    rng, form = random.Random(0), llava(aspect)
    Image.new("RGB", size).save(folder / "wide.png")
    rows = []
    for number in range(count):
        x, y = rng.uniform(0, 0.8) * size[0], rng.uniform(0, 0.8) * size[1]
        box = Box(x, y, x + 0.2 * size[0], y + 0.2 * size[1], Space.pixels(*size))
        rows.append(record([(REC.format(f"thing {number}"), form.write(box))], image="wide.png"))
    return rows


@pytest.mark.parametrize("size", [(100, 50), (60, 90)])
def test_the_reading_of_padding_is_tested_on_the_file_s_own_boxes(folder, size):
    for written in ("pad", "square"):
        rows = boxed(folder, written, size)
        [image], _ = mine(folder, rows, llava(written))
        assert len(image.annotations) > 20
        with pytest.raises(UserError, match=f"--spr_data_aspect {written}") as caught:
            mine(folder, rows, llava("square" if written == "pad" else "pad"))
        assert "of 30 boxes" in str(caught.value) and "\n" not in str(caught.value)


def mixed(folder, padded, square, size=(64, 32)):
    """Records of so many boxes of each reading, a picture each five, in blocks."""
    rows = []
    for aspect, count in padded, square:
        for row in boxed(folder, aspect, size, count):
            name = f"{aspect}{len(rows) // 5}.png"
            if not (folder / name).exists():
                Image.new("RGB", size).save(folder / name)
            rows.append({**row, "image": name})
    return rows


@pytest.mark.parametrize("declared", ["pad", "square"])
@pytest.mark.parametrize(
    "blocks",
    [
        (("pad", 400), ("square", 400)),
        (("square", 400), ("pad", 400)),
        pytest.param((("pad", 2500), ("square", 1500)), marks=pytest.mark.slow),
    ],
)
def test_a_mixture_of_both_readings_is_refused_in_any_order(folder, declared, blocks):
    with pytest.raises(UserError, match="some boxes count padding and some do not") as caught:
        mine(folder, mixed(folder, *blocks), llava(declared))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", [True, False])
def test_a_padded_file_with_one_other_box_loses_that_box_alone(folder, first):
    """(64, 99, 320, 250) of a 640 x 320 picture, in 0-1 of the picture, was read as (64, 38, 320, 320)."""
    rows, other = (
        boxed(folder, "pad", (640, 320), 200),
        record([(REC.format("other"), "[0.1, 0.31, 0.5, 0.78]")], image="wide.png"),
    )
    [image], skipped = mine(folder, [other, *rows] if first else [*rows, other])
    assert (
        "other" not in [annotation.label for annotation in image.annotations] and skipped["in_padding"] == 1
    )
    assert len(image.annotations) + skipped["duplicate"] == 200


def roads(count=300):
    """Nothing above and below, though boxes count no padding."""
    rng, rows = random.Random(0), []
    for number in range(count):
        x, y = rng.uniform(0, 0.9), rng.uniform(0.15, 0.7)
        box = f"[{x:.2f}, {y:.2f}, {x + 0.1:.2f}, {y + 0.1:.2f}]"
        rows.append(record([(REC.format(f"car {number}"), box)], image="wide.png"))
    return rows


def test_pictures_that_look_mixed_are_refused_with_a_way_out(folder):
    """Whoever has named the reading was told only, and trained on boxes that may have been others."""
    rows = boxed(folder, "square", (640, 320), 1)
    with pytest.raises(UserError, match="write them alike, or give boxes by --spr_annotations"):
        mine(folder, rows + roads(), llava("square"))


def shuffled(folder, padded, square, size=(64, 32)):
    """Records of so many boxes of each reading, a picture each five, in a seeded order."""
    return random.Random(1).sample(
        rows := mixed(folder, ("pad", padded), ("square", square), size), len(rows)
    )


@pytest.mark.parametrize("order", [mixed, shuffled])
def test_a_few_boxes_of_the_picture_in_a_padded_file_refuse_it(folder, order, capfd):
    """Those that lie in the stripes were left out, and the others read as if they counted padding."""
    with pytest.raises(UserError, match=r"of \d+ boxes .*: some boxes count padding and some do not"):
        if order is mixed:
            mine(folder, mixed(folder, ("pad", 1200), ("square", 24)), llava("pad"))
        else:
            mine(folder, shuffled(folder, 1200, 24), llava("pad"))


def test_so_few_that_they_may_be_mistakes_are_counted_aloud(folder, capfd):
    rows = boxed(folder, "pad", (640, 320), 400)
    other = record([(REC.format("other"), "[0.1, 0.31, 0.5, 0.98]")], image="wide.png")
    mine(folder, [*rows, other])
    err = capfd.readouterr().err
    assert "1 of 401 boxes on non-square pictures" in err and "such boxes are left out" in err


def in_folder(rows, folder, name):
    """The same records, their pictures in a folder of that name."""
    for row in rows:
        if not (folder / name / row["image"]).exists():
            (folder / name).mkdir(exist_ok=True)
            (folder / name / row["image"]).write_bytes((folder / row["image"]).read_bytes())
    return [{**row, "image": f"{name}/{row['image']}"} for row in rows]


def asked_otherwise(rows):
    """The same records under another question."""
    words = "Where in this picture does it lie, if this sentence describes: {}"
    return [
        record(
            [
                (
                    words.format(row["conversations"][0]["value"].split(": ")[1]),
                    row["conversations"][1]["value"],
                )
            ],
            row["image"],
        )
        for row in rows
    ]


@pytest.mark.parametrize("apart", ["in the file", "in one folder", "under one question"])
def test_a_few_padded_boxes_that_lie_together_refuse_a_file_of_others(folder, apart):
    """Three in a hundred."""
    rows = mixed(folder, ("square", 2400), ("pad", 90))
    square, padded = rows[:2400], rows[2400:]
    if apart == "in one folder":
        padded = in_folder(padded, folder, "other")
    elif apart == "under one question":
        padded = asked_otherwise(padded)
    rows = [*square[:1000], *padded, *square[1000:]]
    if apart != "in the file":
        rows = random.Random(2).sample(rows, len(rows))
    with pytest.raises(
        UserError, match=f"but none of .* that lie together {apart}: some boxes count padding"
    ):
        mine(folder, rows, llava("square"))


def test_a_file_of_other_boxes_is_mined_whatever_its_order(folder):
    rows = mixed(folder, ("square", 700), ("square", 300))
    for seed in range(3):
        images, _ = mine(folder, random.Random(seed).sample(rows, len(rows)), llava("square"))
        assert images


def test_openai_s_names_and_keys_of_speakers_are_read(folder):
    turns = [(REC.format("cup"), "[0.1, 0.3, 0.2, 0.4]")]
    named = record(turns)
    named["conversations"] = [{"from": "system", "value": "Ground."}] + [
        {"from": {"human": "user", "gpt": "assistant"}[turn["from"]], "value": turn["value"]}
        for turn in named["conversations"]
    ]
    keyed = {
        "image": "b.png",
        "conversations": [
            {"role": "user", "content": turns[0][0]},
            {"role": "assistant", "content": "[0.4, 0.3, 0.6, 0.4]"},
        ],
    }
    images, skipped = mine(folder, [named, keyed])
    assert [image.annotations[0].label for image in images] == ["cup", "cup"] and not skipped


def test_turns_of_unknown_speakers_are_counted(folder):
    strange = record([(REC.format("cup"), "[0.1, 0.3, 0.2, 0.4]")])
    strange["conversations"][1]["from"] = "bot"
    images, skipped = mine(folder, [strange])
    assert images == [] and skipped == {"unknown_speaker": 1}


@pytest.mark.parametrize(
    "asked",
    [
        "<ref>the red cup</ref>",
        "<ref>the red cup</ref>. Answer briefly.",
        "<|object_ref_start|>the red cup<|object_ref_end|>",
        "<p>the red cup</p>",
        "the red cup.\nAnswer briefly.",
        "the red cup. Answer briefly.",
        "the red cup Answer the question with a box only.",
        "the red cup. Be brief.",
        "the red cup. Please answer in the format [x1, y1, x2, y2].",
        '"the red cup". Output only the coordinates',
    ],
)
def test_tags_and_instructions_are_no_part_of_a_label(folder, asked):
    question = "Please provide the bounding box coordinate of the region this sentence describes: " + asked
    [image], _ = mine(folder, [record([(question, "[0.1, 0.3, 0.2, 0.4]")])])
    assert image.annotations[0].label == "the red cup"


@pytest.mark.parametrize(
    "instruction",
    [
        "answer in one box", ". answer in one box.", "\nanswer in one box", ", respond with exactly 1 bounding box",  # noqa: E501
        ". the answer is one box", ", in one box", "report coordinates", "(answer in one box)", "- one box only",  # noqa: E501
        "? just one box!", ". give one box per object", "; output format: json", "please answer in one box",
    ],
)  # fmt: skip
def test_what_only_asks_is_no_part_of_a_label(folder, instruction):
    question = REC.format("the red cup")[:-1] + (
        instruction if instruction[0] in ".,;?\n" else f" {instruction}"
    )
    [image], _ = mine(folder, [record([(question, "[0.1, 0.3, 0.2, 0.4]")])])
    assert image.annotations[0].label == "the red cup"


@pytest.mark.parametrize(
    "sentence",
    ["furnish merely quadruples", "Kindly furnish merely quadruples, thanks", "no prose\nmerely quadruples"],
)
@pytest.mark.parametrize("share", [1, 4])
def test_what_the_file_says_to_every_phrase_is_no_part_of_a_label(folder, sentence, share):
    """In whatever words; here to one phrase in `share`."""
    phrases = [
        f"{color} {thing}"
        for color in ("red", "blue", "green", "grey")
        for thing in ("cup", "hat", "dog. left")
    ]
    rows = []
    for number, phrase in enumerate(phrases):
        end = f". {sentence}" if number % share == 0 else ""
        box = f"[{0.08 * number:.2f}, 0.3, {0.08 * number + 0.06:.2f}, 0.4]"
        rows.append(record([(REC.format(phrase)[:-1] + end, box)]))
    [image], _ = mine(folder, rows)
    assert [annotation.label for annotation in image.annotations] == phrases


@pytest.mark.parametrize(
    "said",
    [
        "The bounding box is [0.1, 0.3, 0.2, 0.4].", "It is at [0.1, 0.3, 0.2, 0.4].",
        "Sure, the region is [0.1, 0.3, 0.2, 0.4].", "Found within [0.1, 0.3, 0.2, 0.4].",
        "Its coordinates are: [0.1, 0.3, 0.2, 0.4]", "Here you are, a bounding box: [0.1, 0.3, 0.2, 0.4]",
    ],
)  # fmt: skip
def test_what_only_answers_is_no_label(folder, said):
    images, skipped = mine(folder, [record([("Where is the cup?", said)])])
    assert images == [] and skipped == {"no_phrase": 1}


@pytest.mark.parametrize(
    "said", ["The thing requested lies around [0.1, 0.3, 0.2, 0.4].", "Voila [0.1, 0.3, 0.2, 0.4]"]
)
def test_the_phrase_that_was_asked_for_names_the_box(folder, said):
    """In whatever words the answer comes."""
    [image], _ = mine(folder, [record([(REC.format("red cup"), said)])])
    assert image.annotations[0].label == "red cup"


@pytest.mark.parametrize(
    "label", ["box", "the box", "two boxes", "5", "box office", "man in the box", "left one"]
)
def test_boxes_and_numbers_may_be_what_is_in_the_picture(folder, label):
    [image], _ = mine(folder, [record([(REC.format(label), "[0.1, 0.3, 0.2, 0.4]")])])
    assert image.annotations[0].label == label


@pytest.mark.parametrize("asked", ["Answer briefly.", "<ref></ref>", "\nAnswer briefly."])
def test_an_instruction_alone_is_no_label(folder, asked):
    images, skipped = mine(folder, [record([(REC.format(asked), "[0.1, 0.3, 0.2, 0.4]")])])
    assert images == [] and skipped == {"no_phrase": 1}


@pytest.mark.parametrize(
    "phrase",
    [
        "man in no. 5 shirt", "St. Bernard", "guy that will answer the phone", "Be Happy sign", "boy < girl",
        "woman giving a report", "cat in the output image", "answer sheet on the table", "TV, left", "one on the left",  # noqa: E501
        "region near the door", "top - right one",
    ],
)  # fmt: skip
def test_a_phrase_with_dots_and_capitals_stays_whole(folder, phrase):
    [image], _ = mine(folder, [record([(REC.format(phrase), "[0.1, 0.3, 0.2, 0.4]")])])
    assert image.annotations[0].label == phrase.replace(" < ", " ")


def test_tags_of_an_answer_are_no_part_of_a_label(folder):
    [image], _ = mine(folder, [record([(REG.format("[0.5, 0.25, 1.0, 0.75]"), "<ref>Third person</ref>.")])])
    assert image.annotations[0].label == "Third person"


def test_one_picture_under_two_spellings_is_one(folder):
    records = [
        record([(REC.format("cup"), "[0.1, 0.3, 0.2, 0.4]")]),
        record([(REC.format("hat"), "[0.5, 0.3, 0.6, 0.4]")], image="./a.jpg"),
    ]
    [image], _ = mine(folder, records)
    assert [annotation.label for annotation in image.annotations] == ["cup", "hat"]


def test_a_few_boxes_or_square_pictures_decide_nothing(folder, capfd):
    mine(folder, boxed(folder, "square", count=10), llava("pad"))
    assert "too few to tell" in capfd.readouterr().err
    mine(folder, boxed(folder, "square", (70, 70)), llava("pad"))
    mine(folder, boxed(folder, "square", (100, 50)), ferret())
    assert "too few" not in capfd.readouterr().err


def test_questions_about_a_region_that_ask_no_description_name_nothing(folder):
    images, _ = mine(folder, [record([("Is the thing in [0.1, 0.3, 0.2, 0.4] a dog?", "Yes.")])])
    assert images == []


def test_a_data_file_that_is_no_list_is_refused(folder):
    with pytest.raises(UserError, match="--data_path .*data.json"):
        mine(folder, {"records": []})
