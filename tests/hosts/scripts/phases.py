"""Three trainings in one process, as people write them: the projector, then everything, then everything once
more with the same trainer."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from finetune_vlm import Collator, Conversations
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    HfArgumentParser,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


@dataclass
class ScriptArguments:
    model: str
    data: str
    images: str


script, rest = HfArgumentParser((ScriptArguments,)).parse_args_into_dataclasses(return_remaining_strings=True)
(training,) = HfArgumentParser((TrainingArguments,)).parse_args_into_dataclasses(rest)
processor = AutoProcessor.from_pretrained(script.model)
model = AutoModelForImageTextToText.from_pretrained(script.model, dtype=torch.float32)
seen = []


class Steps(TrainerCallback):
    """Those that are taken, whatever a state that was taken up says."""

    taken = 0

    def on_step_end(self, *args, **kwargs):
        self.taken += 1


def trained(trainer) -> None:
    """Train, and note how many steps were taken and which parts of the model moved."""
    steps = Steps()
    trainer.add_callback(steps)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.train()
    moved = {
        "projector" if "projector" in name else "rest"
        for name, p in model.named_parameters()
        if not torch.equal(p, before[name])
    }
    seen.append([steps.taken, sorted(moved)])


def trainer() -> Trainer:
    return Trainer(model, training, Collator(processor), Conversations(script), processing_class=processor)


for name, parameter in model.named_parameters():
    parameter.requires_grad_("projector" in name)
trained(trainer())
for parameter in model.parameters():
    parameter.requires_grad_(True)
everything = trainer()
trained(everything)
trained(everything)
everything.save_model()
(Path(training.output_dir) / "seen.json").write_text(json.dumps(seen))
