"""``spr data RECIPE --cold_start N``: worked answers that LLaVA's own loader trains on, about pictures
that a run can be kept from asking about.
"""

import json
from collections import Counter

import pytest
from click.testing import CliRunner
from PIL import Image

from spr_plugin.cli import commands
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.recipes.actial.answers import answered, reward
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spatial_ssrl.answers import boxed, is_formed
from spr_plugin.tools.cold_start import write_cold_start


@pytest.fixture(scope="module")
def world(tiny_world):
    return tiny_world(spr=40)


def asked(world, target, *words):
    """What the command does; a user's mistake is raised, as `spr` itself gets it."""
    words = ["data", "spatial_ssrl", "--from", world / "images" / "spr", "--to", target, *words]
    return CliRunner().invoke(commands, list(map(str, words)), catch_exceptions=False)


def test_worked_answers_and_their_pictures(world, tmp_path):
    printed = asked(world, tmp_path, "--cold_start", 20).output
    assert f"20 worked answers in {tmp_path}/cold_start.json; left out: nothing" in printed
    rows = json.loads((tmp_path / "cold_start.json").read_text())
    assert len({row["id"] for row in rows}) == 20
    for row in rows:
        (who, question), (whose, answer) = (turn.values() for turn in row["conversations"])
        assert (who, whose) == ("human", "gpt") and question.startswith("<image>\n")
        assert question.count("<image>") == 1 and is_formed(answer) and boxed(answer)
        with Image.open(tmp_path / "images" / row["image"]) as picture:
            assert picture.mode == "RGB" and picture.width > 90
    assert Counter(boxed(row["conversations"][1]["value"]) for row in rows).most_common(1)[0][1] < 10
    content = (tmp_path / "cold_start.json").read_bytes()
    asked(world, tmp_path, "--cold_start", 20)
    assert (tmp_path / "cold_start.json").read_bytes() == content
    asked(world, tmp_path, "--cold_start", 20, "--spr_seed", 1)
    assert (tmp_path / "cold_start.json").read_bytes() != content


def test_a_run_asks_about_other_pictures_and_else_other_questions(world, tmp_path):
    """With the same seed."""
    asked(world, tmp_path, "--cold_start", 20)
    rows = json.loads((tmp_path / "cold_start.json").read_text())
    taken, asked_before = {row["file_name"] for row in rows}, {row["id"] for row in rows}
    source = Source(image_folder=f"{world}/images/spr")
    flags = dict(spr=True, spr_recipe="spatial_ssrl", spr_regions=20)
    excluded = dict(spr_exclude=[str(tmp_path / "cold_start.json")])
    apart = find_recipe(SPRConfig(**flags, **excluded), None).queries(source)
    assert len(apart) == 20 and not {query.pictures[0].id for query in apart} & taken
    others = find_recipe(SPRConfig(**flags), None).queries(source)
    assert len({query.id for query in others} - asked_before) >= 18


def test_questions_about_two_pictures(posed_world, tmp_path):
    """In LLaVA-NeXT's layout; a run asks about other scenes, whose pictures are called alike."""
    folder = posed_world(scenes=12, views=24)
    words = ["data", "actial", "--from", folder, "--to", tmp_path, "--cold_start", 30]
    printed = CliRunner().invoke(commands, list(map(str, words)), catch_exceptions=False).output
    assert f"30 worked answers in {tmp_path}/cold_start.json; left out: nothing" in printed
    rows = json.loads((tmp_path / "cold_start.json").read_text())
    config = SPRConfig(spr=True, spr_recipe="actial", spr_regions=60)
    excluded = config.but_for({"spr_exclude": [str(tmp_path / "cold_start.json")]})
    asked = find_recipe(excluded, None).queries(Source(image_folder=str(folder)))
    scenes = {row["file_name"].rpartition("/images/")[0] for row in rows}
    assert len(scenes) == 3 and len(asked) == 60
    assert not {query.pictures[0].id.rpartition("/images/")[0] for query in asked} & scenes
    for row in rows:
        (_, question), (_, answer) = (turn.values() for turn in row["conversations"])
        assert question.startswith("<image>\n<image>\n") and question.count("<image>") == 2
        assert reward(answer, answered(answer)).total == 1 and answered(answer) in question
        assert row["image"] == [f"{row['id']}-1.png", f"{row['id']}-2.png"]
        for name in row["image"]:
            with Image.open(tmp_path / "images" / name) as picture:
                assert picture.mode == "RGB" and picture.width >= 48


@pytest.mark.slow
def test_llava_s_own_loader_reads_it(world, tmp_path, embedded_llava):
    asked(world, tmp_path / "cold", "--cold_start", 6)
    (tmp_path / "cold" / "cold_start.json").rename(tmp_path / "cold" / "sft.json")
    rows = json.loads((tmp_path / "cold" / "sft.json").read_text())
    host = embedded_llava(tmp_path / "cold", tmp_path / "out")
    assert len(host.dataset) == len(rows)
    for number, row in enumerate(rows):
        item = host.dataset[number]
        (text,) = host.texts([item["labels"][item["labels"] != -100].tolist()])
        assert text == row["conversations"][1]["value"] and item["image"].shape == (3, 96, 96)


def test_bad_input_is_one_line(world, tmp_path):
    with pytest.raises(UserError, match="spr data spatial_ssrl: --embed is of releases"):
        asked(world, tmp_path, "--cold_start", 3, "--embed")
    words = ["data", "refcoco", "--from", str(world), "--to", str(tmp_path), "--cold_start", "3"]
    with pytest.raises(
        UserError, match="spr data refcoco: --cold_start, .* are of spatial_ssrl, spatial_thinker, actial"
    ):
        CliRunner().invoke(commands, words, catch_exceptions=False)
    flags = SPRConfig(spr=True, spr_recipe="spatial_ssrl", spr_regions=3)
    with pytest.raises(UserError, match="--from /nowhere: no such folder"):
        write_cold_start(flags, "/nowhere", str(tmp_path))
    for recipe, why in (("spatial_ssrl", "holds no picture"), ("actial", "holds neither poses.json nor")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=f"^--from {tmp_path}/empty: {why}"):
            write_cold_start(
                flags.but_for({"spr_recipe": [recipe]}), f"{tmp_path}/empty", str(tmp_path / "to")
            )
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (60, 60), "gray").save(tmp_path / "flat" / "a.png")
    with pytest.raises(UserError, match=r"no question is made .* \(left out: hardly_changed 3\)"):
        write_cold_start(flags, str(tmp_path / "flat"), str(tmp_path / "to"))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a.png").symlink_to(world / "images" / "spr" / "000000.png")
    with pytest.raises(UserError, match="lies outside .* --allow-outside"):
        write_cold_start(flags, str(tmp_path / "linked"), str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()
    assert "3 worked" in write_cold_start(flags, str(tmp_path / "linked"), str(tmp_path / "to"), True)
