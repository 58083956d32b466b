"""Which picture files are opened, how large they may be and where they may lie, up to the commands."""

import io
import json
import os
import socket
import struct
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from spr_plugin.cli import commands
from spr_plugin.config import SPRConfig
from spr_plugin.data import pictures
from spr_plugin.data.annotations import CocoImages
from spr_plugin.data.conversations import mine_conversations
from spr_plugin.data.pictures import BadImage, image_size, limit_pixels, open_image, outside_of, prefetch
from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.formats import llava
from spr_plugin.hookspecs import hookimpl
from spr_plugin.plugins import manager
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import Log

SIDES = (90, 60)


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    """Both limits are this process's: what a test sets ends with it."""
    monkeypatch.setattr(pictures, "_max_pixels", pictures.MAX_PIXELS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


# --- which files are opened

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 90 60
%%EndComments
(a.txt) (w) file showpage
%%EOF
"""
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
WMF = struct.pack("<IhhhhhHIH", 0x9AC6CDD7, 0, 0, 0, 1440, 960, 1440, 0, 0) + b"\1\0\x09\0\0\3" + bytes(20)
CARDS = {"SIMPLE": "T", "BITPIX": "8", "NAXIS": "2", "NAXIS1": "90", "NAXIS2": "60"}
CARDS = "".join(f"{name:8}= {value:>20}".ljust(80) for name, value in CARDS.items()) + "END"
FITS = CARDS.encode().ljust(2880) + bytes(90 * 60)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60"/>'
CONTENTS = {"eps": EPS, "pdf": PDF, "svg": SVG, "wmf": WMF, "fits": FITS, "empty": b"", "zeros": bytes(5000)}


def no_picture(kind: str, path: Path) -> None:
    """What stands under a picture's name and is none."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(CONTENTS[kind])


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "loop", "directory", *CONTENTS])
def test_what_is_no_picture_is_neither_read_nor_waited_for(tmp_path, kind):
    path = str(tmp_path / "a.jpg")
    no_picture(kind, Path(path))
    assert image_size(path) == "unreadable_image"
    with pytest.raises(BadImage, match=r"^record 7: cannot read .*a\.jpg \(.+\); mend or remove") as caught:
        open_image(path, "7")
    assert caught.value.reason == "unreadable_image" and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a\0b.jpg", "\ud800.jpg", "x" * 5000])
def test_names_that_no_file_can_have(tmp_path, name):
    assert image_size(f"{tmp_path}/{name}") == "unreadable_image"


def rgb(seed=0):
    return Image.fromarray(np.random.RandomState(seed).randint(0, 255, (*SIDES[::-1], 3), dtype=np.uint8))


SEVERAL = {"save_all": True, "append_images": [rgb(1)]}
SAVED = {
    "JPEG": {}, "PNG": {}, "WEBP": {}, "BMP": {}, "PPM": {}, "JPEG2000": {},
    "TIFF": {"compression": "tiff_lzw"}, "MPO": SEVERAL, "GIF": SEVERAL,
}  # fmt: skip


@pytest.mark.parametrize("form", SAVED)
def test_formats_of_training_data_are_read_as_hosts_read_them(tmp_path, form):
    """Under any name; the first picture of an animation."""
    path = str(tmp_path / "a.dat")
    rgb().save(path, form, **SAVED[form])
    with Image.open(path) as theirs:
        assert open_image(path, "7").tobytes() == theirs.convert("RGB").tobytes()
    assert image_size(path) == SIDES


