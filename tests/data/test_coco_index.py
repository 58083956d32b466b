"""The index finds what ``json.load`` finds, wherever the chunks end, and is made again only for another
file.
"""

import json
import os
import subprocess
import sys
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.data import coco_index, record_stream
from spr_plugin.data.annotations import CocoImages
from spr_plugin.data.coco_index import CocoIndex
from spr_plugin.errors import UserError
from spr_plugin.recipes.spr.regions import region_queries

TEXT = st.text(st.sampled_from('ab{}[]",:\\ \n\u00e9\u4e2d/'), max_size=6) | st.just('"image_id": 3}')
IDS = st.integers(-3, 9) | st.sampled_from(["3", "\u00e9", "x}"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=5,
)
RECORDS = st.dictionaries(TEXT.filter(lambda key: key != "image_id"), VALUES, max_size=3)
ANNOTATIONS = st.lists(
    st.tuples(RECORDS, IDS | st.none(), st.booleans()).map(
        lambda row: {"image_id": row[1], **row[0]} if row[2] else {**row[0], "image_id": row[1]}
    )
    | VALUES,
    max_size=8,
)


def usable(record, skipped) -> str:
    """Its name, or one for each id."""
    known = isinstance(record, dict) and isinstance(record.get("id"), (int, str))
    return record.get("file_name") or f"{record['id']!r}.png" if known else ""


def same(a, b) -> bool:
    return json.dumps(a) == json.dumps(b)  # NaN is NaN


@given(
    images=st.lists(IDS, max_size=5),
    annotations=ANNOTATIONS,
    other=VALUES,
    order=st.permutations(["images", "annotations", "categories", "info"]),
    ascii=st.booleans(),
    indent=st.sampled_from([None, 1]),
    chunk=st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_it_reads_what_json_reads(tmp_path_factory, images, annotations, other, order, ascii, indent, chunk):
    parts = {
        "images": [{"id": id, "n": n} for n, id in enumerate(images)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "\u00e9{"}],
        "info": other,
    }
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(
        json.dumps({key: parts[key] for key in order}, ensure_ascii=ascii, indent=indent), encoding="utf-8"
    )
    content = json.loads(file.read_text(encoding="utf-8"))
    skipped = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_stream, "CHUNK", chunk)
        index = CocoIndex(str(file), usable, skipped)
    by_id = {record["id"]: record for record in content["images"]}
    assert index.ids == list(by_id) and same(index.categories, content["categories"])
    assert skipped["duplicate_image_id"] == len(images) - len(by_id)
    owned = 0
    for id, record in by_id.items():
        rows = [
            row
            for row in content["annotations"]
            if isinstance(row, dict) and type(row.get("image_id")) is type(id) and row["image_id"] == id
        ]
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


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [',
        '{"images": [{"id": 1}',
        '{"images": [{"id": 1} {',
        '{"images": [], "annotations": [}',
        '{"a" 1}',
        '{"images": [], "categories": [], "annotations": [{"image_id": 3, ]}]}',
    ],
)
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
    boxes = [
        {"id": 10 * image + n, "image_id": image, "category_id": 1, "bbox": [n, n, box, box]}
        for image in images
        for n in range(6)
    ]
    records = [{"id": id, "width": 64, "height": 64, "file_name": f"{id}.png"} for id in images]
    path.write_text(
        json.dumps({"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]})
    )
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
    queries = list(
        region_queries(CocoImages(file, str(tmp_path), skipped), seed=3, limit=10, skipped=skipped)
    )
    assert len(queries) == 10 and 0 < skipped["missing_image"] < 40
    whole = Counter()
    everything = region_queries(list(CocoImages(file, str(tmp_path), whole)), seed=3, limit=10, skipped=whole)
    assert [query.id for query in everything] == [query.id for query in queries] and whole[
        "missing_image"
    ] == 100


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "zeroed": lambda data: bytes(len(data)),
    "its header": lambda data: b"no index" + data[8:],
    "one bit of a page": lambda data: flipped(data, len(data) - 9),
    "one bit of a place": lambda data: flipped(data, data.rindex(b"cat")),
    "longer": lambda data: data + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_named_and_made_again(tmp_path, kept, capsys, damage):
    file = written(tmp_path / "coco.json", range(40))
    sound = CocoIndex(file, usable, Counter())
    rows = sound.annotations(7)
    (index,) = kept.iterdir()
    whole = index.read_bytes()
    index.write_bytes(DAMAGES[damage](whole))
    capsys.readouterr()
    again = CocoIndex(file, usable, Counter())
    assert again.ids == sound.ids and again.annotations(7) == rows != []
    assert again.categories == sound.categories
    err = capsys.readouterr().err
    assert f"{index}, the index of {file}, is damaged and is made again" in err and err.count("indexing") == 1
    (index,) = kept.iterdir()
    assert index.read_bytes() == whole
    CocoIndex(file, usable, Counter())
    assert capsys.readouterr().err == ""


def test_two_containers_on_one_cache_do_not_meet(tmp_path, kept, monkeypatch):
    """Each is process 1 of its own; both are in the middle of their index at once."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    both, build, found = threading.Barrier(2), coco_index._built, []

    def built(db, *args):
        both.wait(10)
        db = build(db, *args)
        both.wait(10)
        return db

    monkeypatch.setattr(coco_index, "_built", built)
    file = written(tmp_path / "coco.json", range(4))
    runs = [
        threading.Thread(target=lambda: found.append(CocoIndex(file, usable, Counter()).ids)) for _ in "ab"
    ]
    [run.start() for run in runs], [run.join(20) for run in runs]
    assert found == [list(range(4))] * 2 and len(list(kept.iterdir())) == 1


@pytest.mark.parametrize("ids", [[3, 1, 2**62, -5], ["b", "a"], [7, "7", "\u00e9", 0]])
def test_ids_of_any_kind_are_kept_in_the_files_order(tmp_path, kept, ids):
    records = [{"id": id, "file_name": f"{n}.png", "width": 9, "height": 9} for n, id in enumerate(ids)]
    boxes = [{"image_id": id, "n": n} for n in range(3) for id in reversed(ids)]
    file = tmp_path / "coco.json"
    file.write_text(json.dumps({"annotations": boxes, "categories": [], "images": records}))
    for _ in "made", "opened":
        index, images = CocoIndex(str(file), usable, Counter()), CocoImages(str(file), "", Counter())
        assert index.ids == ids and list(index.ids) == ids and index.ids[-1] == ids[-1]
        assert index.ids[1:] == ids[1:] and index.ids != ids[1:] and index.ids != [*ids[1:], ids[0]]
        assert list(images.ids) == list(map(str, ids)) and images.ids[1] == str(ids[1])
        for id in ids:
            assert index.annotations(id) == [{"image_id": id, "n": n} for n in range(3)]
    assert len(list(kept.iterdir())) == 1


@given(place=st.integers(0, 400), chunk=st.sampled_from([1, 7, 1 << 20]))
def test_a_file_that_was_cut_anywhere_is_refused(tmp_path_factory, place, chunk):
    file = tmp_path_factory.getbasetemp() / "cut.json"
    written(file, range(2))
    whole = file.read_bytes()
    file.write_bytes(whole[: place * len(whole) // 401])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_stream, "CHUNK", chunk)
        with pytest.raises(UserError, match="not JSON|has no 'images' list"):
            CocoIndex(str(file), usable, Counter())


def test_a_change_between_two_looks_at_a_large_file_is_seen(tmp_path, kept):
    """Of more than 4 MB some blocks are compared, and the time of the last change."""
    file = tmp_path / "coco.json"
    text = json.dumps({"info": ["x" * (5 << 20), 1], **json.loads(open(written(file, range(2))).read())})
    for box in 10, 20:
        file.write_text(text.replace("10, 10]", f"{box}, {box}]"))
        assert CocoIndex(str(file), usable, Counter()).annotations(1)[0]["bbox"] == [0, 0, box, box]


def test_an_interrupted_index_leaves_nothing(tmp_path, kept):
    def interrupted(record, skipped):
        if record["id"] == 2:
            raise KeyboardInterrupt
        return usable(record, skipped)

    file = written(tmp_path / "coco.json", range(4))
    with pytest.raises(KeyboardInterrupt):
        CocoIndex(file, interrupted, Counter())
    assert not list(kept.iterdir())
    assert CocoIndex(file, usable, Counter()).ids == list(range(4))


IN_A_PROCESS = """
import os, re, signal, sys
from collections import Counter
from types import SimpleNamespace
from spr_plugin.data import coco_index
from spr_plugin.data.annotations import CocoImages
from spr_plugin.recipes.spr.regions import shuffled

coco_index.KEPT_BYTES = 0
"""
KILLED = """
coco_index._summed = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)  # written, and not named yet
CocoImages(sys.argv[1], "", Counter())
"""
MEMORY = """
coco_index.CHUNK = coco_index.RecordStream.__init__.__globals__["CHUNK"] = 1 << 16
coco_index.SCHEMA = re.sub(r"cache_size = -\\d+", "cache_size = -512", coco_index.SCHEMA)
for _ in "made", "opened":
    ids = CocoImages(sys.argv[1], "", Counter()).ids
    next(shuffled(SimpleNamespace(ids=ids, image=ids.__getitem__), 0))
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def process(code: str, file) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS + code, str(file)], capture_output=True, text=True
    )


