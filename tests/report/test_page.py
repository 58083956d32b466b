"""The whole page: one file, of any run, that harms nobody; photographs are read in tests/photos."""

import math
import re
import shutil
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from spr_plugin import runs
from spr_plugin.cli import commands
from spr_plugin.errors import UserError
from spr_plugin.files import write_json
from spr_plugin.report import page
from spr_plugin.report.page import write_report
from spr_plugin.runs.lock import lock


@pytest.fixture(scope="module")
def output(finished_output, tmp_path_factory):
    return finished_output(tmp_path_factory.mktemp("page") / "out", 16)


VOID = {"meta", "img", "br", "link", "input", "hr"}


class Balanced(HTMLParser):
    """Fails at an end that closes something else."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.used, self.classes = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.note(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.note(dict(attributes))

    def note(self, attributes):
        self.classes.append(attributes.get("class"))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if attributes.get("href", "").startswith("#"):
            self.used.append(attributes["href"][1:])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == [] and len(set(parser.ids)) == len(parser.ids)
    assert set(parser.used) <= set(parser.ids)
    return parser


def test_one_file_shows_all_of_a_run(output):
    html = write_report(output).read_text()
    parsed(html)
    assert not re.search(r"(src|href)=.?https?:", html) and "<script" not in html
    assert re.findall("<h2>(.*?)</h2>", html) == [
        "From queries to pairs",
        "Scores",
        "What another λ would change",
        "Pairs by category",
        "Pairs by size",
        "The DPO stage, by step",
        "Examples",
        "What it was made with",
    ]
    assert html.count('class="pair whole"') == 12 + 4 and html.count("data:image/jpeg;base64,") == 16
    assert "left out: no_box</td><td>4</td><td>The answer gives no box" in html
    assert "left out: too_few_objects</td><td>2</td><td>No region of the picture holds" in html
    assert "spr_min_kept <code>0.6</code>" in html


def test_the_truth_lies_on_what_was_said(output):
    html = write_report(output).read_text()
    drawings = [one.partition("</svg>")[0] for one in html.split('<svg class="picture"')[1:]]
    assert len(drawings) == 2 * 16
    for kinds in (re.findall('<rect class="(\\w+)"', drawing) for drawing in drawings):
        said = [place for place, kind in enumerate(kinds) if kind in ("chosen", "rejected")]
        assert kinds.count("truth") == kinds.count("halo") > 0
        assert kinds.index("halo") > max(said, default=-1)


@pytest.mark.parametrize("gone", ["scores", "pairs", "dpo", "candidates", "queries", "manifest.json"])
def test_a_run_that_lacks_a_part_is_reported_all_the_same(output, tmp_path, gone):
    shutil.copytree(output, tmp_path / "out")
    path = tmp_path / "out" / "spr" / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    parsed(write_report(tmp_path / "out").read_text())


def test_the_page_that_a_run_writes_at_its_end_says_so_of_each_round(output, tmp_path):
    """The process that writes it still has the lock, and no later round has an end of its own."""
    run = tmp_path / "out" / "spr"
    for folder in (run, run / "round-2"):
        shutil.copytree(output / "spr", folder)
        (folder / "exit.json").unlink()
    lock(run)
    (run / "round-2" / "policy" / "index.json").unlink()
    states = ("running", "finished")
    for state in states:
        first = write_report(tmp_path / "out").read_text()
        second = (run / "round-2" / "report.html").read_text()
        assert f"<code>{run}</code>, finished," in first and f"round-2</code>, {state}," in second
        assert 'the first of 2 rounds, the others: <a href="round-2/report.html">round-2</a></p>' in first
        write_json(run / "round-2" / "policy" / "index.json", {})


@pytest.mark.parametrize(
    "number, line", [(-7, ""), (math.nan, ""), (1e308, ""), (10**400, "OverflowError"), ("7", "TypeError")]
)
@pytest.mark.parametrize("of", ["box", "term"])
def test_numbers_that_no_run_of_ours_writes_are_shown_or_one_line(output, tmp_path, of, number, line):
    shutil.copytree(output, tmp_path / "out")
    log = runs.open(tmp_path / "out").folder.log("queries" if of == "box" else "scores")
    records = [*log.read().values()]
    for record in records[:2]:
        if of == "box":
            record["pictures"][0]["annotations"][0]["xyxy"][2] = number
        else:
            record["candidates"][0]["terms"]["s_loc"] = number
    log.write(records)
    if not line and (of == "box" or math.isfinite(number)):
        parsed(write_report(tmp_path / "out").read_text())
        return
    with pytest.raises(UserError, match="spr holds what this version cannot read .*Error"):
        write_report(tmp_path / "out")


def test_an_empty_run_is_a_page(tmp_path):
    (tmp_path / "lock").write_text("process 7 on here since then")
    html = write_report(tmp_path).read_text()
    parsed(html)
    assert "<p>none</p>" in html and "empty" in html


HOSTILE = "</code></style><script>alert(1)</script>{{ 7 * 7 }}"


def test_what_a_folder_holds_is_text(output, tmp_path):
    """Names, texts, reasons and paths of a folder that somebody else wrote."""
    shutil.copytree(output, tmp_path / "out")
    run = runs.open(tmp_path / "out")
    pairs = list(run.records("pairs").values())
    for record in pairs:
        if "skip" in record:
            record["skip"] = HOSTILE
        else:
            record |= {"prompt": HOSTILE, "rejected": HOSTILE, "chosen": HOSTILE * 99_000}
    regions = list(run.records("queries").values())
    for record in regions:
        record["pictures"][0] |= {"id": HOSTILE, "path": f"/nowhere/{HOSTILE}"}
        for annotation in record["pictures"][0]["annotations"]:
            annotation["label"] = HOSTILE
    run.folder.log("pairs").write(pairs)
    run.folder.log("queries").write(regions)
    html = write_report(tmp_path / "out").read_text()
    parsed(html)
    assert "<script" not in html and "49" not in re.findall(r"script&gt;(\S*)", html)
    assert len(html) < 2_000_000 and "No such file" in html


def test_results_that_cannot_be_read_leave_the_report_as_it_was(output, tmp_path):
    before = write_report(output).read_text()
    done = CliRunner().invoke(
        commands, ["report", str(output), "--results", str(tmp_path / "no"), str(tmp_path)]
    )
    assert isinstance(done.exception, UserError) and "no such folder" in str(done.exception)
    assert (output / "spr" / "report.html").read_text() == before


def test_a_pairing_that_is_not_here_leaves_its_table_out(output, tmp_path):
    shutil.copytree(output, tmp_path / "out")
    run = runs.open(tmp_path / "out")
    run.config["spr_pairing"] = ["of a plugin"]
    assert page.summary(run)["lambdas"] == [] and page.summary(runs.open(output))["lambdas"]
