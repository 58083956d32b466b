"""GRPO with an IoU reward by TRL's own trainer, the VLM-R1 way: what SPR is compared with.

    python examples/tiny_world/reproduce/grpo.py --model examples/tiny_world/llava
        --annotations DATA/spr.json --image_folder DATA/images --budget RUN/spr --output_dir OUT
        [flags of trl.GRPOConfig]

The base is converted to transformers' layout (convert.py), answers referring expressions about the scenes
that SPR describes, asked as RefCOCO asks, and is rewarded with the IoU of its box; OUT gets it back in
LLaVA's layout, and ``grpo.json``. As in SPR, the language model alone is trained.

**Equal tokens.** A generated token is one of a sampled answer, its end included; a trained token is one of an
answer in the loss, counted in every pass
over it. Prompts and pictures count on neither side: GRPO's answers are short, so that it reads many more of
them, and wall time shows that. SPR trains on two answers of six, so that it generates about three tokens for
each one in its loss, where plain GRPO trains once on all that it generates and so can meet one budget only.
Here a step generates answers and trains on the share of them with the largest advantages (either sign), as
completion pruning does (CPPO, arXiv 2503.22342): those carry most of the gradient. Advantages are of the
whole group. Were SPR's trained tokens the more, answers would be used several times (GRPO's iterations μ).

**Wall time** is fair: answers come from the sampler that SPR uses, which reads picture and question once for
all answers to them.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # scripts, no packages
import convert  # noqa: E402
import painting  # noqa: E402
import scenes  # noqa: E402
import wording  # noqa: E402
from spr_plugin import runs  # noqa: E402
from spr_plugin.boxes import Box, Space, iou  # noqa: E402
from spr_plugin.config import SPRConfig  # noqa: E402
from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.eval_tasks.answers import first_box  # noqa: E402
from spr_plugin.files import write_json  # noqa: E402
from spr_plugin.formats import BoxFormat  # noqa: E402
from spr_plugin.progress import say  # noqa: E402

TOLERANCE = 0.1
FOUND = "grpo.json"


@dataclasses.dataclass
class Comparison:
    """What is trained, on what, with how many tokens."""

    model: str = dataclasses.field(
        metadata={"help": "checkpoint in LLaVA's layout, its tower in vision_tower/"}
    )
    annotations: str = dataclasses.field(metadata={"help": "COCO JSON of the tiny world's scenes"})
    image_folder: str = dataclasses.field(metadata={"help": "of its file names"})
    budget: str = dataclasses.field(
        metadata={
            "help": "OUTPUT_DIR/spr of a finished run of SPR from the same model, whose tokens are to be met"
        }
    )


def command(data: Path, spr: Path, out: Path, flags: str) -> list[str]:
    """This script's command line on a data folder of the tiny world."""
    places = {
        "model": convert.TINY,
        "annotations": data / "spr.json",
        "image_folder": data / "images",
        "budget": spr,
        "output_dir": out,
    }
    return [
        sys.executable,
        __file__,
        *(str(word) for name, place in places.items() for word in (f"--{name}", place)),
        *flags.split(),
    ]


# --- budgets


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Of answers: how many were sampled, and how many stood in a loss (once for each pass)."""

    generated: int
    trained: int

    def off(self, other: "Tokens") -> float:
        """The larger of the two relative differences from `other`."""
        return max(
            abs(mine / theirs - 1)
            for mine, theirs in zip(dataclasses.astuple(self), dataclasses.astuple(other))
        )


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How GRPO meets a budget.

    Attributes:
        batches: times that a batch of answers is generated.
        kept: answers of a batch that are trained on.
        iterations: optimizer steps on those (GRPO's μ).
    """

    batches: int
    kept: int
    iterations: int


def spent(run: Path, count) -> Tokens:
    """What a run of SPR spent on sampling and on DPO; `count` gives a text's tokens. Pairs of held-out
    regions were not trained on.
    """
    made = runs.open(run)
    lengths = made.records("lengths")
    if not lengths:
        raise UserError(f"{run}: no finished run of SPR whose tokens could be met")
    pairs, asked = made.records("pairs"), made.records("candidates")
    trained = sum(
        count(pairs[record["pair"]][side])
        for record in lengths.values()
        if record["fits"]
        for side in ("chosen", "rejected")
    )
    return Tokens(
        sum(count(answer["raw"]) for answer in asked.values()), round(made.config["spr_epochs"] * trained)
    )


