"""Where a picture is looked for that moved since the run."""

from spr_plugin.runs.moved import found, places, relocated


def test_places_begin_with_most_of_the_path_and_never_leave_the_folder(tmp_path):
    assert places("/coco/train/7.jpg", "/mnt") == [
        "/mnt/coco/train/7.jpg", "/mnt/train/7.jpg", "/mnt/7.jpg", "/coco/train/7.jpg"
    ]  # fmt: skip
    assert places("/coco/7.jpg", None) == ["/coco/7.jpg"]
    assert places("/7.jpg", "/") == ["/7.jpg"]
    for path in ("../../etc/passwd", "/a/../../b", "/" + "x/" * 500 + "y"):
        *below, _ = places(path, "/mnt")
        assert (
            below
            and len(below) <= 8
            and all(place.startswith("/mnt/") and ".." not in place for place in below)
        )


def test_the_folder_that_was_named_comes_first(tmp_path):
    for folder in ("new/train", "old/train"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "7.png").write_bytes(b"")
    logged = str(tmp_path / "old" / "train" / "7.png")
    assert found(logged, None) == logged
    assert found(logged, str(tmp_path / "new")) == str(tmp_path / "new" / "train" / "7.png")
    assert found(str(tmp_path / "nothing.png"), str(tmp_path)) is None


def test_a_record_names_its_pictures_where_they_are_now(tmp_path):
    (tmp_path / "7.png").write_bytes(b"")
    made = {"id": "7", "path": "/coco/7.png", "steps": []}
    record = {"id": "a", "pictures": ["/coco/7.png", made, "/coco/8.png"]}
    now = str(tmp_path / "7.png")
    assert relocated(record, str(tmp_path)) == {
        "id": "a", "pictures": [now, {**made, "path": now}, "/coco/8.png"]
    }  # fmt: skip
    assert record["pictures"][0] == "/coco/7.png"
