"""`spr sample` and `--spr_candidates`: what is asked again, what is refused at once, what fits a run."""

import json
import shutil
from pathlib import Path

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.queries import find_queries, log_queries
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import Log
from spr_plugin.sampling.alone import import_candidates

from . import chat_server as chat
from .asking import ASKED, REGIONS, sample, written

pytestmark = pytest.mark.usefixtures("quick")


def test_other_flags_ask_again_for_what_they_shape_and_say_so(world, tmp_path, capsys):
    with chat.ChatServer() as server:
        first = dict(sample(world, tmp_path / "c", server.url))
        hotter = dict(sample(world, tmp_path / "c", server.url, "--spr_temperature", "0.5"))
        assert len(server.seen) == 2 * ASKED and hotter.keys() == first.keys()
        assert (
            f"--spr_temperature was 1.0, is 0.5: in {tmp_path}/c is made again: candidates ({ASKED} records"
            in capsys.readouterr().err
        )
        assert dict(Log(tmp_path / "c" / "candidates.replaced").read()) == first
        narrower = sample(world, tmp_path / "c", server.url, "--spr_seed", "1")
        assert not narrower.keys() & first.keys() and len(narrower) == ASKED
        # The same pictures elsewhere: the same regions, so nothing is asked again.
        shutil.copytree(world / "images", tmp_path / "moved")
        again = sample(
            world,
            tmp_path / "c",
            server.url,
            "--spr_seed",
            "1",
            "--spr_image_folder",
            str(tmp_path / "moved"),
        )
        assert dict(again) == dict(narrower) and len(server.seen) == 3 * ASKED


@pytest.mark.parametrize("aspect", ["sqare", "PAD", "9-1"])
def test_an_aspect_that_nobody_knows_is_refused(world, tmp_path, aspect):
    with chat.ChatServer() as server:
        with pytest.raises(UserError, match=f"^--aspect {aspect}: llava knows no aspect '{aspect}'"):
            sample(world, tmp_path / "c", server.url, "--aspect", aspect)
        assert server.count == 0 and not (tmp_path / "c").exists()


def test_another_aspect_is_told_without_a_flag_that_is_not_there(world, tmp_path, capsys):
    with chat.ChatServer() as server:
        sample(world, tmp_path / "c", server.url)
        sample(world, tmp_path / "c", server.url, "--aspect", "square")
    err = capsys.readouterr().err
    assert "box text was {" in err and "--box " not in err


def test_an_out_that_is_no_folder_is_known_before_the_server_is_asked(world, tmp_path):
    (tmp_path / "c").write_text("mine")
    with chat.ChatServer() as server:
        with pytest.raises(UserError, match="--out .*c: is there already, and is no folder"):
            sample(world, tmp_path / "c", server.url)
        with pytest.raises(UserError, match="--out .*spr.json: is there already"):
            sample(world, world / "spr.json", server.url)
        assert server.count == 0
    assert (tmp_path / "c").read_text() == "mine"


def test_fewer_regions_than_asked_for_are_said(world, tmp_path, capsys):
    with chat.ChatServer() as server:
        sample(world, tmp_path / "c", server.url, "--spr_regions", "1000", "--spr_prompts", "plain")
    made = len(Log(tmp_path / "c" / "queries").read())
    assert f"{made} regions are made of the 1000 asked for" in capsys.readouterr().err


def test_a_plugin_s_format_is_taken(world, tmp_path):
    """The advice of an unknown format, --spr_plugin FILE, is a flag of this command."""
    from spr_plugin import plugins

    with chat.ChatServer() as server:
        with pytest.raises(UserError, match="others come with --spr_plugin FILE"):
            sample(world, tmp_path / "c", server.url, "--spr_box_format", "odd")
        (tmp_path / "odd.py").write_text(
            "from spr_plugin.formats import llava\nfrom spr_plugin.hookspecs import"
            " hookimpl\n\n@hookimpl\ndef spr_box_format(family, aspect):\n    return llava(aspect) if family"
            " == 'odd' else None\n"
        )
        try:
            flags = ["--spr_box_format", "odd", "--spr_plugin", str(tmp_path / "odd.py")]
            assert sample(world, tmp_path / "c", server.url, *flags)
        finally:
            plugins.manager().unregister(name=str((tmp_path / "odd.py").resolve()))