@pytest.mark.parametrize("mode, form", [("CMYK", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("1", "TIFF")])
def test_modes_are_read_as_hosts_read_them(tmp_path, mode, form):
    path = str(tmp_path / "a.jpg")
    rgb().convert(mode).save(path, form)
    with Image.open(path) as theirs:
        assert open_image(path).tobytes() == theirs.convert("RGB").tobytes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_damaged_is_a_bad_image(tmp_path, seed):
    """Cut and with wrong bytes, of every format: read or refused, never another exception."""
    random, path = np.random.RandomState(seed), tmp_path / "a.jpg"
    limit_pixels(10**6)
    for form, settings in SAVED.items():
        buffer = io.BytesIO()
        rgb().save(buffer, form, **settings)
        for _ in range(25):
            data = bytearray(buffer.getvalue())
            for offset in random.randint(0, min(len(data), random.choice([60, 400, 10**6])), 3):
                data[offset] = random.choice([0, 127, 255, random.randint(256)])
            path.write_bytes(data[: random.choice([len(data), random.randint(1, len(data))])])
            try:
                assert open_image(str(path)).mode == "RGB"
            except BadImage:
                pass
            image_size(str(path))


# --- how large they may be


def header_of(width: int, height: int) -> bytes:
    """A PNG whose header states this size, with next to no data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header_and_a_flag_admits_it(tmp_path):
    path = str(tmp_path / "bomb.png")
    Path(path).write_bytes(header_of(40_000, 30_000))
    assert image_size(path) == "more_than_max_pixels"
    with pytest.raises(BadImage, match="1200000000 pixels"):
        open_image(path, "7")
    limit_pixels(1_199_999_999)
    assert image_size(path) == "more_than_max_pixels"
    with pytest.raises(BadImage, match="40000 x 30000: more than 1199999999 pixels"):
        open_image(path, "7")
    limit_pixels(1_200_000_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor does Pillow warn of what was asked for
        assert image_size(path) == (40_000, 30_000)


def test_pillow_s_own_limit_is_raised_with_ours_and_never_lowered(tmp_path, monkeypatch):
    """Crops ask for it too. What the host set for itself stays, unless the flag asks for more."""
    path = str(tmp_path / "a.png")
    rgb().save(path)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 2000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    limit_pixels(90 * 60)
    assert open_image(path).crop((0, 0, 90, 60)).size == SIDES
    limit_pixels(100)
    assert Image.MAX_IMAGE_PIXELS == 5400 and image_size(path) == "more_than_max_pixels"
    limit_pixels(2000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    limit_pixels(5400)
    assert Image.MAX_IMAGE_PIXELS is None and image_size(path) == SIDES


# --- where they may lie


@pytest.fixture
def world(tmp_path):
    """``images/`` with a picture in a folder, links of every kind, and pictures beside it."""
    inside, beside = tmp_path / "images", tmp_path / "images-of-others"
    (inside / "sub").mkdir(parents=True)
    beside.mkdir()
    for index, name in enumerate(("images/a.png", "images/sub/b.png", "images-of-others/c.png", "d.png")):
        rgb(index).save(tmp_path / name)
    (inside / "link.png").symlink_to(inside / "sub" / "b.png")
    (inside / "chain.png").symlink_to("link.png")
    (inside / "linked").symlink_to(inside / "sub")
    (inside / "secret.png").symlink_to(beside / "c.png")
    (inside / "others").symlink_to(beside)
    (inside / "out.png").symlink_to("others/c.png")
    (tmp_path / "folder").symlink_to(inside)
    return tmp_path


INSIDE = """a.png ./a.png sub/b.png sub/../a.png link.png chain.png linked/b.png others/../images/a.png
    {}/images/a.png""".split()
OUTSIDE = """../d.png sub/../../d.png ../images-of-others/c.png {}/d.png secret.png others/c.png out.png
    {}/images/secret.png""".split()
FOLDERS = ["{}/images", "{}/images/", "images", "./images/", "images/sub/..", "folder", "{}/folder/"]


def annotated(world, names) -> str:
    """A COCO file with five objects in each of these pictures."""
    images, rows = [], []
    for number, name in enumerate(names, 10):
        images.append({"id": number, "file_name": name.format(world), "width": 90, "height": 60})
        for index in range(5):
            row = {"id": len(rows), "image_id": number, "category_id": 1, "bbox": [16 * index, 10, 14, 20]}
            rows.append(row)
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cup"}]}
    (world / "coco.json").write_text(json.dumps(content))
    return str(world / "coco.json")


def conversations(world, names) -> str:
    """A --data_path that names five objects in each of these pictures."""
    boxes = [[round(0.16 * n, 2), 0.4, round(0.16 * n + 0.14, 2), 0.6] for n in range(5)]
    answer = "I see " + " and ".join(f"a cup {n} {box}" for n, box in enumerate(boxes)) + "."
    talk = [{"from": "human", "value": "<image>\nWhat is there?"}, {"from": "gpt", "value": answer}]
    records = [{"image": name.format(world), "conversations": talk} for name in names]
    (world / "data.json").write_text(json.dumps(records))
    return str(world / "data.json")


@pytest.fixture
def regions(world, write_queries):
    """``regions(names)`` → paths of the pictures that regions were made of."""

    def made(names, mined=False, folder="{}/images", into="spr", **flags) -> list[str]:
        given = {"spr_more_than": 3, **flags}
        if mined:
            data, host_folder = conversations(world, names), folder.format(world)
        else:
            data, host_folder = None, "/nowhere"
            given |= {"spr_annotations": annotated(world, names), "spr_image_folder": folder.format(world)}
        write_queries(Folder(world / into), SPRConfig(spr=True, **given), llava("pad"), data, host_folder)
        records = Log(world / into / "queries").read().values()
        return sorted(record["pictures"][0]["path"] for record in records)

    return made


@pytest.mark.parametrize("mined", [False, True])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_picture_outside_is_refused_by_name_and_a_flag_admits_it(world, name, mined, regions):
    record, path = name.format(world) if mined else "11", os.path.join(world / "images", name.format(world))
    with pytest.raises(UserError) as caught:
        regions(["a.png", name, "sub/b.png"], mined)
    line = str(caught.value)
    assert line.startswith(f"record {record}: {path} lies outside the pictures' folder {world}/images, at ")
    assert f" at {os.path.realpath(path)} (1 such pictures): " in line
    assert "--spr_allow_outside" in line and "--spr_image_folder" in line and "\n" not in line
    assert not (world / "spr" / "queries").exists()
    assert path in regions(["a.png", name, "sub/b.png"], mined, spr_allow_outside=True)


@pytest.mark.parametrize("mined", [False, True])
@pytest.mark.parametrize("folder", FOLDERS)
def test_pictures_inside_keep_the_path_that_they_were_named_by(world, folder, mined, monkeypatch, regions):
    """Whatever the folder is called, and with links within it."""
    monkeypatch.chdir(world)
    for number, name in enumerate(INSIDE):  # one by one: several of them are names of one file
        path = os.path.join(folder.format(world), name.format(world))
        assert regions([name], mined, folder, into=f"spr{number}") == [path]


def test_the_refusal_counts_pictures_not_regions(world, regions):
    with pytest.raises(UserError, match=r"^record 1[023]: .*\(3 such pictures\)"):
        names = ["../d.png", "a.png", "secret.png", "others/c.png"]
        regions(names, spr_regions_per_image=3, spr_more_than=1)


def test_only_pictures_that_are_used_are_looked_at(world, regions, capfd):
    """An annotation file may name what it likes: what no region is grown in is not refused."""
    assert regions(["a.png", "../gone.png", "{}/nowhere/x.png"]) == [f"{world}/images/a.png"]
    assert read_json(world / "spr" / "queries" / "counts.json") == {"missing_image": 2}
    assert f"missing_image 2: pictures were looked for in {world}/images, --spr" in capfd.readouterr().err
    (world / "val.txt").write_text("c.png\nsecret.png\n")
    flags = {"into": "second", "spr_exclude": [str(world / "val.txt")]}
    assert regions(["a.png", "others/c.png"], **flags) == [f"{world}/images/a.png"]


def test_a_name_as_it_was_on_another_machine_is_found_by_its_end(world, regions):
    """Objects365's way; where the name itself leads somewhere, that is the picture, and it lies outside."""
    assert regions(["/data/of/alice/sub/b.png"]) == [f"{world}/images/sub/b.png"]
    rgb().save(world / "a.png")
    with pytest.raises(UserError, match="lies outside"):
        regions(["../a.png"], into="second")


def test_regions_that_are_kept_are_looked_at_again(world, regions):
    """They were made with the flag, or by a version that did not look."""
    regions(["a.png", "secret.png"], spr_allow_outside=True)
    with pytest.raises(UserError, match="secret.png lies outside .*--spr_allow_outside"):
        regions(["a.png", "secret.png"])
    (world / "images" / "secret.png").unlink()
    rgb().save(world / "images" / "secret.png")
    regions(["a.png", "secret.png"])
    (world / "images" / "a.png").rename(world / "a.png")
    (world / "images" / "a.png").symlink_to(world / "a.png")
    with pytest.raises(UserError, match="a.png lies outside"):
        regions(["a.png", "secret.png"])


def test_a_plugin_s_pictures_are_looked_at_too(world, write_queries):
    from spr_plugin.plugins import load_file

    file = world / "lab.py"
    file.write_text(f"""
from spr_plugin.data.annotations import AnnotatedImage, CocoImages
from spr_plugin.hookspecs import hookimpl

@hookimpl
def spr_annotations(source, image_folder, skipped):
    if source == "lab":
        return iter(CocoImages({annotated(world, ["a.png", "others/c.png"])!r}, image_folder, skipped))
""")
    load_file(str(file))
    try:
        config = SPRConfig(spr=True, spr_more_than=3, spr_annotations="lab")
        with pytest.raises(UserError, match="record 11: .*others/c.png lies outside"):
            write_queries(Folder(world / "spr"), config, llava("pad"), None, str(world / "images"))
    finally:
        manager().unregister(name=str(file))


def test_folders_are_resolved_once(world, monkeypatch):
    seen, real = Counter(), os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **more: seen.update([path]) or real(path, **more))
    outside = outside_of(f"{world}/images")
    assert [outside(f"{world}/images/{name}") for name in ["a.png", "sub/b.png"] * 50] == [None] * 100
    assert seen == {f"{world}/images": 2, f"{world}/images/sub": 1}  # once as the folder of pictures
    assert outside("/etc/hostname") == real("/etc/hostname") and outside_of("/")("/etc/hostname") is None


