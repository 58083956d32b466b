"""A fine-tuning script as people write them with transformers' Trainer: flags by HfArgumentParser, a data set
and a collator of its own.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)


@dataclass
class ScriptArguments:
    model: str
    data: str
    images: str
    lora: bool = field(default=False)  # with --bf16 the base, which nothing trains, is read in bf16


class Conversations(torch.utils.data.Dataset):
    def __init__(self, script):
        self.records, self.images = json.loads(Path(script.data).read_text()), Path(script.images)

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        record = self.records[index]
        question, answer = (
            turn["value"].replace("<image>", "").strip() for turn in record["conversations"][:2]
        )
        return {
            "picture": Image.open(self.images / record["image"]).convert("RGB"),
            "question": question,
            "answer": answer,
        }


class Collator:
    def __init__(self, processor):
        self.processor = processor

    def __call__(self, items):
        texts = []
        for item in items:
            asked = {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": item["question"]}],
            }
            answer = {"role": "assistant", "content": [{"type": "text", "text": item["answer"]}]}
            texts.append(self.processor.apply_chat_template([asked, answer]))
        batch = self.processor(
            text=texts, images=[[item["picture"]] for item in items], padding=True, return_tensors="pt"
        )
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return batch


def main():
    script, training = HfArgumentParser((ScriptArguments, TrainingArguments)).parse_args_into_dataclasses()
    processor = AutoProcessor.from_pretrained(script.model)
    dtype = torch.bfloat16 if script.lora and training.bf16 else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(script.model, dtype=dtype)
    if script.lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)"))
    trainer = Trainer(model, training, Collator(processor), Conversations(script), processing_class=processor)
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
