"""spr_oracle: expected figures in closed form, prediction files, and every task end to end through the real
lmms-eval.
"""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("lmms_eval")
datasets = pytest.importorskip("datasets")

from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.eval_tasks import classification, data, description, metrics, phrases, rec  # noqa: E402
from spr_plugin.eval_tasks.catalogue import GROUPS, SPLITS  # noqa: E402
from spr_plugin.eval_tasks.refusal import Refusal  # noqa: E402

# On a large picture, so that the grid's rounding is small beside the noise.
BOX = [2000.0, 1600.0, 3000.0, 2400.0]


# Benchmarks; the tasks of recipes have their own tests.
PUBLISHED = [
    split for split in SPLITS if not split.task.startswith("spr_tiny") and "recipe" not in split.options
]


class Request:
    def __init__(self, *args):
        self.args = args


def oracle(task="t", docs=(), **arguments):
    from spr_plugin.eval_tasks.oracle import Oracle

    model = Oracle(**arguments)
    model.task_dict = {task: {"val": datasets.Dataset.from_list(list(docs))}} if docs else {}
    return model


def answers(model, task, docs):
    return model.generate_until([Request("", {}, None, index, task, "val") for index in range(len(docs))])


def documents(protocol, count, **fields):
    common = {"width": 6000, "height": 4000, "box_format": "shikra", "protocol": protocol, "image": "a.png"}
    return [{"id": str(n), "image_id": str(n), **common, **fields} for n in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.1, 0.3, 0.6])
def test_sideways_noise_gives_the_accuracy_of_the_closed_form(noise):
    docs = documents("rec", 3000, expression="cat", bbox=BOX)
    texts = answers(oracle(docs=docs, noise=noise, box_format="shikra"), "t", docs)
    results = [rec.process_results(doc, [text]) for doc, text in zip(docs, texts)]
    for threshold in metrics.THRESHOLDS:
        expected = min(1.0, (1 - threshold) / (1 + threshold) / noise)
        measured = metrics.mean(scores[f"Acc@{threshold}"] for scores in results)
        assert measured == pytest.approx(expected, abs=3 * 0.5 / 3000**0.5 + 0.005)


def test_phrases_move_on_their_own():
    """One box a phrase: the same closed form for the merged, the first and any box."""
    one = [
        {"id": f"{k}", "phrase": words, "boxes": [BOX]}
        for k, words in enumerate(["A man", "the dog, running"])
    ]
    docs = documents("phrases", 1500, caption="c", phrases=one)
    texts = answers(oracle(docs=docs, noise=0.4, box_format="shikra"), "t", docs)
    results = [phrases.process_results(doc, [text]) for doc, text in zip(docs, texts)]
    for threshold in metrics.THRESHOLDS:
        expected = (1 - threshold) / (1 + threshold) / 0.4
        for name in ("", "first_", "any_"):
            assert metrics.mean(scores[f"{name}Acc@{threshold}"] for scores in results) == pytest.approx(
                min(1, expected), abs=0.035
            )


def test_a_class_is_wrong_as_often_as_the_noise_says():
    fields = {
        "bbox": BOX,
        "point": [2500.0, 2000.0],
        "name": "tea_cup",
        "synonyms": [],
        "negative": "dog",
        "truth_first": True,
        "location": "box",
    }
    docs = documents("classification", 3000, **fields)
    texts = answers(oracle(docs=docs, noise=0.25, box_format="shikra"), "t", docs)
    accuracy = metrics.mean(
        classification.process_results(doc, [text])["accuracy"] for doc, text in zip(docs, texts)
    )
    assert accuracy == pytest.approx(0.75, abs=0.03)


def test_descriptions_by_simulation():
    """Objects far apart: a pair counts where its own shift keeps IoU 0.5, and mIoU is the mean of (1 - u)/(1
    + u) over those.
    """
    objects = [
        {"label": "cat", "bbox": [x, 1600.0, x + 400, 2400.0]} for x in (500.0, 2000.0, 3500.0, 5000.0)
    ]
    docs = documents("description", 800, region=[0.0, 0.0, 6000.0, 4000.0], objects=objects)
    texts = answers(oracle(docs=docs, noise=0.5, box_format="shikra"), "t", docs)
    results = [description.process_results(doc, [text]) for doc, text in zip(docs, texts)]
    shifts = [0.5 * n / 100_000 for n in range(100_000)]
    overlaps = [(1 - u) / (1 + u) for u in shifts]
    expected = sum(overlap >= 0.5 for overlap in overlaps) / len(overlaps)
    for name in ("precision", "recall", "phrase_precision", "phrase_recall"):
        assert metrics.mean(scores[name] for scores in results) == pytest.approx(expected, abs=0.03)
    mean = sum(overlap for overlap in overlaps if overlap >= 0.5) / len(overlaps)
    assert metrics.mean(scores["mIoU"] for scores in results) == pytest.approx(mean, abs=0.03)