def schedule(budget: Tokens, answer: float, batch: int) -> Schedule:
    """Meet `budget` with answers of `answer` tokens, `batch` of which are generated at once. UserError where
    so coarse steps cannot, within TOLERANCE.
    """
    iterations = math.ceil(budget.trained / budget.generated)
    kept = round(batch * budget.trained / (budget.generated * iterations))
    batches = round(budget.generated / (answer * batch))
    made = Tokens(round(batches * batch * answer), round(batches * kept * iterations * answer))
    if made.off(budget) > TOLERANCE:
        raise UserError(
            f"--per_device_train_batch_size {batch}: {batches} batches of so many answers would be {made},"
            f" SPR's are {budget}; take a smaller one"
        )
    return Schedule(batches, kept, iterations)


# --- questions and their reward


def questions(coco: dict, image_folder: Path, count: int, seed: int) -> list[dict]:
    """`count` questions, one about each scene, then a second one about each …: picture, prompt, its size, the
    true box in its pixels.
    """
    names, images = ({row["id"]: row for row in coco[kind]} for kind in ("categories", "images"))
    things = {id: [] for id in images}
    for row in coco["annotations"]:
        x, y, w, h = row["bbox"]
        things[row["image_id"]].append(
            painting.Thing(*names[row["category_id"]]["name"].split(), (x, y, x + w, y + h))
        )
    shown = [
        (images[id], painting.Scene(0, tuple(found)))
        for id, found in things.items()
        if wording.expressions(found)
    ]
    rng, rows = np.random.default_rng([47, seed]), []
    for image, scene in itertools.islice(itertools.cycle(shown), count):
        ((expression, meant),) = scenes.asked_expressions(scene, rng, most=1)
        turn = {"role": "user", "content": wording.REC.format(name=expression)}
        size = [image["width"], image["height"]]
        rows.append(
            {
                "image": str(Path(image_folder) / image["file_name"]),
                "prompt": [turn],
                "size": size,
                "bbox": list(scene.things[meant].box),
            }
        )
    return rows


def reward(form: BoxFormat, answer: str, size: list[int], bbox: list[float]) -> float:
    """IoU of the first box that is written with the truth, as the evaluation reads it; 0 where there is none
    to be read.
    """
    truth, first = Box(*bbox, Space.pixels(*size)), first_box(form.parse(answer, *size), answer)
    return iou(first.to(truth.space), truth) if first else 0.0


# --- training


def sampler(host, image_token: int, temperature: float):
    """TRL's ``rollout_func``: answers by SPR's sampler, one prefill for the answers to one question; noise by
    torch's seed.
    """
    import torch

    from spr_plugin.sampling.decoding import decode, drawing

    drawn, never, end = drawing(temperature), torch.tensor([image_token]), host.tokenizer.eos_token_id

    def draw(logits, noise):
        return drawn(logits.index_fill(1, never, -torch.inf), noise)

    def rollout(prompts: list, trainer) -> dict:
        each, longest = trainer.num_generations, trainer.max_completion_length
        rows = []
        for (turn,) in prompts[::each]:
            picture, text = (part[part["type"]] for part in turn["content"])
            rows += host.questions([picture], [text])
        said = decode(host, rows, torch.randint(2**62, (len(rows), each)).tolist(), draw, longest)
        answers = [answer + [end] * (len(answer) < longest) for one in said for answer in one]
        return {
            "prompt_ids": [row["input_ids"].tolist() for row in rows for _ in range(each)],
            "completion_ids": answers,
            "logprobs": None,
        }

    return rollout


