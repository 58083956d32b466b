"""The smallest script that transformers' Trainer trains: what starts it matters, not what it learns."""

from dataclasses import dataclass, field

import torch
from transformers import HfArgumentParser, Trainer, TrainingArguments


@dataclass
class DataArguments:
    size: int = field(default=8)


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x, labels):
        return {"loss": ((self.layer(x) - labels) ** 2).mean()}


def make_supervised_data_module(size):
    """A name by which LLaVA-like scripts are known."""
    generator = torch.Generator().manual_seed(0)
    return [{"x": torch.randn(4, generator=generator), "labels": torch.ones(1)} for _ in range(size)]


def train():
    data, training = HfArgumentParser((DataArguments, TrainingArguments)).parse_args_into_dataclasses()
    trainer = Trainer(Line(), training, train_dataset=make_supervised_data_module(data.size))
    trainer.train()
    trainer.save_model()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    train()
