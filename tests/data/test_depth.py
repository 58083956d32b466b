"""Depth from a folder of its own, in DIODE's and MegaDepth's layouts, and of a real stereo pair."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spr_plugin.data.depth import BadDepth, read_depth, scaled
from spr_plugin.data.pictures import open_image

SIZE = (6, 4)
DEPTH = np.arange(1, 25, dtype=np.float32).reshape(4, 6)


def png(path, array):
    Image.fromarray(array.astype(np.uint16)).save(path)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1)])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "uint16", "int64"])
def test_npy(tmp_path, shape, kind):
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "b.npy", DEPTH.reshape(shape).astype(kind))
    assert (read_depth(tmp_path, "a/b.jpg", SIZE) == DEPTH).all()


def test_png_of_16_bits(tmp_path):
    png(tmp_path / "b.png", DEPTH * 1000)
    assert (read_depth(tmp_path, "b.jpg", SIZE) == DEPTH * 1000).all()
    assert (read_depth(tmp_path, "b.png", SIZE) == DEPTH * 1000).all()


def test_a_picture_is_not_its_own_depth(tmp_path):
    """Where both lie in one folder."""
    Image.new("RGB", SIZE).save(tmp_path / "b.png")
    with pytest.raises(BadDepth, match="png_not_of_16_bits"):
        read_depth(tmp_path, "b.png", SIZE)
    with pytest.raises(BadDepth, match="missing_depth"):
        read_depth(tmp_path, "c.png", SIZE)


def test_diode(tmp_path):
    """A picture, its _depth.npy with a last axis of one and its _depth_mask.npy in one folder."""
    folder, name = tmp_path / "val" / "indoors" / "scene_00019" / "scan_00183", "00019_00183_indoors_000_010"
    folder.mkdir(parents=True)
    Image.new("RGB", SIZE).save(folder / f"{name}.png")
    np.save(folder / f"{name}_depth.npy", DEPTH[..., None])
    mask = np.ones((4, 6), np.float32)
    mask[0, :3] = 0
    np.save(folder / f"{name}_depth_mask.npy", mask)
    depth = read_depth(tmp_path, str((folder / f"{name}.png").relative_to(tmp_path)), SIZE)
    assert (
        np.isnan(depth[0, :3]).all()
        and (depth[1:] == DEPTH[1:]).all()
        and (depth[0, 3:] == DEPTH[0, 3:]).all()
    )
    np.save(folder / f"{name}_depth_mask.npy", mask[:3])
    with pytest.raises(BadDepth, match="depth_of_another_size"):
        read_depth(tmp_path, str((folder / f"{name}.png").relative_to(tmp_path)), SIZE)


def test_megadepth(tmp_path):
    """MegaDepth's tree: 0000/dense0/imgs/x.jpg, 0000/dense0/depths/x.h5, where 0 is unknown; ordinal depths,
    below 0, are none.
    """
    h5py = pytest.importorskip("h5py")
    folder = tmp_path / "0000" / "dense0" / "depths"
    folder.mkdir(parents=True)

    def write(name, depth, key="depth"):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset(key, data=depth)

    write("x", np.where(DEPTH < 4, 0, DEPTH))
    depth = read_depth(tmp_path, "0000/dense0/imgs/x.jpg", SIZE)
    assert np.isnan(depth[DEPTH < 4]).all() and (depth[DEPTH >= 4] == DEPTH[DEPTH >= 4]).all()
    write("ordinal", np.where(DEPTH < 4, -1, -2))
    write("other", DEPTH, key="depths")
    (folder / "broken.h5").write_bytes(b"no file")
    for name, why in (("ordinal", "ordinal_depth"), ("other", "unreadable"), ("broken", "unreadable")):
        with pytest.raises(BadDepth, match=why):
            read_depth(tmp_path, f"0000/dense0/imgs/{name}.jpg", SIZE)


def test_what_is_no_depth_is_unknown(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, 0, -1], [np.nan, np.inf, 2]]))
    depth = read_depth(tmp_path, "a.png", (3, 2))
    assert np.isnan(depth).tolist() == [[False, True, True], [True, True, False]]
    np.testing.assert_array_equal(scaled(depth), [[0, np.nan, np.nan], [np.nan, np.nan, 1]])


@pytest.mark.parametrize(
    "content, why",
    [
        (np.ones((6, 4)), "another_size"),
        (np.ones((4, 6, 3)), "another_size"),
        (np.ones(24), "another_size"),
        (np.array([["a"] * 6] * 4), "unreadable"),
        (np.array([[{}] * 6] * 4, dtype=object), "unreadable"),
        (b"no array", "unreadable"),
        (b"", "unreadable"),
    ],
)
def test_bad_files_are_counted_by_a_reason(tmp_path, content, why):
    file = tmp_path / "a.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content)
    with pytest.raises(BadDepth, match=why):
        read_depth(tmp_path, "a.jpg", SIZE)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(BadDepth, match="unreadable_depth"):
        read_depth(tmp_path, "b.jpg", SIZE)


@pytest.mark.parametrize("depth", [np.full((4, 6), 3.0), np.full((4, 6), np.nan)])
def test_flat_depth_is_none(depth):
    with pytest.raises(BadDepth, match="flat_depth"):
        scaled(depth.astype(np.float32))


def test_a_real_stereo_pair(tmp_path):
    """scikit-image's motorcycle (Middlebury 2014): disparity in pixels, unknown at a tenth; its nearest part,
    the front wheel, has the largest.
    """
    data = Path(pytest.importorskip("skimage").__file__).with_name("data")
    with np.load(data / "motorcycle_disp.npz") as content:
        disparity = content["arr_0"]
    np.save(tmp_path / "motorcycle_left.npy", disparity)
    picture = open_image(str(data / "motorcycle_left.png"))
    depth = scaled(read_depth(tmp_path, "motorcycle_left.png", picture.size, disparity=True))
    known = np.isfinite(disparity) & (disparity > 0)
    assert (np.isfinite(depth) == known).all() and 0 < (~known).mean() < 0.3
    assert np.nanmin(depth) == 0 and np.nanmax(depth) == 1
    nearest, farthest = (np.unravel_index(f(depth), depth.shape) for f in (np.nanargmin, np.nanargmax))
    assert disparity[nearest] == disparity[known].max() and disparity[farthest] == disparity[known].min()
