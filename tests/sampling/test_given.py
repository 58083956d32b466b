"""``--spr_pairs`` through the whole stage on a real LLaVA: what `spr export` wrote is what trains."""

import json

import pytest

import spr_plugin
from spr_plugin import follow, runs
from spr_plugin.errors import UserError
from spr_plugin.report.page import write_report
from spr_plugin.tools.export import export

pytestmark = pytest.mark.slow
SETTINGS = dict(
    spr_only=True,
    spr_batch_size=2,
    spr_epochs=1.0,
    spr_learning_rate=1e-2,
    spr_max_new_tokens=6,
    max_length=1024,
)


def train(live_llava, file, **settings):
    host, config = live_llava(**{**SETTINGS, "spr_pairs": str(file), "spr_clip": None, **settings})
    before = {name: value.detach().clone() for name, value in host.trainer.model.named_parameters()}
    follow.train(host.trainer, config, host.namespace, None)
    return host, [
        name for name, value in host.trainer.model.named_parameters() if not value.equal(before[name])
    ]


def test_what_was_exported_trains_and_shows_and_goes_on(live_llava, finished_output, tmp_path, capsys):
    output = finished_output(tmp_path / "made", 8)
    export(str(output), "trl", str(tmp_path / "trl"))
    file = tmp_path / "trl" / "metadata.jsonl"
    host, moved = train(live_llava, file)
    assert any("layers" in name for name in moved)
    out = host.trainer.args.output_dir
    run, made = runs.open(out), runs.open(output)
    texts = {(pair.prompt, pair.chosen, pair.rejected) for pair in made.pairs}
    assert {(pair.prompt, pair.chosen, pair.rejected) for pair in run.pairs} == texts and len(texts) == 6
    assert run.folder.is_finished() and len(run.records("lengths")) == 6 and run.steps[-1]["step"] == 3
    assert write_report(out).read_text().count('<div class="pair whole"') == 6
    assert len(spr_plugin.load_run(out).pairs) == 6
    capsys.readouterr()
    train(live_llava, file)
    assert "the SPR stage is done already" in capsys.readouterr().err
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    train(live_llava, file)
    err = capsys.readouterr().err
    assert "has another content" in err and len(runs.open(out).pairs) == 4


def test_a_mistake_in_the_file_is_said_before_anything_is_written(live_llava, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"images": ["a.png"], "prompt": "?", "chosen": "a"}\n')
    with pytest.raises(UserError, match=r"--spr_pairs .*pairs.jsonl, line 1: rejected is no text"):
        train(live_llava, file)
    assert not list(tmp_path.rglob("queries"))
