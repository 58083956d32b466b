"""Time and peak memory of one DPO step, ours beside what people use: ``python benchmarks/dpo_step.py --json
FILE``.

One process, one set of weights and pairs, rows alternated, medians. A step is forward and backward to the
gradients of a LoRA adapter, without an optimizer; every row starts from the same input embeddings (image
features given), so that the language model is compared and nobody pays for a vision tower, but for the two
rows that say so. Memory is the peak that a step allocates beyond the weights.

    full            logits of all positions, of policy and of a separate reference model (LLaVA-NeXT's way)
    trl             TRL's fused head as it runs here (completion positions alone only where Triton runs)
    trl_compacted   the same with completion positions alone, as on CUDA
    liger           Liger-Kernel's chunked DPO loss, where it is installed
    prefix          [prompt | chosen | rejected] with full logits and a reference forward: prefix sharing
                    alone, as published
    ours            the stage's own code: joined rows, chunked head, reference log-probs known
    ours_cold       the first epoch's share of the rest: vision tower once, reference forward
    limit           the joined rows and mask given: forward, log-probs of the completion positions, backward;
                    nothing else

The arithmetic bound of a shape is the time of ``full`` divided as its multiplications are: matrix products
alone, at full's rate.
"""

import argparse
import contextlib
import copy
import gc
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F

from spr_plugin.dpo import rows as spr_rows
from spr_plugin.dpo.loss import LossSettings, deltas, preference_losses
from spr_plugin.files import write_json

BETA = 0.1
REFERENCE_SHAPE = dict(layers=4, hidden=256, vocabulary=32000, image=576, prompt=20, completion=80)
OTHER_SHAPES = {
    "hidden 1024": dict(REFERENCE_SHAPE, hidden=1024),
    "vocabulary 152064": dict(REFERENCE_SHAPE, vocabulary=152064),
    "2880 image tokens": dict(REFERENCE_SHAPE, image=2880),
}
SHAPE_7B = dict(
    layers=32,
    hidden=4096,
    vocabulary=32000,
    image=576,
    prompt=20,
    completion=80,
    heads=32,
    intermediate=11008,
)


