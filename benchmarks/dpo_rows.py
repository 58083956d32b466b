"""One DPO step in several ways, on one set of weights and pairs: the rows of dpo_step.py's tables.

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
"""

import contextlib
import copy
import gc
import time

import torch
import torch.nn.functional as F

from spr_plugin.dpo import rows as spr_rows
from spr_plugin.dpo.loss import LossSettings, deltas, preference_losses

BETA = 0.1


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


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype):
    """Inside, modules are made in ``dtype``: a 7B model in fp32 first would take twice its memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