def test_without_noise_every_document_reaches_its_grids_ceiling():
    docs = documents("rec", 5, expression="cat", bbox=[11.0, 13.0, 29.0, 41.0])
    for form in ("ferret", "llava:pad", "qwen2.5-vl", "kosmos-2", "internvl"):
        own = [{**doc, "width": 640, "height": 480, "box_format": form} for doc in docs]
        for doc, text in zip(own, answers(oracle(docs=own, box_format=form), "t", own)):
            (item,) = rec.process_results(doc, [text])["details"]["items"]
            assert item["iou"] == pytest.approx(item["ceiling"])


# --- prediction files


def predictions(tmp_path, *records):
    file = tmp_path / "said.jsonl"
    file.write_text(
        "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records)
    )
    return str(file)


def test_a_file_is_scored_by_id_in_any_order(tmp_path):
    docs = documents("rec", 3, expression="cat", bbox=BOX)
    file = predictions(
        tmp_path, {"id": 2, "text": "two"}, {"id": "0", "text": "zero"}, "", {"id": "1", "text": ""}
    )
    assert answers(oracle(docs=docs, predictions=file, box_format="shikra"), "t", docs) == ["zero", "", "two"]


def test_a_line_with_the_tasks_name_wins(tmp_path):
    docs = documents("rec", 1, expression="cat", bbox=BOX)
    file = predictions(tmp_path, {"id": "0", "text": "any"}, {"id": "0", "text": "own", "task": "t"})
    assert answers(oracle(docs=docs, predictions=file), "t", docs) == ["own"]


def test_answers_to_single_phrases_become_one_to_the_caption(tmp_path):
    asked = [
        {"id": "7_0_1", "phrase": "A man", "boxes": [BOX]},
        {"id": "7_0_2", "phrase": "dog, brown", "boxes": [BOX]},
    ]
    (doc,) = [
        {**doc, "id": "7_0", "box_format": "ferret"}
        for doc in documents("phrases", 1, caption="c", phrases=asked)
    ]
    file = predictions(tmp_path, {"id": "7_0_1", "text": "[1, 2, 3, 4]"}, {"id": "7_0_2", "text": "no idea"})
    assert answers(oracle(docs=[doc], predictions=file, box_format="ferret"), "t", [doc]) == [
        "A man [1, 2, 3, 4]"
    ]


@pytest.mark.parametrize(
    "records, words",
    [
        ([{"id": "0", "text": "a"}, {"id": "9", "text": "a"}], "id 9 is in none of the tasks (t)"),
        ([{"id": "0", "text": "a"}], "lacks id 1 of t (1 of 2 are missing)"),
        ([{"id": "9", "text": "a", "task": "t"}], "id 9 of t is in none of the tasks (t)"),
        (
            [{"id": "0", "text": "a", "task": "u"}, {"id": "1", "text": "a"}],
            "lacks id 0 of t (1 of 2 are missing)",
        ),
    ],
)
def test_ids_that_do_not_fit_are_refused_in_one_line(tmp_path, capsys, records, words):
    docs = documents("rec", 2, expression="cat", bbox=BOX)
    with pytest.raises(Refusal):
        answers(oracle(docs=docs, predictions=predictions(tmp_path, *records)), "t", docs)
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_answers_are_read_however_they_are_saved(tmp_path, encoding):
    from spr_plugin.eval_tasks.oracle import Predictions

    file = tmp_path / "said.jsonl"
    file.write_bytes(
        '{"id": 1, "text": "a\u2028b"}\r\n\r\n{"id": 2, "text": "\\ud83d"}\r\n\n'.encode(encoding)
    )
    assert Predictions(file).texts == {(None, "1"): "a\u2028b", (None, "2"): "\ufffd"}


