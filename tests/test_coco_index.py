"""The index finds what ``json.load`` finds, wherever the chunks end, and is made again only for another file."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin import coco_index
from spr_plugin.annotations import CocoImages
from spr_plugin.coco_index import CocoIndex
from spr_plugin.errors import UserError
from spr_plugin.regions import region_queries

TEXT = st.text(st.sampled_from('ab{}[]",:\\ \n\u00e9\u4e2d/'), max_size=6) | st.just('"image_id": 3}')
IDS = st.integers(-3, 9) | st.sampled_from(["3", "\u00e9", "x}"])
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2), max_leaves=5)
RECORDS = st.dictionaries(TEXT.filter(lambda key: key != "image_id"), VALUES, max_size=3)
ANNOTATIONS = st.lists(st.tuples(RECORDS, IDS | st.none(), st.booleans()).map(lambda row: {"image_id": row[1], **row[0]} if row[2] else {**row[0], "image_id": row[1]}) | VALUES, max_size=8)


def usable(record, skipped) -> str:
    """A name of its own for each record with an id."""
    known = isinstance(record, dict) and isinstance(record.get("id"), (int, str))
    return record.get("file_name") or f"{record.get('n')}.png" if known else ""


def same(a, b) -> bool:
    return json.dumps(a) == json.dumps(b)  # NaN is NaN


@given(images=st.lists(IDS, max_size=5), annotations=ANNOTATIONS, other=VALUES, order=st.permutations(["images", "annotations", "categories", "info"]),
       ascii=st.booleans(), indent=st.sampled_from([None, 1]), chunk=st.sampled_from([1, 7, 64, 1 << 20]))  # fmt: skip
def test_it_reads_what_json_reads(tmp_path_factory, images, annotations, other, order, ascii, indent, chunk):
    parts = {"images": [{"id": id, "n": n} for n, id in enumerate(images)], "annotations": annotations, "categories": [{"id": 1, "name": "\u00e9{"}], "info": other}
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps({key: parts[key] for key in order}, ensure_ascii=ascii, indent=indent), encoding="utf-8")
    content = json.loads(file.read_text(encoding="utf-8"))
    skipped = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_index, "CHUNK", chunk)
        index = CocoIndex(str(file), usable, skipped)
    by_id = {record["id"]: record for record in content["images"]}
    assert index.ids == list(by_id) and same(index.categories, content["categories"])
    assert skipped["duplicate_image_id"] == len(images) - len(by_id)
    owned = 0
    for id, record in by_id.items():
        rows = [row for row in content["annotations"] if isinstance(row, dict) and type(row.get("image_id")) is type(id) and row["image_id"] == id]
        assert same(index.images(id), [record]) and same(index.annotations(id), rows)
        owned += len(rows)
    assert skipped["unknown_image"] == len(annotations) - owned


@given(names=st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join), max_size=6))
def test_names_and_tails_are_those_of_the_records(tmp_path_factory, names):
    records = [{"id": id, "file_name": name} for id, name in enumerate(names)]
    file = tmp_path_factory.getbasetemp() / "names.json"
    file.write_text(json.dumps({"images": records, "annotations": [], "categories": []}))
    index = CocoIndex(str(file), usable, Counter())
    firsts = [names.index(name) for name in dict.fromkeys(names)]
    assert index.ids == firsts and index.again == len(names) - len(firsts)
    for id, name in enumerate(names):
        assert index.images(id) == [record for record in records if record["file_name"] == name]
        assert index.named(f"./{name}") == names.index(name)
        for tail in ("a", "b", "a/b", "a/a/b"):
            others = [other for other in names if other != name]
            assert index.shared(name, tail) == any(f"/{other}".endswith(f"/{tail}") for other in others)
    assert index.named("c") is None


@pytest.mark.parametrize("text", ['{"images": [', '{"images": [{"id": 1}', '{"images": [{"id": 1} {', '{"images": [], "annotations": [}', '{"a" 1}', '{"images": [], "categories": [], "annotations": [{"image_id": 3, ]}]}'])
def test_broken_json_is_refused_with_its_place(tmp_path, text):
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(UserError, match=r"--spr_annotations .*broken\.json: not JSON \(.*byte"):
        index = CocoIndex(str(tmp_path / "broken.json"), usable, Counter())
        index.annotations(3)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Every index is kept, in a cache folder of the test's; the folder."""
    monkeypatch.setattr(coco_index, "KEPT_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spr_plugin"


def written(path, images, box=10):
    boxes = [{"id": 10 * image + n, "image_id": image, "category_id": 1, "bbox": [n, n, box, box]} for image in images for n in range(6)]
    records = [{"id": id, "width": 64, "height": 64, "file_name": f"{id}.png"} for id in images]
    path.write_text(json.dumps({"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}))
    return str(path)


def test_a_kept_index_is_opened_again_and_made_again_for_another_content(tmp_path, kept, monkeypatch, capsys):
    file = written(tmp_path / "coco.json", range(4))
    first = CocoIndex(file, usable, Counter())
    assert "indexing" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(coco_index, "_built", None)
        again = CocoIndex(file, usable, Counter())
    assert again.ids == first.ids and again.annotations(2) == first.annotations(2)
    written(tmp_path / "coco.json", range(5))
    assert CocoIndex(file, usable, Counter()).ids == list(range(5))
    assert len(list(kept.iterdir())) == 2 and not list(tmp_path.glob("*.sqlite"))


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path, kept):
    kept.parent.write_text("a file")
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        CocoIndex(written(tmp_path / "coco.json", range(2)), usable, Counter())


def test_only_sampled_pictures_are_touched(tmp_path):
    """Of 200 pictures without files, as many are looked at as regions are wanted and pictures exist."""
    from PIL import Image

    file = written(tmp_path / "coco.json", range(200))
    for id in range(0, 200, 2):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{id}.png")
    skipped = Counter()
    queries = list(region_queries(CocoImages(file, str(tmp_path), skipped), seed=3, limit=10, skipped=skipped))
    assert len(queries) == 10 and 0 < skipped["missing_image"] < 40
    whole = Counter()
    everything = region_queries(list(CocoImages(file, str(tmp_path), whole)), seed=3, limit=10, skipped=whole)
    assert [query.id for query in everything] == [query.id for query in queries] and whole["missing_image"] == 100
