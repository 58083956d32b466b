"""Our models in the real lmms-eval, beside lmms-eval's own, on the embedded LLaVA."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

lmms_eval = pytest.importorskip("lmms_eval")
pytest.importorskip("llava")

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples/tiny_world/llava"
ASK = "Please provide the bounding box coordinate of the region this sentence describes: {}."
GREEDY = {"max_new_tokens": 64, "temperature": 0, "do_sample": False, "until": ["\n\n"]}


@pytest.fixture(scope="module")
def at_root():
    """The checkpoint names its vision tower from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def ours(at_root):
    import lmms_eval.models

    asked = "pretrained={},conv_template=vicuna_v1,device_map=auto"  # as people ask lmms-eval's llava
    kind = lmms_eval.models.get_model("spr_llava")
    return kind.create_from_arg_string(asked.format(TINY), {"device": "cpu", "batch_size": 1})


@pytest.fixture(scope="module")
def theirs(at_root):
    import lmms_eval.models

    made = lmms_eval.models.get_model("llava")(
        pretrained=str(TINY), device="cpu", device_map="auto", batch_size=8
    )
    made.model.config.tokenizer_padding_side = "left"  # as our tasks let it be: running.pad_left
    return made


@pytest.fixture(scope="module")
def pictures(tiny_world):
    """Of different shapes."""
    shown = [
        Image.open(path).convert("RGB") for path in sorted((tiny_world(sft=24) / "images").rglob("*.png"))
    ]
    shapes = [(0, 0, side, 112) for side in (112, 80)]
    return [picture.crop(shapes[index % 2]) for index, picture in enumerate(shown[:24])]


EXPRESSIONS = [f"{colour} {shape}" for colour in ("red", "blue", "green") for shape in ("circle", "square")]


def asked(model, rows, task="t", **settings):
    """lmms-eval's requests about (prompt, pictures) rows, whose documents `model` gets."""
    from lmms_eval.api.instance import Instance

    model.task_dict = {task: {"test": [{"shown": shown} for _, shown in rows]}}
    how = {name: value for name, value in {**GREEDY, **settings}.items() if value is not None}
    made = []
    for index, (text, _) in enumerate(rows):
        arguments = (text, dict(how), lambda doc: doc["shown"], index, task, "test")
        about = {"task": task, "doc_id": index, "repeats": 1}
        made.append(Instance("generate_until", arguments, 0, about))
    return made


def answers(model, rows, **settings):
    return model.generate_until(asked(model, rows, **settings))


def closest(model, row, steps) -> float:
    """The smallest gap between the two likeliest tokens on the way of an answer."""
    from spr_plugin.sampling.decoding import decode

    gaps = []

    def likeliest(logits, noise):
        best = logits.topk(2, -1).values
        gaps.append(float(best[0, 0] - best[0, 1]))
        return logits.argmax(-1)

    text, shown = row
    decode(model.questioned, model.questioned.questions(shown, [text]), [[0]], likeliest, steps)
    return min(gaps)


@pytest.mark.slow
def test_it_says_what_lmms_eval_s_llava_says(ours, theirs, pictures):
    """Seven questions a picture, in no order: expressions, a description, a yes or no."""
    others = ["Describe the objects in the image with their bounding boxes."]
    questions = [*map(ASK.format, EXPRESSIONS[:5]), *others, "Is there a ring in the image?"]
    rows = [(text, [picture]) for picture in pictures for text in questions]
    random.shuffle(rows)
    seen = []
    tower = ours.questioned.llava.get_vision_tower().vision_tower
    hook = tower.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    written = answers(ours, rows)
    hook.remove()
    wanted = answers(theirs, rows)
    differ = [row for row, one, other in zip(rows, written, wanted) if one != other]
    assert len(differ) <= 1 and all(closest(ours, row, 64) < 1e-4 for row in differ), differ
    assert len(rows) == 168 and len(set(written)) > 60 and sum(seen) == len(pictures)


@pytest.mark.slow
def test_no_answer_depends_on_the_batch(ours, pictures, monkeypatch):
    from spr_plugin.eval_tasks import asking

    rows = [(ASK.format(text), [picture]) for picture in pictures[:3] for text in EXPRESSIONS]
    wanted = answers(ours, rows)
    for size, window, pixels in ((1, 256, 1 << 27), (4, 256, 1 << 27), (32, 5, 1 << 27), (9, 256, 1)):
        monkeypatch.setattr(ours, "batch_size", size)
        monkeypatch.setattr(asking, "WINDOW", window)
        monkeypatch.setattr(asking, "PIXELS", pixels)
        assert answers(ours, rows) == wanted


