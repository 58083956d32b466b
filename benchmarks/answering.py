"""Answering lmms-eval's requests: its own ``llava`` at several batch sizes, our ``spr_llava``, and the bare
matrix products that nobody can do without. Part of ``benchmarks/evaluation.py``.

A random LLaVA of 83 M parameters with 576 image tokens is asked seven expressions a picture, as RefCOCO asks;
the stop token is suppressed, so that every answer has as many tokens as a box. All rows take turns in one
process with one thread.
"""

import shutil
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image
from sampling import large_host, suppress_stop
from torch.nn.functional import linear, scaled_dot_product_attention

from spr_plugin.sampling.decoding import beginnings

WORLD = Path(__file__).parents[1] / "examples" / "tiny_world"
EXPRESSIONS = (
    "woman in red",
    "left guy",
    "the dog on the right side of the couch",
    "bowl with carrots",
    "man with a hat and a blue shirt",
    "second from left",
    "white car behind the bus",
)
ASK = "Please provide the bounding box coordinate of the region this sentence describes: {}."
TOKENS = 26  # [0.12, 0.34, 0.56, 0.78] in LLaMA's tokenizer, with its end
PICTURES = 4
BATCHES = (1, 7)


def requests(pictures: list) -> tuple[dict, list]:
    """lmms-eval's ``task_dict``, and its requests for each picture's expressions."""
    from lmms_eval.api.instance import Instance

    documents = [{"picture": picture} for picture in pictures for _ in EXPRESSIONS]
    how = {"max_new_tokens": TOKENS, "temperature": 0, "do_sample": False, "until": ["<end>"]}
    made = []
    for number in range(len(documents)):
        text = ASK.format(EXPRESSIONS[number % len(EXPRESSIONS)])
        asked = (text, dict(how), lambda document: [document["picture"]], number, "refcoco", "test")
        about = {"task": "refcoco", "doc_id": number, "repeats": 1}
        made.append(Instance("generate_until", asked, 0, about))
    return {"refcoco": {"test": documents}}, made


def written(folder: Path) -> Path:
    """The checkpoint that is asked, in LLaVA's layout."""
    host, checkpoint = large_host(folder), folder / "llava-large"
    host.save(str(checkpoint))
    host.tokenizer.save_pretrained(checkpoint)
    return checkpoint


def models(folder: Path) -> tuple:
    """lmms-eval's model and ours of one checkpoint, whose answers never end before their last token."""
    import lmms_eval.models

    checkpoint = written(folder)
    theirs, ours = (
        lmms_eval.models.get_model(name)(pretrained=str(checkpoint), device="cpu", device_map=where)
        for name, where in (("llava", "auto"), ("spr_llava", "cpu"))
    )
    theirs.model.config.tokenizer_padding_side = "left"  # as our tasks let it be
    for llava in (theirs.model, ours.questioned.llava):
        suppress_stop(SimpleNamespace(llava=llava, stop_tokens=ours.questioned.stop_tokens))
    return theirs, ours