@pytest.mark.parametrize("folder", ["{}/gone", "~/no such pictures", "{}/d.png"])
def test_a_folder_that_is_not_there_is_named_with_its_flag(world, folder, regions):
    with pytest.raises(UserError, match=f"^--spr_image_folder {folder.format(world)}: no such folder"):
        regions(["a.png"], folder=folder)
    with pytest.raises(UserError, match=f"^--image_folder {folder.format(world)}: no such folder"):
        regions(["a.png"], mined=True, folder=folder)


def test_a_host_without_a_folder_of_pictures(world, write_queries):
    with pytest.raises(UserError, match="^--image_folder: name the folder of the pictures"):
        write_queries(
            Folder(world / "spr"), SPRConfig(spr=True), llava("pad"), conversations(world, ["a.png"]), None
        )


@pytest.mark.timeout(60)
def test_what_is_no_picture_is_counted_and_the_rest_is_used(world, capfd, regions):
    for kind in ("fifo", "directory", "eps", "empty"):
        no_picture(kind, world / "images" / f"{kind}.jpg")
    (world / "images" / "bomb.png").write_bytes(header_of(40_000, 30_000))
    names = ["fifo.jpg", "directory.jpg", "a.png", "eps.jpg", "empty.jpg", "bomb.png"]
    for mined in (False, True):
        assert regions(names, mined, into=f"spr-{mined}") == [f"{world}/images/a.png"]
        counts = read_json(world / f"spr-{mined}" / "queries" / "counts.json")
        assert counts == {"unreadable_image": 4, "more_than_max_pixels": 1}
        line = "1 pictures of more than 178956970 pixels are left out; --spr_max_pixels raises the limit"
        assert line in capfd.readouterr().err


