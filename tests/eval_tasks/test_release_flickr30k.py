"""Flickr30k Entities: XML of boxes and sentences with marks."""

import time
from collections import Counter

import pytest

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import release_flickr30k, releases
from tests.eval_tasks.releasing import SENTENCES, XML, documents, picture


@pytest.mark.parametrize(
    "part, broken, why",
    [
        ("<width>100</width>", "<width/>", "size/width"),
        ("<size>", "<measure>", "mismatched tag"),
        ("<xmin>1</xmin>", "<xmin></xmin>", "xmin"),
        ("<xmin>1</xmin>", "<xmin>one</xmin>", "one"),
        ("<ymax>80</ymax>", "", "ymax"),
        ("<ymax>80</ymax>", f"<ymax>1{'0' * 400}</ymax>", "too large"),
        ("<name>11</name>", "<name/>", "name"),
    ],
)
def test_broken_entities_are_a_line(tmp_path, part, broken, why):
    (tmp_path / "7.xml").write_text(XML.replace(part, broken, 1))
    with pytest.raises(UserError, match=f"7.xml: not an Entities XML.*{why}"):
        release_flickr30k.read_entities(tmp_path / "7.xml", Counter())


def test_flickr30k_entities(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "Annotations/7.xml").write_text(XML)
    (tmp_path / "Sentences/7.txt").write_text(SENTENCES)
    (tmp_path / "val.txt").write_text("7\n")
    picture(tmp_path / "flickr30k-images/7.jpg")
    releases.convert("flickr30k", str(tmp_path), str(tmp_path / "root"))
    first, second = documents(tmp_path / "root", "spr_flickr30k_val")
    assert first["caption"] == "A man and two dogs in a park , it seems ." and second["id"] == "7_2"
    man, dogs = first["phrases"]
    # The XML counts from 1.
    assert (man["id"], man["phrase"], man["boxes"]) == ("7_0_0", "A man", [[0.0, 10.0, 49.0, 79.0]])
    assert dogs["id"] == "7_0_1" and dogs["boxes"] == [[0.0, 10.0, 49.0, 79.0], [59.0, 10.0, 89.0, 39.0]]


@pytest.mark.parametrize(
    "encode",
    [lambda text: text.encode("utf-8-sig"), lambda text: text.replace("\n", "\r\n").encode("utf-16")],
)
def test_captions_are_read_however_they_are_saved(tmp_path, encode):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "Annotations/7.xml").write_text(XML)
    (tmp_path / "Sentences/7.txt").write_bytes(
        encode("\n" + SENTENCES.replace("A man", "A\u2028man") + "\n\n")
    )
    (tmp_path / "val.txt").write_bytes(encode("7\n"))
    picture(tmp_path / "flickr30k-images/7.jpg")
    releases.convert("flickr30k", str(tmp_path), str(tmp_path / "root"))
    first, second = documents(tmp_path / "root", "spr_flickr30k_val")
    assert (first["id"], second["id"]) == ("7_1", "7_3") and first["phrases"][0]["phrase"] == "A\u2028man"


def test_a_caption_of_open_brackets_is_read_in_time(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "Annotations/7.xml").write_text(XML)
    start = time.perf_counter()
    for text in (
        "[/EN#11/a " * 10_000,
        "[/EN#11/" * 12_000,
        "[/EN#11/a" + "b" * 100_000 + " ",
        "[/EN#" + "1" * 100_000,
    ):
        (tmp_path / "Sentences/7.txt").write_text(text)
        assert list(release_flickr30k.captions(tmp_path, "7", Counter())) == []
    assert time.perf_counter() - start < 1