def bare(questioned, rows: list[dict], pictures: int) -> None:
    """The products of answering ``pictures`` times these rows of one picture, on tensors of their shapes: the
    tower, what the rows begin with a picture, their other tokens, and the answers' tokens one by one.
    """
    llava = questioned.llava
    ((_, cut),) = beginnings(questioned, rows)
    tower = llava.get_vision_tower()
    beginning, rest = cut - 1 + tower.num_patches, max(len(row["input_ids"]) for row in rows) - cut
    config, heads, layers = llava.config, llava.config.num_attention_heads, llava.get_model().layers
    weights = [[weight for weight in layer.parameters() if weight.ndim == 2] for layer in layers]

    def forwarded(count: int, new: int, past: int) -> None:
        given = {width: torch.ones(count * new, width) for width in {w.shape[1] for w in weights[0]}}
        query = torch.ones(count, heads, new, config.hidden_size // heads)
        keys = torch.ones(count, heads, past + new, config.hidden_size // heads)
        for layer in weights:
            for weight in layer:
                linear(given[weight.shape[1]], weight)
            scaled_dot_product_attention(query, keys, keys, is_causal=new > 1 and not past)
        linear(torch.ones(count, config.hidden_size), llava.lm_head.weight)

    llava.encode_images(torch.zeros(pictures, 3, tower.config.image_size, tower.config.image_size))
    forwarded(pictures, beginning, 0)
    forwarded(pictures * len(rows), rest, beginning)
    for token in range(TOKENS - 1):
        forwarded(pictures * len(rows), 1, beginning + rest + token)


@torch.no_grad()
def measured(folder: Path, rounds: int) -> dict:
    """CPU seconds by row (the machine may be shared, and one thread does all), and their ratios."""
    theirs, ours = models(folder)
    files = sorted((folder / "images").iterdir())[:PICTURES]
    pictures = [Image.open(file).convert("RGB") for file in files]
    documents, made = requests(pictures)
    theirs.task_dict = ours.task_dict = documents
    rows = ours.questioned.questions(pictures[:1], [one.args[0] for one in made[: len(EXPRESSIONS)]])

    def llava(batch: int) -> list[str]:
        theirs.batch_size_per_gpu = batch
        return theirs.generate_until(requests(pictures)[1])

    ways = {
        "bound_s": lambda: bare(ours.questioned, rows, len(pictures)),
        "spr_llava_s": lambda: ours.generate_until(made),
        **{f"llava_{batch}_s": lambda batch=batch: llava(batch) for batch in BATCHES},
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[str]] = {}
    bare(ours.questioned, rows, 1)  # imports, first calls
    ours.generate_until(made[: len(EXPRESSIONS)])
    for turn in range(rounds):
        for name, way in ways.items():
            if turn and name.startswith("llava"):
                continue  # three times as long, and far from the target
            start = time.process_time()
            answers[name] = way()
            seconds[name].append(time.process_time() - start)
            print(f"{name:20}{seconds[name][-1]:8.1f}", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(medians[f"llava_{batch}_s"] for batch in BATCHES)
    return {
        **medians,
        "speedup_vs_llava": best / medians["spr_llava_s"],
        "of_bound": medians["bound_s"] / medians["spr_llava_s"],
        "equal_answers": statistics.mean(
            map(str.__eq__, answers["spr_llava_s"], answers[f"llava_{BATCHES[0]}_s"])
        ),
        "parameters": sum(parameter.numel() for parameter in ours.questioned.llava.parameters()),
    }


def hf_models(folder: Path) -> tuple:
    """The same weights as transformers' ``LlavaForConditionalGeneration``: lmms-eval's model and ours."""
    sys.path.insert(0, str(WORLD))  # scripts, no package
    import lmms_eval.models
    from lmms_eval.models.simple import llava_hf

    import convert

    llava = written(folder)
    shutil.copytree(folder / "clip", llava / "vision_tower")
    for part in convert.to_transformers(llava):
        part.save_pretrained(folder / "hf")
    where = {"pretrained": str(folder / "hf"), "device": "cpu"}
    theirs = lmms_eval.models.get_model("llava_hf", force_simple=True)(
        **where, device_map="cpu", chat_template=llava_hf.VICUNA_CHAT_TEMPLATE
    )
    ours = lmms_eval.models.get_model("spr_hf", force_simple=True)(**where)
    for model in (theirs.model, ours.questioned.vlm):
        stop = SimpleNamespace(llava=model, stop_tokens=[model.config.text_config.eos_token_id])
        suppress_stop(stop)
    return theirs, ours


@torch.no_grad()
def measured_hf(folder: Path, rounds: int) -> dict:
    """CPU seconds of lmms-eval's ``llava_hf``, which takes one question at a time, and of ``spr_hf``."""
    try:
        theirs, ours = hf_models(folder)
    except ModuleNotFoundError as error:
        raise SystemExit(f"lmms-eval's llava_hf needs {error.name}: pip install {error.name}") from None
    pictures = [Image.open(file).convert("RGB") for file in sorted((folder / "images").iterdir())[:PICTURES]]
    theirs.task_dict = ours.task_dict = requests(pictures)[0]
    ours.generate_until(requests(pictures)[1][: len(EXPRESSIONS)])
    seconds: dict[str, list[float]] = {"spr_hf_s": [], "llava_hf_s": []}
    for _ in range(rounds):
        for name, model in (("spr_hf_s", ours), ("llava_hf_s", theirs)):
            start = time.process_time()
            model.generate_until(requests(pictures)[1])
            seconds[name].append(time.process_time() - start)
            print(f"{name:20}{seconds[name][-1]:8.1f}", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {**medians, "speedup_vs_llava_hf": medians["llava_hf_s"] / medians["spr_hf_s"]}