def test_a_source_that_gives_nothing_binds_nothing(world, regions):
    """What was missing is put back, and the same command goes on."""
    with pytest.raises(
        UserError, match=r"--spr_annotations .* gives no usable region \(missing_image 1\)"
    ) as none:
        regions(["later.png"])
    assert f"pictures were looked for in {world}/images, --spr_image_folder names" in str(none.value)
    rgb().save(world / "images" / "later.png")
    assert regions(["later.png"]) == [f"{world}/images/later.png"]


# --- the commands


def sample(world, names, url, *flags):
    """``spr sample`` in this process; the paths of its regions."""
    words = f"""sample --out {world}/c --spr_annotations {annotated(world, names)} --spr_box_format llava
        --spr_image_folder {world}/images --spr_more_than 3 --spr_sampler_url {url}"""
    commands([*words.split(), *flags], standalone_mode=False)
    return sorted(record["pictures"][0]["path"] for record in Log(world / "c" / "queries").read().values())


def test_nothing_from_outside_is_sent_to_a_server(world, chat_server):
    with chat_server.ChatServer() as server:
        with pytest.raises(UserError, match="record 11: .*secret.png lies outside .*--spr_allow_outside"):
            sample(world, ["a.png", "secret.png"], server.url)
        with pytest.raises(UserError, match="lies outside"):
            sample(world, ["a.png", "secret.png"], server.url, "--spr_allow_outside", "False")
        assert server.count == 0
        sample(world, ["a.png", "secret.png"], server.url, "--spr_allow_outside")
        assert server.count == 2 * 3 * 2
        with pytest.raises(UserError, match="lies outside"):
            sample(world, ["a.png", "secret.png"], server.url)
        assert server.count == 2 * 3 * 2


