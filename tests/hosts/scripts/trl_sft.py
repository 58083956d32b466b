"""A fine-tuning script around TRL's SFTTrainer, with argparse: SPR comes in by ``spr_plugin.attach``."""

import argparse
import json
from pathlib import Path

import datasets
import torch
from peft import LoraConfig
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

import spr_plugin

parser = argparse.ArgumentParser()
for name in ("model", "data", "images", "output", "annotations", "pictures", "clip"):
    parser.add_argument(f"--{name}", required=True)
args = parser.parse_args()

rows = []
for record in json.loads(Path(args.data).read_text())[:8]:
    question, answer = (turn["value"].replace("<image>", "").strip() for turn in record["conversations"][:2])
    asked, said = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
    rows.append(
        {"images": [Image.open(Path(args.images) / record["image"])], "prompt": [asked], "completion": [said]}
    )

settings = SFTConfig(
    args.output, max_steps=2, per_device_train_batch_size=2, learning_rate=1e-5, max_length=None, report_to=[], save_strategy="no", use_cpu=True,  # noqa: E501
    bf16=False, logging_steps=1,
)  # fmt: skip
trainer = SFTTrainer(
    AutoModelForImageTextToText.from_pretrained(args.model, dtype=torch.float32),
    settings,
    train_dataset=datasets.Dataset.from_list(rows),
    processing_class=AutoProcessor.from_pretrained(args.model),
    peft_config=LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)"),
)
spr_plugin.attach(
    trainer, spr_annotations=args.annotations, spr_image_folder=args.pictures, spr_clip=args.clip, spr_regions=12, spr_max_new_tokens=100, spr_batch_size=2,  # noqa: E501
    spr_sample_batch=6,
)  # fmt: skip
trainer.train()
trainer.save_model()