def test_a_server_is_not_needed_where_nothing_is_missing(world, tmp_path):
    with chat.ChatServer() as server:
        records = dict(sample(world, tmp_path / "c", server.url))
    assert dict(sample(world, tmp_path / "c", server.url)) == records


def test_taking_up_candidates_is_refused_where_they_do_not_fit(world, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(world / "images", elsewhere)

    padded = box_format("llava", "pad")

    def take_up(run="run", form=padded, **changed):
        settings = dict(
            spr=True,
            spr_regions=REGIONS,
            spr_annotations=f"{world}/spr.json",
            spr_image_folder=str(elsewhere),
            spr_candidates=str(tmp_path / "c"),
        )
        config = SPRConfig(**{**settings, **changed})
        folder, recipe = Folder(tmp_path / run), find_recipe(config, form)
        queries, skipped = find_queries(folder, config, recipe, Source())
        if skipped is not None:
            log_queries(folder, recipe, queries, skipped)
        import_candidates(config, recipe, form, folder)

    with pytest.raises(UserError, match="c: no SPR run here, or none that has begun; give OUTPUT_DIR"):
        take_up()
    with chat.ChatServer() as server:
        sample(world, tmp_path / "c", server.url)
    log = Log(tmp_path / "c" / "candidates")
    whole = log.path.read_bytes()
    log.path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=f"holds {ASKED - 1} of {ASKED} candidates"):
        take_up()
    log.path.write_bytes(whole)
    with pytest.raises(UserError, match="spr_seed was 0, is 1"):
        take_up("other seed", spr_seed=1)
    with pytest.raises(UserError, match="box was"):
        take_up("other boxes", box_format("shikra", "pad"))
    coco = json.loads(Path(world / "spr.json").read_text())
    for annotation in coco["annotations"]:
        annotation["bbox"][2] -= 1
    (tmp_path / "narrower.json").write_text(json.dumps(coco))
    with pytest.raises(
        UserError, match=f"differ in {REGIONS} of {REGIONS} queries: give both the same annotations"
    ):
        take_up("narrower", spr_annotations=str(tmp_path / "narrower.json"))
    take_up()
    assert dict(Log(tmp_path / "run" / "candidates").read()) == dict(log.read())
    paths = [record["pictures"][0]["path"] for record in Log(tmp_path / "run" / "queries").read().values()]
    assert len(paths) == REGIONS and all(path.startswith(f"{elsewhere}/spr/") for path in paths)
    shutil.rmtree(tmp_path / "c")
    take_up()  # they are the run's own by now


@pytest.mark.slow
def test_a_training_run_takes_them_up_and_asks_nothing(world, tmp_path, planted):
    """The whole command, with `spr sample`'s folder in place of sampling; the server ends every answer with
    the key that it was sent."""
    from tests.hosts.launch import command, run, spr_flags

    with chat.ChatServer() as server:
        server.adds = ", {key}"
        records = dict(sample(world, tmp_path / "c", server.url, "--spr_image_folder", f"{world}/images"))
    flags = spr_flags(world)
    flags[flags.index("--spr_regions") + 1] = str(REGIONS)
    taken = ["--spr_only", "--spr_candidates", tmp_path / "c"]
    printed = run(command(world, tmp_path / "llava", *flags, *taken))
    spr = tmp_path / "llava" / "spr"
    assert dict(Log(spr / "candidates").read()) == records
    assert len(Log(spr / "scores").read()) == REGIONS and (spr / "report.html").exists()
    assert json.loads((spr / "exit.json").read_text())["weights"]
    assert all(record["raw"].endswith("Bearer ***") for record in records.values())
    assert "planted" not in (printed + written(tmp_path)).lower()