class Case:
    """One shape: a random Llama with a LoRA adapter, its copy as separate reference, and ``pairs`` pairs of
    embeddings.
    """

    def __init__(self, shape: dict, pairs: int, device: str, dtype: torch.dtype):
        from peft import LoraConfig, get_peft_model
        from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
        from trl.trainer.utils import add_fused_lm_head

        torch.manual_seed(0)
        self.shape, self.pairs, self.device = shape, pairs, device
        width = shape["hidden"]
        config = LlamaConfig(
            hidden_size=width, intermediate_size=shape.get("intermediate", width * 11 // 4), num_hidden_layers=shape["layers"],  # noqa: E501
            num_attention_heads=shape.get("heads", width // 64), vocab_size=shape["vocabulary"], max_position_embeddings=8192,  # noqa: E501
            attn_implementation="sdpa",
        )  # fmt: skip
        with torch.device(device), default_dtype(dtype):
            base = LlamaForCausalLM(config)
        # The copy is made before the adapter: LLaVA-NeXT's reference is a model of its own.
        self.reference = copy.deepcopy(base).requires_grad_(False)
        outputs = ("log_probs", "entropy", "mean_logits", "is_top1")  # what TRL's DPOTrainer asks for
        add_fused_lm_head(base, outputs=outputs)
        self.base = base
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        self.model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=targets))
        for name, parameter in self.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]

        asked, answer = shape["image"] + shape["prompt"], shape["completion"]
        shared = torch.randn(pairs, asked, width) * 0.02
        own = torch.randn(2 * pairs, answer, width) * 0.02
        self.embeddings = torch.cat([shared.repeat(2, 1, 1), own], 1).to(device, dtype)
        self.labels = torch.randint(shape["vocabulary"], (2 * pairs, asked + answer))
        self.labels[:, :asked] = -100
        self.labels = self.labels.to(device)
        self.unshared = [answer] * (2 * pairs)
        self.mask = torch.ones(2 * pairs, asked + answer, dtype=torch.long, device=device)
        self.mean_tokens = torch.ones(pairs, device=device)  # an sft term's, which is not in the loss
        self.batch = {"inputs_embeds": self.embeddings, "attention_mask": self.mask}
        tower = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=4,
            num_attention_heads=width // 64,
            image_size=336,
            patch_size=14,
        )
        self.tower = CLIPVisionModel(tower).to(device, dtype).requires_grad_(False)
        self.pictures = torch.randn(pairs, 3, 336, 336).to(device, dtype)
        joined = spr_rows._joined(self.embeddings, self.batch, self.unshared, {}, None)
        self.joined = {name: value.detach() for name, value in joined.items()}
        self.known = self._known()

    # --- the parts that rows are made of

    def language_model(self):
        return self.base.model, self.base.lm_head

    @contextlib.contextmanager
    def labels_overheard(self):
        yield [self.labels]

    def _answers(self):
        return spr_rows.answers(self, self.model, self.batch, self.unshared, joined=True)

    def _known(self):
        with torch.no_grad(), self.model.disable_adapter():
            return self._answers().sums

    def _loss(self, answers, known):
        pairs = deltas(answers, known, self.mean_tokens)
        return preference_losses(pairs, ["sigmoid"], [1.0], LossSettings(BETA)).mean()

    def _sums(self, logits, labels):
        chosen = (
            logits[:, :-1].float().log_softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
        )
        return (chosen * (labels[:, 1:] != -100)).sum(1)

    def _dpo(self, sums, known):
        (chosen, rejected), (ref_chosen, ref_rejected) = sums.chunk(2), known.chunk(2)
        return -F.logsigmoid(BETA * ((chosen - ref_chosen) - (rejected - ref_rejected))).mean()

    # --- rows

    def full(self):
        with torch.no_grad():
            known = self._sums(self.reference(**self.batch, use_cache=False).logits, self.labels)
        return self._dpo(self._sums(self.model(**self.batch, use_cache=False).logits, self.labels), known)

    def trl(self):
        call = dict(self.batch, labels=self.labels, fused_lm_head=True)
        policy = self.model(**call).log_probs.sum(1)
        with torch.no_grad(), self.model.disable_adapter():
            known = self.model(**call).log_probs.sum(1)
        return self._dpo(policy, known)

    def trl_compacted(self):
        from trl.trainer import utils

        own, utils._use_triton = utils._use_triton, lambda device: True
        try:
            return self.trl()
        finally:
            utils._use_triton = own

    def liger(self):
        from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss

        hidden = self.base.model(**self.batch, use_cache=False).last_hidden_state
        with torch.no_grad():
            known = self.reference.model(**self.batch, use_cache=False).last_hidden_state
        loss = LigerFusedLinearDPOLoss(beta=BETA, compiled=self.device == "cuda")
        head = self.base.lm_head.weight
        return loss(
            head, hidden[:, :-1], self.labels[:, 1:], None, known[:, :-1], self.reference.lm_head.weight
        )[0]

    def prefix(self):
        with torch.no_grad():
            known = self._joined_sums(self.reference(**self.joined, use_cache=False).logits)
        return self._dpo(self._joined_sums(self.model(**self.joined, use_cache=False).logits), known)

    def _joined_sums(self, logits):
        asked, answer = self.shape["image"] + self.shape["prompt"], self.shape["completion"]
        log_probs = logits.float().log_softmax(-1)
        chosen = log_probs[:, asked - 1 : asked + answer - 1]
        rejected = torch.cat(
            [log_probs[:, asked - 1 : asked], log_probs[:, asked + answer : asked + 2 * answer - 1]], 1
        )
        both = torch.cat([chosen, rejected])
        return both.gather(-1, self.labels[:, asked:, None])[..., 0].sum(1)

    def ours(self):
        return self._loss(self._answers(), self.known)

    def ours_cold(self):
        with torch.no_grad():
            self.tower(self.pictures)
        return self._loss(self._answers(), self._known())

    def limit(self):
        asked, answer = self.shape["image"] + self.shape["prompt"], self.shape["completion"]
        hidden = self.base.model(**self.joined, use_cache=False).last_hidden_state
        chosen = hidden[:, asked - 1 : asked + answer - 1]
        rejected = torch.cat(
            [hidden[:, asked - 1 : asked], hidden[:, asked + answer : asked + 2 * answer - 1]], 1
        )
        logits = F.linear(torch.cat([chosen, rejected]), self.base.lm_head.weight).float()
        return -logits.log_softmax(-1).gather(-1, self.labels[:, asked:, None]).sum()

    # --- measuring

    def step(self, row: str) -> float:
        """Seconds of one step of ``row``; on a CPU with one thread the process's own, so that other users of
        the machine do not count.
        """
        clock = (
            time.process_time if self.device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
        )
        for parameter in self.trained:
            parameter.grad = None
        self._wait()
        start = clock()
        getattr(self, row)().backward()
        self._wait()
        return clock() - start

    def _wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak(self, row: str) -> int:
        """Bytes that a step holds at most beyond what was used before it."""
        for parameter in self.trained:
            parameter.grad = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            used = torch.cuda.memory_allocated()
            self.step(row)
            return torch.cuda.max_memory_allocated() - used
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile:
            getattr(self, row)().backward()
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        used = most = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            used += event.nbytes()
            most = max(most, used)
        return most

    def gradients(self, row: str) -> torch.Tensor:
        self.step(row)
        return torch.cat([p.grad.flatten().float() for p in self.trained])

    def bound(self) -> dict[str, float]:
        """row → how many times fewer multiplications it needs than ``full``."""
        s, pairs = self.shape, self.pairs
        width, inner = s["hidden"], s.get("intermediate", s["hidden"] * 11 // 4)
        layer = 4 * width * width + 3 * width * inner
        asked, answer = s["image"] + s["prompt"], s["completion"]

        def products(tokens, length, scored, passes):  # passes: forward 1, backward for inputs 1
            return (
                pairs
                * passes
                * (tokens * s["layers"] * (layer + 2 * length * width) + scored * width * s["vocabulary"])
            )

        two, one = 2 * (asked + answer), asked + 2 * answer
        full = products(two, asked + answer, two, 3)
        return {
            "trl_compacted": full / products(two, asked + answer, 2 * answer, 3),
            "ours": full / products(one, one, 2 * answer, 2),
        }


ROWS = ("full", "trl", "trl_compacted", "liger", "prefix", "ours", "ours_cold", "limit")
OTHER_ROWS = ("full", "trl_compacted", "liger", "prefix", "ours", "limit")
# The reference shape alone has the names that are promised figures.
OTHER_NAMES = {
    "speedup_vs_full": "faster_than_full",
    "speedup_vs_trl_compacted": "faster_than_trl_compacted",
    "memory_vs_full": "leaner_than_full",
    "over_limit": "times_limit",
}


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype):
    """Inside, modules are made in ``dtype``: a 7B model in fp32 first would take twice its memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def fail_when_memory_is_short() -> None:
    """Let an allocation that the machine has no memory for fail, where Linux would grant it and kill the
    process later.
    """
    with open("/proc/meminfo") as info:
        free = next(int(line.split()[1]) << 10 for line in info if line.startswith("MemAvailable"))
    with open("/proc/self/statm") as sizes:
        used = int(sizes.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(
        resource.RLIMIT_AS, (used + int(0.9 * free), resource.getrlimit(resource.RLIMIT_AS)[1])
    )


def seconds_and_bytes(case: Case, steps: int, rows=ROWS) -> dict[str, dict]:
    """row → seconds (median), bytes; None for a row that does not run or does not fit."""
    running, peaks = [], {}
    for row in rows:
        try:
            peaks[row] = case.peak(row)
            case.step(row)
            running.append(row)
        except ImportError:
            peaks[row] = None
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            peaks[row] = None
    seconds = {row: [] for row in running}
    for _ in range(steps):
        for row in running:
            seconds[row].append(case.step(row))
    return {
        row: {"seconds": statistics.median(seconds[row]), "bytes": peaks[row]} if row in running else None
        for row in rows
    }


def check_same(case: Case) -> float:
    """Largest difference of the gradients of ``ours`` from those of ``full``, relative to the largest
    gradient.
    """
    full, ours = case.gradients("full"), case.gradients("ours")
    return ((full - ours).abs().max() / full.abs().max()).item()


def summary(rows: dict[str, dict]) -> dict[str, float | None]:
    def ratio(a, b, key):
        return rows[a][key] / rows[b][key] if rows.get(a) and rows.get(b) else None

    return {
        "speedup_vs_full": ratio("full", "ours", "seconds"),
        "speedup_vs_trl_compacted": ratio("trl_compacted", "ours", "seconds"),
        "memory_vs_full": ratio("full", "ours", "bytes"),
        "over_limit": ratio("ours", "limit", "seconds"),
    }


def table(rows: dict[str, dict]) -> str:
    lines = ["| row | speed | memory | seconds | GiB |", "|---|---|---|---|---|"]
    first = rows.get("full")
    for name, row in rows.items():
        if row is None:
            lines.append(f"| {name} | does not run or fit here | | | |")
            continue
        faster, leaner = (f"{first[key] / row[key]:.2f}×" if first else "" for key in ("seconds", "bytes"))
        lines.append(f"| {name} | {faster} | {leaner} | {row['seconds']:.4f} | {row['bytes'] / 2**30:.3f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--no-shapes",
        action="store_true",
        help="the reference shape alone, which takes minutes; the others take most of an hour",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not torch.cuda.is_available():  # CUDA reserves more addresses than there is memory
        fail_when_memory_is_short()

    case = Case(REFERENCE_SHAPE, options.pairs, "cpu", torch.float32)
    difference = check_same(case)
    rows = seconds_and_bytes(case, options.steps)
    bound = case.bound()
    del case
    print(f"{table(rows)}\n{bounded(bound)}", flush=True)
    promised = summary(rows)
    out = {
        **promised,
        "gradient_difference": difference,
        "arithmetic_bound": bound,
        "rows": rows,
        "shape": REFERENCE_SHAPE,
    }
    out["machine"] = {
        "threads": options.threads,
        "torch": torch.__version__,
        "steps": options.steps,
        "pairs": options.pairs,
    }
    out["shapes"] = {}
    write(options.json, out)
    for name, shape in {} if options.no_shapes else OTHER_SHAPES.items():
        out["shapes"][name] = other(name, Case(shape, 1, "cpu", torch.float32), options.steps, OTHER_ROWS)
        write(options.json, out)
    if torch.cuda.is_available():
        name = f"7B in bf16 on {torch.cuda.get_device_name()}"  # seconds a step and GiB stand in its table
        out["shapes"][name] = other(name, Case(SHAPE_7B, 1, "cuda", torch.bfloat16), options.steps, ROWS)
    print(json.dumps(promised))
    write(options.json, out)


def other(name: str, case: Case, steps: int, rows: tuple[str, ...]) -> dict:
    """Another shape's figures; those that the first row has no part in are there also where it does not fit
    into memory.
    """
    results, bound = seconds_and_bytes(case, steps, rows), case.bound()
    print(f"\n{name}\n{table(results)}\n{bounded(bound)}", flush=True)
    return {OTHER_NAMES[key]: value for key, value in summary(results).items()} | {
        "bound": bound,
        "rows": results,
        "shape": case.shape,
    }


def bounded(bound: dict[str, float]) -> str:
    return "by multiplications alone, against full: " + ", ".join(
        f"{row} {times:.2f}×" for row, times in bound.items()
    )


def write(path: str | None, out: dict) -> None:
    if path:
        write_json(path, out)


if __name__ == "__main__":
    main()
