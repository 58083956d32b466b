"""COLMAP's files, by bytes that are written here as its documentation lays them out."""

import struct

import pytest

from spr_plugin.data.colmap import MODEL, MODELS, BadModel, models, read_model

POSE = (0.5, 0.5, -0.5, 0.5, 1.0, 2.0, 3.0)


@pytest.fixture
def model(tmp_path):
    """``model(cameras, images, ending)`` → a scene's folder with these two files."""

    def written(cameras, images, ending="bin"):
        folder = tmp_path / "scene"
        (folder / MODEL).mkdir(parents=True, exist_ok=True)
        for name, content in (("cameras", cameras), ("images", images)):
            file = folder / MODEL / f"{name}.{ending}"
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return written


def camera(number=1, kind=2, width=640, height=480, parameters=(500.0, 320.0, 240.0, 0.01)):
    return struct.pack(f"<iiQQ{len(parameters)}d", number, kind, width, height, *parameters)


def image(name="a/1.jpg", number=7, lens=1, points=3):
    row = struct.pack("<i7di", number, *POSE, lens) + name.encode() + b"\0"
    return row + struct.pack("<Q", points) + struct.pack("<ddq", 1, 2, -1) * points


def count(rows):
    return struct.pack("<Q", len(rows)) + b"".join(rows)


def test_binary_files(model):
    rows = [image("b.jpg", points=0), image("a é.jpg", lens=2, points=5), image("c.jpg", lens=9)]
    pinhole = camera(2, 1, 100, 50, (80.0, 90.0, 50.0, 25.0))
    read = read_model(model(count([camera(), pinhole]), count(rows)))
    assert [one.name for one in read] == ["a é.jpg", "b.jpg", "c.jpg"]
    assert [one.lens for one in read] == [(80, 90, 50, 25, 100, 50), (500, 500, 320, 240, 640, 480), None]
    assert all((*one.quaternion, *one.shift) == POSE for one in read)


@pytest.mark.parametrize("number", MODELS)
def test_every_kind_of_camera(model, number):
    name, parameters, focals = MODELS[number]
    given = [100.0 + place for place in range(parameters)]
    (read,) = read_model(model(count([camera(kind=number, parameters=given)]), count([image()])))
    assert read.lens[:4] == (100, 100 + focals - 1, 100 + focals, 101 + focals)
    text = f"# cameras\n\n1 {name} 640 480 {' '.join(map(str, given))}\n"
    again = read_model(model(text, f"7 {' '.join(map(str, POSE))} 1 a/1.jpg\n\n", "txt"))
    assert again[0].lens == read.lens and again[0].name == "a/1.jpg"


def test_an_image_s_second_line_may_be_empty(model):
    pose = " ".join(map(str, POSE))
    text = f"# two lines an image\n1 {pose} 1 b.jpg\n\n2 {pose} 1 a.jpg\n1 2 -1 3 4 5\n"
    read = read_model(model("1 SIMPLE_PINHOLE 10 10 5 5 5\n", text, "txt"))
    assert [one.name for one in read] == ["a.jpg", "b.jpg"] and read[0].shift == [1, 2, 3]


@pytest.mark.parametrize(
    "cameras, images",
    [
        (b"", count([image()])),
        (count([camera()])[:-1], count([image()])),
        (count([camera(kind=99)]), count([image()])),
        (count([camera(width=0)]), count([image()])),
        (count([camera(parameters=(-1.0, 3.0, 3.0, 0.0))]), count([image()])),
        (count([camera(parameters=(float("nan"), 3.0, 3.0, 0.0))]), count([image()])),
        (count([camera()]), count([image()])[:-5]),
        (count([camera()]), struct.pack("<Q", 10**15) + image()),
        (count([camera()]), count([image(points=0)[:-8] + struct.pack("<Q", 10**18)])),
        (count([camera()]), count([image()]).replace(b"a/1.jpg\0", b"\xff\xfe\xfd jpg\0")),
    ],
)
def test_binary_files_that_are_none(model, cameras, images):
    with pytest.raises(BadModel):
        read_model(model(cameras, images))


@pytest.mark.parametrize(
    "cameras, images",
    [
        ("1 SIMPLE_PINHOLE 10 10 5 5\n", ""),
        ("1 OTHER 10 10 5 5 5\n", ""),
        ("1 SIMPLE_PINHOLE ten 10 5 5 5\n", ""),
        ("1\n", ""),
        ("1 SIMPLE_PINHOLE 10 10 5 5 5\n", "1 2 3\n"),
        ("1 SIMPLE_PINHOLE 10 10 5 5 5\n", "1 0 0 0 x 0 0 0 1 a.jpg\n\n"),
    ],
)
def test_files_of_text_that_are_none(model, cameras, images):
    with pytest.raises(BadModel):
        read_model(model(cameras, images, "txt"))


def test_reconstructions_are_found_where_they_lie(model, tmp_path):
    model(count([camera()]), count([image()]))
    (tmp_path / "a" / "b" / MODEL).mkdir(parents=True)
    (tmp_path / "a" / "b" / MODEL / "images.txt").touch()
    (tmp_path / "a" / "c" / MODEL).mkdir(parents=True)
    assert sorted(models(str(tmp_path))) == ["a/b", "scene"]
