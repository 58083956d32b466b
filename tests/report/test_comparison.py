"""A comparison on pages: Markdown, and HTML with flipped samples on their pictures."""

import json
import re

import pytest
from click.testing import CliRunner
from PIL import Image

from spr_plugin.cli import commands
from spr_plugin.eval_tasks import phrases
from spr_plugin.eval_tasks.compare import SHOWN_FLIPS
from spr_plugin.report import comparison as module
from spr_plugin.report.comparison import markdown
from tests.eval_tasks.result_folders import BOX, rec_run, write_run


def test_pages_are_written(tmp_path):
    Image.new("RGB", (100, 100), (9, 9, 9)).save(tmp_path / "a.png")
    picture = str(tmp_path / "a.png")
    a, b = rec_run(tmp_path / "a", 0.9, picture), rec_run(tmp_path / "b", 0.1, picture)
    told = {"config": {"model": "spr_llava", "model_args": "pretrained=spr<b>"}, "date": "20261130"}
    for samples in b.glob("*_samples_*"):
        stamp, _, _ = samples.name.partition("_samples_")
        (b / f"{stamp}_results.json").write_text(json.dumps(told))
    done = CliRunner().invoke(commands, ["compare", str(a), str(b), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and "Signature: the gain" in done.output and "| Acc@0.5 |" in done.output
    page = (tmp_path / "out/compare.html").read_text()
    assert (
        page.count("data:image/jpeg;base64,") == SHOWN_FLIPS
        and "<svg" in page
        and "http" not in re.sub(r'xmlns="[^"]*"', "", page)
    )
    compared = json.loads((tmp_path / "out/compare.json").read_text())
    made = {"model": "spr_llava", "model_args": "pretrained=spr<b>", "date": "20261130"}
    assert compared["made"] == {"a": {}, "b": made} and "pretrained=spr&lt;b&gt;</code>" in page
    flips = compared["tasks"]["spr_refcoco_val"]["flips"]
    (hits,) = [row for row in compared["tasks"]["spr_refcoco_val"]["rows"] if row["figure"] == "Acc@0.5"]
    a_hits, b_hits = hits["a"], hits["b"]
    assert (flips["won"] - flips["lost"]) / 300 == pytest.approx(b_hits - a_hits)
    assert (tmp_path / "out/compare.md").read_text() in done.output + "\n"
    for flip in flips["shown"]:
        assert flip["question"] == f"Where is number {flip['id']}?" and flip["question"] in page
        assert all(f"<code>{flip[answer]}</code>" in page for answer in ("answer_a", "answer_b"))


def test_what_a_model_said_is_text_on_the_page(tmp_path):
    a, b = rec_run(tmp_path / "a", 0.9, count=30), rec_run(tmp_path / "b", 0.1, count=30)
    file = next(b.glob("*.jsonl"))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        record["filtered_resps"] = "<script>alert(1)</script>" * 10_000
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    module.compare(a, b)
    page = (b / "compare.html").read_text()
    assert "<script" not in page and "&lt;script" in page and len(page) < 500_000


def test_missing_pictures_leave_a_page(tmp_path):
    a, b = rec_run(tmp_path / "a", 0.9, "gone.png"), rec_run(tmp_path / "b", 0.1, "gone.png")
    module.compare(a, b)
    page = (tmp_path / "b/compare.html").read_text()
    assert "base64" not in page and "Dashed" not in page


def test_a_flip_names_the_phrase_that_was_asked_among_several(tmp_path):
    doc = {"id": "1", "image_id": "1", "width": 100, "height": 100, "box_format": "llava:square"}
    doc["phrases"] = [{"id": str(n), "phrase": f"a cat {n}", "boxes": [BOX]} for n in range(3)]
    x1, y1, x2, y2 = (value / 100 for value in BOX)
    right, wrong = (f"a cat {{}} [{x1}, {y1}, {x}, {y}]" for x, y in ((x2, y2), (1.0, 1.0)))
    first = ", ".join(right.format(number) for number in range(3))
    second = ", ".join((wrong if number == 1 else right).format(number) for number in range(3))
    a, b = (
        write_run(tmp_path / name, [phrases.process_results(doc, [answer])], "spr_flickr30k_val")
        for name, answer in (("a", first), ("b", second))
    )
    (flip,) = module.compare(a, b)["tasks"]["spr_flickr30k_val"]["flips"]["shown"]
    assert flip["phrase"] == "a cat 1"
    assert "Phrase: <b>a cat 1</b>" in (b / "compare.html").read_text()


def test_a_comparison_in_markdown_is_in_percent():
    row = {"figure": "Acc@0.5", "a": 0.5, "b": 0.625, "gain": 0.125, "low": -0.01, "high": 0.2}
    part = {
        "rows": [{**row, "p": 0.0314, "n": 8}, {**row, "figure": "mIoU", "gain": -0.125, "p": None, "n": 8}],
        "signature": {"line": "the gain grows"},
        "flips": {"threshold": 0.5, "won": 2, "lost": 1},
    }
    files = {"a": ["a/1.jsonl", "a/2.jsonl"], "b": ["b/1.jsonl"]}
    bare = {"rows": [], "signature": None, "flips": None}
    text = markdown({"a": "a", "b": "b", "files": files, "tasks": {"t": part, "u": bare}})
    lines = text.splitlines()
    assert lines[:4] == ["A: `a`, read from", "- `a/1.jsonl`", "- `a/2.jsonl`", ""]
    assert "| Acc@0.5 | 50.00 | 62.50 | +12.50 | -1.00 … +20.00 | 0.031 | 8 |" in lines
    assert "| mIoU | 50.00 | 62.50 | -12.50 | -1.00 … +20.00 |  | 8 |" in lines
    assert "Signature: the gain grows." in lines and "At IoU 0.5, 2 became right and 1 wrong." in lines
    assert lines.index("## u") > lines.index("## t") and text.count("Signature") == 1