def trainer(host, rows: list[dict], kept: int, args):
    """TRL's trainer that trains on the `kept` answers of a batch with the largest advantages, and counts
    tokens in ``generated`` and ``trained``.
    """
    import datasets
    from trl import GRPOTrainer

    class PrunedGRPOTrainer(GRPOTrainer):
        generated = trained = 0

        def _generate_and_score_completions(self, inputs):
            made = super()._generate_and_score_completions(inputs)
            best = made["advantages"].abs().argsort(descending=True)[:kept]
            chosen = {name: _rows(value, best) for name, value in made.items()}
            chosen["num_items_in_batch"] = chosen["completion_mask"].sum()
            self.generated += int(made["completion_mask"].sum())
            self.trained += int(chosen["completion_mask"].sum()) * self.num_iterations
            return chosen

    def iou_reward(completions, size, bbox, **_):
        return [
            reward(host.box_format, turns[0]["content"], *truth)
            for turns, *truth in zip(completions, size, bbox)
        ]

    host.vlm.requires_grad_(False)
    for part in host.language_model():
        part.requires_grad_(True)
    data = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    rollout = sampler(host, host.vlm.config.image_token_id, args.temperature)
    return PrunedGRPOTrainer(
        model=host.vlm, reward_funcs=iou_reward, args=args, train_dataset=data, processing_class=host.processor, rollout_func=rollout  # noqa: E501
    )  # fmt: skip


def _rows(value, places):
    """Those rows of a tensor or list; a number stays."""
    if isinstance(value, list):
        return [value[place] for place in places]
    return value[places] if value.ndim else value


@contextlib.contextmanager
def converted(checkpoint: str):
    """Our host of the converted model, read from a folder in transformers' layout: TRL reads its reference
    there too.
    """
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    from spr_plugin.hooks.transformers_vlm import TransformersHost

    with tempfile.TemporaryDirectory() as folder:
        for part in convert.to_transformers(checkpoint):
            part.save_pretrained(folder)
        model = LlavaForConditionalGeneration.from_pretrained(folder)
        # all that sampling asks of a trainer
        untrained = SimpleNamespace(
            model=model, args=SimpleNamespace(device=model.device), is_deepspeed_enabled=False
        )
        yield TransformersHost(
            untrained,
            AutoProcessor.from_pretrained(folder),
            SPRConfig(spr=True, spr_annotations="none is mined"),
        )


def run(task: Comparison, args) -> dict:
    """Train, save, and return what is written to ``grpo.json``."""
    coco = json.loads(Path(task.annotations).read_text())
    with converted(task.model) as host:

        def count(text: str) -> int:
            return len(host.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1  # and the end

        budget, batch = spent(Path(task.budget), count), args.per_device_train_batch_size
        answer = count(wording.box_text((0, 0, 1, 1)))  # a number is one token, so that all boxes are as long
        steps = schedule(budget, answer, batch)
        args.num_iterations, args.max_steps = steps.iterations, steps.batches * steps.iterations
        say(f"GRPO: {budget}; {steps}")
        rows = questions(
            coco, Path(task.image_folder), steps.batches * batch // args.num_generations, args.seed
        )
        work = trainer(host, rows, steps.kept, args)
        work.train()
        made = Tokens(work.generated, work.trained)
        rewards = [round(line["reward"], 4) for line in work.state.log_history if "reward" in line]
        found = {
            "tokens": dataclasses.asdict(made),
            "tokens of SPR": dataclasses.asdict(budget),
            "schedule": dataclasses.asdict(steps),
            "rewards": rewards,
        }
        write_json(Path(args.output_dir) / FOUND, found)
        if made.off(budget) > TOLERANCE:
            raise UserError(
                f"GRPO: {made} are more than {TOLERANCE:.0%} off SPR's {budget}; the model has changed the"
                " length of its answers"
            )
        convert.to_llava(host.vlm, task.model, args.output_dir)
    return found


def parse(words: list[str]) -> tuple:
    """(Comparison, GRPOConfig) of a command line."""
    from transformers import HfArgumentParser
    from trl import GRPOConfig

    return HfArgumentParser((Comparison, GRPOConfig)).parse_args_into_dataclasses(words)


if __name__ == "__main__":
    try:
        run(*parse(sys.argv[1:]))
    except UserError as error:
        print(f"spr: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