@pytest.mark.slow
def test_several_pictures_none_and_places_in_the_text(ours, theirs, pictures, monkeypatch):
    monkeypatch.setattr(theirs, "batch_size_per_gpu", 1)
    first, second = pictures[:2]
    rows = [
        ("Is there a ring in the image?", [first, second]),
        ("A <image>\nand <image> too: describe the second.", [second, first]),
        ("Describe it. <image>", [first]),
        ("Is there a ring in the first <image>?", [first, second]),
        ("Is there a ring in the image?", []),
        ("Describe the objects.", []),
    ]
    assert answers(ours, rows) == answers(theirs, rows)
    with pytest.raises(SystemExit):
        answers(ours, [("<image> or <image>?", [first])])


@pytest.mark.slow
def test_answers_are_as_long_as_each_task_says(ours, theirs, pictures):
    rows = [("Describe the objects in the image with their bounding boxes.", [pictures[0]])]
    for longest in (1, 5, 17):
        assert answers(ours, rows, max_new_tokens=longest) == answers(theirs, rows, max_new_tokens=longest)
    # lmms-eval's llava does not stop there
    assert answers(ours, rows, until=[" "]) == answers(theirs, rows, until=[" "]) == answers(ours, rows)
    both = asked(ours, rows * 2)
    both[0].args[1]["max_new_tokens"] = 3
    short, long = ours.generate_until(both)
    assert long.startswith(short) and len(short) < len(long)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings, said",
    [
        (
            {"temperature": 0.7},
            "t asks for temperature 0.7, and answers are greedy: give --gen_kwargs temperature=0",
        ),
        ({"num_beams": 3}, "num_beams 3"),
        ({"temperature": 1, "num_beams": 2}, "give --gen_kwargs temperature=0,num_beams=1"),
    ],
)
def test_what_is_not_greedy_is_refused(ours, pictures, settings, said, capfd):
    with pytest.raises(SystemExit) as refused:
        answers(ours, [("Where?", pictures[:1])], **settings)
    assert said in refused.value.message and capfd.readouterr().err.count("spr: error: ") == 1
    assert answers(ours, [("Where?", pictures[:1])], temperature=0.0, num_beams=None, max_new_tokens=2)


@pytest.mark.slow
def test_what_is_no_picture_or_no_text_is_refused(ours, pictures):
    with pytest.raises(SystemExit) as refused:
        answers(ours, [("What happens?", ["film.mp4"])])
    assert "t shows a str" in refused.value.message
    requests = asked(ours, [("Where?", pictures[:1])])
    for ask in (ours.loglikelihood, ours.generate_until_multi_round):
        with pytest.raises(SystemExit) as refused:
            ask(requests)
        assert "answers in text, once: t asks for" in refused.value.message


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, given, said",
    [
        ("spr_llava", {"pretrained": "/nowhere/llava"}, "pretrained /nowhere/llava: cannot be loaded"),
        ("spr_llava", {"conv_template": "vicuna"}, "conv_template vicuna is none of "),
        ("spr_llava", {"temprature": 0}, "--model_args temprature is none of pretrained, conv_template"),
        ("spr_llava", {"batch_size": "many"}, "--batch_size many: give a number of prompts, or auto"),
        ("spr_llava", {"batch_size": "0"}, "--batch_size 0"),
        ("spr_hf", {"pretrained": "/nowhere"}, "--model spr_hf: pretrained /nowhere: cannot be loaded"),
        ("spr_hf", {"conv_template": "vicuna_v1"}, "conv_template is none of pretrained, dtype"),
    ],
)
def test_what_cannot_be_asked_is_refused(at_root, name, given, said):
    import lmms_eval.models

    with pytest.raises(SystemExit) as refused:
        lmms_eval.models.get_model(name)(**{"pretrained": str(TINY), "device": "cpu", **given})
    assert said in refused.value.message


@pytest.mark.parametrize(
    "given, rows", [(None, 32), (1, 32), ("auto", 32), ("auto:4", 32), ("1", 1), ("9", 9), (9, 9)]
)
def test_rows_together(given, rows):
    from spr_plugin.eval_tasks.model import rows_together

    assert rows_together(given) == rows


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_answered_in_parts(ours, pictures, monkeypatch, capfd):
    from spr_plugin.eval_tasks import model

    decode, sizes = model.decode, []

    def small_memory(host, rows, *rest, **named):
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.cuda.OutOfMemoryError
        return decode(host, rows, *rest, **named)

    rows = [(ASK.format(text), [picture]) for picture in pictures[:2] for text in EXPRESSIONS]
    wanted = answers(ours, rows)
    monkeypatch.setattr(model, "decode", small_memory)
    monkeypatch.setattr(ours, "batch_size", 12)
    assert answers(ours, rows) == wanted and sizes == [12, 6, 3, 3, 6, 3, 3] and ours.batch_size == 3
    assert "12 prompts do not fit in memory: 6 are" in capfd.readouterr().err


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The embedded LLaVA in transformers' own layout, with a processor and its chat template."""
    folder = tmp_path_factory.mktemp("converted") / "tiny"
    script = ROOT / "examples/tiny_world/convert.py"
    subprocess.run([sys.executable, script, folder], check=True, cwd=ROOT, capture_output=True)
    return folder