def test_the_limit_binds_what_was_sampled_under_it(world, capfd, chat_server):
    Image.new("RGB", (90, 61)).save(world / "images" / "a.png")
    file = annotated(world, ["a.png", "sub/b.png"])
    content = json.loads(Path(file).read_text())
    content["images"][0]["height"] = 61
    with chat_server.ChatServer() as server:
        flags = ["--spr_annotations", str(world / "both.json"), "--spr_max_pixels", "5400"]
        (world / "both.json").write_text(json.dumps(content))
        assert sample(world, ["a.png"], server.url, *flags) == [f"{world}/images/sub/b.png"]
        assert "1 pictures of more than 5400 pixels are left out; --spr_max_pixels" in capfd.readouterr().err
        sample(world, ["a.png"], server.url, *flags[:-1], "5490")


class Silent:
    """A scorer that says the same of everything: what is scored is another test's."""

    def score(self, picture, descriptions):
        terms = dict.fromkeys(("s_crop", "s_local", "s_sem", "s_loc"), 0.1)
        return [(terms, 0.1)] * len(descriptions)


class SilentPlugin:
    @hookimpl
    def spr_scorer(self, config, device):
        return Silent()


@pytest.fixture
def silent():
    """The scorer of every request is a silent one."""
    manager().register(SilentPlugin(), "silent")
    yield
    manager().unregister(name="silent")