def test_an_index_whose_maker_was_killed_is_not_taken_for_whole(tmp_path, kept, capsys):
    file = written(tmp_path / "coco.json", range(4))
    assert process(KILLED, file).returncode < 0
    (left,) = kept.iterdir()
    assert left.suffix == ".tmp" and left.stat().st_size
    assert CocoIndex(file, usable, Counter()).ids == list(range(4))
    assert "indexing" in capsys.readouterr().err and len(list(kept.glob("*.sqlite"))) == 1


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux says what a process held at most")
def test_memory_does_not_grow_with_the_file(tmp_path, kept, objects365):
    """Some 80 bytes a picture, while it is indexed, opened and put in order, where SQLite has half a megabyte
    for its pages; lists of ids took 340.
    """
    held = []
    for images in 1_000, 31_000:
        objects365(tmp_path / "coco.json", images, images)
        told = process(MEMORY, tmp_path / "coco.json")
        assert not told.returncode, told.stderr
        held.append(1024 * int(told.stdout))
    assert held[1] - held[0] < 150 * 30_000


@pytest.mark.parametrize("start", ["\ufeff", "\ufeff \n", " "])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path, start):
    file = tmp_path / "coco.json"
    file.write_bytes(start.encode() + (tmp_path / written(tmp_path / "plain.json", range(3))).read_bytes())
    plain, marked = (CocoIndex(str(path), usable, Counter()) for path in (tmp_path / "plain.json", file))
    assert marked.ids == plain.ids == [0, 1, 2] and marked.annotations(1) == plain.annotations(1)
    assert marked.images(2) == plain.images(2)