@pytest.mark.slow
def test_a_model_of_transformers_says_what_its_generate_says(converted, pictures):
    import lmms_eval.models

    model = lmms_eval.models.get_model("spr_hf")(pretrained=str(converted), device="cpu")
    rows = [(ASK.format(text), [picture]) for picture in pictures[:3] for text in EXPRESSIONS[:4]]
    rows.append(("A <image> then: describe it.", [pictures[0]]))
    written, wanted = answers(model, rows), []
    vlm, processor = model.questioned.vlm, model.questioned.processor
    for text, shown in rows:
        row = model.questioned.question(shown, text)
        inputs = model.questioned.batch([row], "left")
        out = vlm.generate(**inputs, do_sample=False, max_new_tokens=64, max_length=None)
        asked = inputs["input_ids"].shape[1]
        wanted.append(processor.tokenizer.decode(out[0][asked:], skip_special_tokens=True))
    assert written == wanted and len(set(written)) > 4
    assert answers(model, rows[:1], until=[", "]) == [written[0].partition(", ")[0]]
    assert model.config.model_type == "llava" and model.rank == 0 and model.world_size == 1
    model.clean()
    assert not hasattr(model, "questioned")


@pytest.mark.slow
def test_two_processes_by_lmms_eval_s_command(data_root, launcher, tmp_path):
    """Each answers its documents; every one is there once, with what one process says."""
    command = [*launcher(2), "lmms_eval", "--model", "spr_llava", "--model_args", f"pretrained={TINY}"]
    command += ["--tasks", "spr_refcoco_val", "--log_samples", "--output_path", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    (file,) = (tmp_path / "out").rglob("*_samples_spr_refcoco_val.jsonl")
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    assert done.returncode == 0
    assert Counter(sample["details"]["id"] for sample in samples) == Counter(f"val-{n}" for n in range(6))
    assert all(sample["filtered_resps"][0] for sample in samples)


# --- questions put as a recipe puts its own


@pytest.mark.parametrize(
    ("recipe", "says", "put", "said"),
    [
        ("spatial_ssrl", r"<think>So.</think> \boxed{B}", r"in \boxed{}.", "B"),
        ("actial", "<think>So.</think><answer>left</answer>", "<answer> and </answer>.", "left"),
        (
            "spatial_thinker",
            '<observe></observe><scene>{"objects": []}</scene><think></think><answer>(B) left</answer>',
            "Image size: 112 x 112",
            "(B) left",
        ),
    ],
)
def test_other_people_s_questions_are_put_as_a_recipe_s(
    at_root, pictures, monkeypatch, recipe, says, put, said
):
    """Their prompts get the recipe's words, answers may be long, and of them the answer alone counts; our own
    tasks are asked as they are.
    """
    import lmms_eval.models

    monkeypatch.setenv("SPR_BOX_FORMAT", "llava:square")
    made = f"pretrained={TINY},recipe={recipe}"
    model = lmms_eval.models.get_model("spr_llava").create_from_arg_string(made, {"device": "cpu"})
    seen, questions = [], model.questioned.questions
    monkeypatch.setattr(
        model.questioned, "questions", lambda *given: seen.append(given[1]) or questions(*given)
    )
    monkeypatch.setattr(model.questioned, "texts", lambda answers: [says for _ in answers])
    square = pictures[0].resize((112, 112))
    theirs = answers(model, [("Left of what? A or B?", [square])], task="cv_bench", max_new_tokens=4)
    assert theirs == [said] and seen[-1][0].startswith("Left of what?") and put in seen[-1][0]
    assert answers(model, [("Left?", [square])], task="spr_viewpoint", max_new_tokens=4) == [says]
    assert seen[-1] == ["Left?"]
    assert answers(model, [("Left?", [])], task="cv_bench", max_new_tokens=4) == [said] and seen[-1] == [
        "Left?"
    ]
    monkeypatch.setattr(model.questioned, "texts", lambda answers: ["It is B." for _ in answers])
    assert answers(model, [("Left?", [square])], task="cv_bench", max_new_tokens=4) == ["It is B."]


def test_a_recipe_that_nobody_has_is_refused(at_root, monkeypatch, capfd):
    import lmms_eval.models

    monkeypatch.setenv("SPR_BOX_FORMAT", "llava:square")
    made = f"pretrained={TINY},recipe=other"
    with pytest.raises(SystemExit):
        lmms_eval.models.get_model("spr_llava").create_from_arg_string(made, {"device": "cpu"})
    assert "--model_args recipe=other: --spr_recipe other: no plugin has it" in capfd.readouterr().err