def score(world, names, asked, *flags, folder="{}/images") -> list[dict]:
    """``spr score`` in this process."""
    same = {"region": [0, 0, 90, 60], "text": "a cup"}
    rows = [{"id": n, "image": name.format(world), **same} for n, name in enumerate(asked)]
    (world / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = f"""score --annotations {annotated(world, names)} --images {folder.format(world)}
        --box-format llava --responses {world}/in.jsonl --clip none --out {world}/out.jsonl"""
    commands([*words.split(), *flags], standalone_mode=False)
    return [json.loads(line) for line in (world / "out.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", OUTSIDE)
def test_spr_score_refuses_pictures_outside(world, silent, name):
    with pytest.raises(UserError) as caught:
        score(world, ["a.png", name], ["a.png", name])
    path = os.path.join(world / "images", name.format(world))
    line = str(caught.value)
    assert line.startswith(f"record 11: {path} lies outside the pictures' folder {world}/images, at ")
    assert "--allow-outside" in line and "--spr" not in line and not (world / "out.jsonl").exists()
    assert len(score(world, ["a.png", name], ["a.png", name], "--allow-outside")) == 2
    assert len(score(world, ["a.png", name], ["a.png"])) == 1


@pytest.mark.parametrize("folder", ["images", "{}/folder/", "./images"])
def test_spr_score_finds_pictures_by_any_of_their_names(world, silent, monkeypatch, folder):
    monkeypatch.chdir(world)
    asked = ["a.png", "sub/b.png", "sub/../link.png", "./linked/b.png"]
    names = ["./a.png", "sub//b.png", "link.png", "linked/b.png"]
    assert len(score(world, names, asked, folder=folder)) == 4
    assert (
        len(
            score(
                world,
                ["a.png"],
                [os.path.join(folder.format(world), "a.png") if "{" in folder else f"{world}/images/a.png"],
                folder=folder,
            )
        )
        == 1
    )
    with pytest.raises(UserError, match="/of/alice/linked/b.png is not in --annotations"):
        score(world, names, ["/of/alice/linked/b.png"], folder=folder)
    if folder != "{}/folder/":
        assert len(score(world, ["{}/images/a.png"], ["a.png"], folder=folder)) == 1


def test_spr_score_names_what_was_left_out_and_the_flag_of_its_limit(world, silent, capfd):
    no_picture("eps", world / "images" / "e.jpg")
    words = r"response 0: e.jpg of --annotations .* cannot be used \(unreadable_image 1\)"
    with pytest.raises(UserError, match=words):
        score(world, ["a.png", "e.jpg"], ["e.jpg"])
    with pytest.raises(UserError, match=r"more_than_max_pixels 1\)"):
        score(world, ["a.png"], ["a.png"], "--max-pixels", "5399")
    assert "1 pictures of more than 5399 pixels are left out; --max-pixels raises" in capfd.readouterr().err
    assert len(score(world, ["a.png"], ["a.png"], "--max-pixels", "5400")) == 1
    with pytest.raises(UserError, match="^--images .*gone: no such folder"):
        score(world, ["a.png"], ["a.png"], folder="{}/gone")


def test_sources_of_annotations_read_what_they_read_before(world):
    """Without regions, too: what a plugin reads."""
    skipped = Counter()
    images = list(CocoImages(annotated(world, ["a.png", "sub/b.png"]), str(world / "images"), skipped))
    data = conversations(world, ["a.png"])
    mined = list(mine_conversations(data, str(world / "images"), llava("pad"), skipped))
    names = [os.path.relpath(image.path, world / "images") for image in (*images, *mined)]
    assert names == ["a.png", "sub/b.png", "a.png"] and not skipped


# --- what Pillow stumbles over ----------------------------------------------------------------------------


def jpeg_2000(box: int) -> bytes:
    """A picture whose header box says that it is so long; 1 means that the length follows, here of
    exabytes.
    """
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "JPEG2000")
    content = buffer.getvalue()
    offset = content.index(b"jp2h") - 4
    return content[:offset] + struct.pack(">I", box) + content[offset + 4 :]


def tiff(kind: int, count: int = 1) -> bytes:
    """A grey picture whose pixels lie at an offset of that TIFF type, which is no whole number."""
    tags = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, kind, count, 7), (277, 3, 1, 1), (278, 4, 1, 10), (279, 4, 1, 100)]
    rows = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(600)


STUMBLES = {
    "a box of exabytes": (jpeg_2000(1), True),
    "an offset that is a fraction": (tiff(11), False),
    "an offset that is a text": (tiff(2), False),
    "an offset that is bytes": (tiff(7, 2), False),
    "an offset that is a ratio": (tiff(10), False),
}


@pytest.mark.parametrize("what", STUMBLES)
def test_whatever_a_broken_picture_makes_pillow_raise_it_is_counted(tmp_path, what):
    content, in_header = STUMBLES[what]
    (tmp_path / "a.png").write_bytes(content)
    size = pictures.image_size(str(tmp_path / "a.png"))
    assert size == ("unreadable_image" if in_header else (10, 10))
    with pytest.raises(BadImage, match="record 7: cannot read .*a.png ") as broken:
        open_image(str(tmp_path / "a.png"), "7")
    assert broken.value.reason == "unreadable_image"


def test_a_user_s_mistake_inside_is_no_broken_picture(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="^mine$"), pictures.opened(str(tmp_path / "a.png")):
        raise UserError("mine")


def test_half_a_picture_is_none_whatever_the_process_lets_pass(tmp_path, monkeypatch):
    """lmms-eval has Pillow fill up what is missing, for whoever opens pictures in its process."""
    whole = io.BytesIO()
    Image.effect_noise((100, 60), 50).convert("RGB").save(whole, "JPEG")
    half = whole.getvalue()[: len(whole.getvalue()) // 2]
    (tmp_path / "half.jpg").write_bytes(half)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for source in (half, {"bytes": half, "path": None}, str(tmp_path / "half.jpg")):
        for read in (open_image, pictures.whole_size):
            with pytest.raises(BadImage):
                read(source)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_one_item_is_made_ahead():
    made = []
    for item, twice in prefetch(lambda n: made.append(n) or 2 * n, range(5)):
        assert twice == 2 * item and len(made) <= item + 2
    assert made == list(range(5)) and list(prefetch(str, [])) == []
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda n: 1 // n, [1, 0]))