@pytest.mark.parametrize(
    "record",
    [
        "[" * 5000,
        '{"id": 1, "text": "a", "task": []}',
        "{",
        "[1]",
        '{"id": 1}',
        '{"id": 1, "text": 3}',
        '{"text": "a"}',
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path, record):
    from spr_plugin.eval_tasks.oracle import Predictions

    with pytest.raises(UserError, match='line 2: (is not {"id"|not JSON|task is no name)'):
        Predictions(type(tmp_path)(predictions(tmp_path, {"id": 0, "text": "a"}, record)))


def test_a_doubled_id_and_a_missing_file_are_named(tmp_path, capsys):
    for file in (
        predictions(tmp_path, {"id": 0, "text": "a"}, {"id": "0", "text": "b"}),
        str(tmp_path / "gone.jsonl"),
    ):
        with pytest.raises(Refusal):
            oracle(predictions=file)
    first, second = capsys.readouterr().err.splitlines()
    assert "line 2: id 0 stands there twice" in first and "gone.jsonl: No such file" in second


def test_wrong_arguments_are_refused(capsys):
    for arguments in ({"box_format": "nonsense"}, {"noise": "much"}):
        with pytest.raises(Refusal):
            oracle(**arguments)
    assert capsys.readouterr().err.count("spr: error: --model spr_oracle") == 2


# --- every task through the real lmms-eval, in one process


EVERYTHING = """
import json, sys
from pathlib import Path
from lmms_eval.evaluator import simple_evaluate

truth = simple_evaluate(model="spr_oracle", model_args="box_format=ferret", tasks=["spr"], bootstrap_iters=0)
said = [{"id": s["details"]["id"], "task": task, "text": s["filtered_resps"][0]} for task, rows in truth["samples"].items() for s in rows]
Path(sys.argv[1], "said.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in said))
again = simple_evaluate(model="spr_oracle", model_args=f"predictions={sys.argv[1]}/said.jsonl,box_format=ferret",
                        tasks=["spr_refcoco", "spr_flickr30k", "spr_lvis", "spr_grounded_description"], bootstrap_iters=0)
noisy = simple_evaluate(model="spr_oracle", model_args="box_format=ferret,noise=0.5", tasks=["spr_rec"], bootstrap_iters=0)
Path(sys.argv[1], "found.json").write_text(json.dumps([found["results"] for found in (truth, again, noisy)], default=str))
"""  # noqa: E501


@pytest.fixture(scope="module")
def everything(all_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    (folder / "run.py").write_text(EVERYTHING)
    environment = {
        **os.environ,
        "SPR_DATA_ROOT": str(all_data),
        "LMMS_EVAL_DATASETS_CACHE": str(folder / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-I", "run.py", str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
def test_the_truth_is_right_in_every_task(everything):
    truth, again, _ = everything
    assert {split.task for split in PUBLISHED} | {"spr_rec"} <= set(truth)
    for task, results in truth.items():
        for name in (
            "Acc@0.5",
            "Acc@0.9",
            "accuracy",
            "strict_accuracy",
            "precision",
            "recall",
            "phrase_recall",
        ):
            assert results.get(f"{name},none", 1.0) == 1.0, (task, name)
    caption = truth["spr_region_caption_refcocog"]
    assert caption["BLEU-4,none"] == pytest.approx(1) and caption["ROUGE-L,none"] == pytest.approx(1)
    for task in again:
        own, other = (
            {key: value for key, value in found[task].items() if "_stderr" not in key and key != "alias"}
            for found in (truth, again)
        )
        assert own == other


@pytest.mark.slow
def test_groups_sum_up_by_sample_and_the_papers_mean_is_plain(everything):
    noisy = everything[2]
    for group in GROUPS["spr_rec"][0]:
        sizes = [20, 40, 60][: len(GROUPS[group][0])]
        for name in ("Acc@0.6", "mIoU", "parse_failure"):
            values = [noisy[task][f"{name},none"] for task in GROUPS[group][0]]
            assert noisy[group][f"{name},none"] == pytest.approx(
                sum(v * n for v, n in zip(values, sizes)) / sum(sizes)
            )
            (pooled,) = [row for row in noisy[group]["details,none"] if row["figure"] == name]
            assert pooled["value"] == pytest.approx(noisy[group][f"{name},none"]) and pooled["n"] == sum(
                sizes
            )
    splits = [task for group in GROUPS["spr_rec"][0] for task in GROUPS[group][0]]
    for name in metrics.ACCURACIES:
        plain = sum(noisy[task][f"{name},none"] for task in splits) / 8
        assert noisy["spr_rec"][f"{name},none"] == pytest.approx(plain)
    assert noisy["spr_rec"]["Acc@0.5,none"] == pytest.approx(2 / 3, abs=0.15)


def test_every_local_layout_is_read(all_data):
    counts = {split.task: len(data.read_folder(str(all_data), split)) for split in PUBLISHED}
    assert (
        counts["spr_grounded_description_val"] == 6
        and counts["spr_lvis_point"] == 40
        and min(counts.values()) > 0
    )