def test_half_a_character_in_labels_names_and_ids(tmp_path):
    """And two halves that belong together are one."""
    file = tmp_path / "coco.json"
    file.write_text(
        r'{"images": [{"id": "\ud83d", "file_name": "\ud83d.png"}, {"id": "\ud83d\ude00", "n": 1}], '
        r'"annotations": [{"image_id": "\ud83d", "label": "\ude00 \\ud83d"}], '
        r'"categories": [{"name": "cat \ud83d"}]}'
    )
    index = CocoIndex(str(file), usable, Counter())
    assert index.ids == ["\ufffd", "\U0001f600"] and index.categories == [{"name": "cat \ufffd"}]
    assert index.images("\ufffd") == [{"id": "\ufffd", "file_name": "\ufffd.png"}]
    assert index.annotations("\ufffd") == [{"image_id": "\ufffd", "label": "\ufffd \\ud83d"}]


def test_a_number_of_thousands_of_digits_is_no_traceback(tmp_path):
    file, many = tmp_path / "coco.json", "9" * 5000
    file.write_text(
        f'{{"images": [{{"id": 1, "width": {many}, "n": 1e999}}, {{"id": {many}}}], "categories": [{{"id":'
        f' {many}}}], "annotations": [{{"image_id": 1, "bbox": [{many}, 1, 2, -{many}]}}]}}'
    )
    index = CocoIndex(str(file), usable, Counter())
    assert index.ids == [1] and index.images(1)[0]["width"] == index.images(1)[0]["n"] == float("inf")
    assert index.annotations(1)[0]["bbox"] == [float("inf"), 1, 2, -float("inf")]
