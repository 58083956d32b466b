"""Ferret's training script in little: three dataclasses, data by the file's name, boxes as placeholders in the text."""

import copy
import json
import os
import pathlib
import random
from dataclasses import dataclass, field
from typing import List, Optional

import numpy as np
import torch
import transformers
from ferret import conversation as conversation_lib
from ferret.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX
from ferret.mm_utils import tokenizer_image_token
from ferret.model import FERRETLlamaForCausalLM
from ferret.train.ferret_trainer import FERRETTrainer
from PIL import Image
from torch.utils.data import Dataset

DEFAULT_REGION_FEA_TOKEN = "<region_fea>"
DATASETS = ("refexp", "flickr", "objects365", "grounded_llava_boxes", "vg_object")


@dataclass
class ModelArguments:
    model_name_or_path: Optional[str] = field(default="facebook/opt-125m")
    version: Optional[str] = field(default="v0")
    tune_mm_mlp_adapter: bool = field(default=False)
    vision_tower: Optional[str] = field(default=None)
    mm_vision_select_layer: Optional[int] = field(default=-1)
    mm_use_im_start_end: bool = field(default=False)
    mm_use_im_patch_token: bool = field(default=True)
    add_region_feature: bool = False
    region_geo_sampler: bool = False
    sampler_pooler_mode: str = field(default="mean")
    no_coor: bool = False
    save_vision_tower: bool = field(default=False)


@dataclass
class DataArguments:
    data_path: List[str] = field(default=None)
    data_multiple: List[float] = field(default=None)
    lazy_preprocess: bool = False
    is_multimodal: bool = False
    image_folder: List[str] = field(default=None)
    image_aspect_ratio: str = "square_nocrop"
    resized_image_h: int = 336
    resized_image_w: int = 336
    point_input_sample: str = "segment_mask|uniform"
    refer_previous_point: bool = True


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    cache_dir: Optional[str] = field(default=None)
    remove_unused_columns: bool = field(default=False)
    model_max_length: int = field(default=512)
    bits: int = field(default=16)
    lora_enable: bool = False
    lora_r: int = 64
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_bias: str = "none"


def maybe_zero_3(param, ignore_status=False, name=None):
    from deepspeed import zero

    if hasattr(param, "ds_id"):
        with zero.GatheredParameters([param]):
            return param.data.detach().cpu().clone()
    return param.detach().cpu().clone()


def get_peft_state_maybe_zero_3(named_params, bias):
    assert bias == "none"
    return {name: maybe_zero_3(p, name=name) for name, p in named_params if "lora_" in name}


def get_peft_state_non_lora_maybe_zero_3(named_params, require_grad_only=True):
    return {name: maybe_zero_3(p, ignore_status=True) for name, p in named_params if "lora_" not in name and (p.requires_grad or not require_grad_only)}


def find_all_linear_names(model):
    return sorted({name.split(".")[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"})


def safe_save_model_for_hf_trainer(trainer, output_dir: str, save_vision_tower: bool):
    output_dir = os.path.join(output_dir, "final-checkpoint")
    if trainer.deepspeed:
        torch.cuda.synchronize()
        trainer.save_model(output_dir)
        return
    state_dict = trainer.model.state_dict()
    if trainer.args.should_save:
        trainer._save(output_dir, state_dict={key: value.cpu() for key, value in state_dict.items()})


def preprocess(sources, tokenizer, has_image=False):
    turns = sources[0]
    ids, labels = [], []
    for asked, said in conversation_lib.rounds(turns):
        both, alone = tokenizer_image_token(asked + said, tokenizer), tokenizer_image_token(asked.rstrip(), tokenizer)
        skip = 1 if ids else 0
        labels += ([IGNORE_INDEX] * len(alone) + both[len(alone) :])[skip:]
        ids += both[skip:]
    return {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}


class LazySupervisedDataset(Dataset):
    def __init__(self, data_path, tokenizer, model_args, data_args):
        self.list_data_dict = []
        for path, folder in zip(data_path, data_args.image_folder):
            (kind,) = [name for name in DATASETS if name in path] or [None]
            if kind is None:
                raise ValueError(f"{path} Not Supported.")
            for record in json.load(open(path)):
                record.update(dataset=kind, location_instruction=True, image=os.path.join(folder, record["image"]))
                self.list_data_dict.append(record)
        random.shuffle(self.list_data_dict)
        self.tokenizer, self.data_args, self.model_args = tokenizer, data_args, model_args
        self.add_region_feature, self.no_coor = model_args.add_region_feature, model_args.no_coor

    def __len__(self):
        return len(self.list_data_dict)

    def generate_mask_for_feature(self, coor, box, mask, raw_w, raw_h):
        marked = np.zeros((raw_w, raw_h))
        marked[box[0] : box[2] + 1, box[1] : box[3] + 1] = 1
        assert len(coor) == 4 and mask is None
        return torch.from_numpy(marked)

    def __getitem__(self, i):
        source = copy.deepcopy(self.list_data_dict[i])
        masks = []
        processor = self.data_args.image_processor
        image = Image.open(source["image"]).convert("RGB")
        assert self.data_args.image_aspect_ratio == "square_nocrop"
        size = [self.data_args.resized_image_h, self.data_args.resized_image_w]
        image = processor.preprocess(image, return_tensors="pt", do_resize=True, do_center_crop=False, size=size)["pixel_values"][0]
        if "location_instruction" in source:
            width, height = source["image_w"], source["image_h"]
            for turn, boxes in enumerate(source["box_x1y1x2y2"]):
                text = source["conversations"][turn]["value"]
                for number, box in enumerate(boxes):
                    x1, y1, x2, y2 = (max(0, min(side, end - 1)) for side, end in zip(box, (width, height, width, height)))
                    written = f"[{x1 * 1000 // width}, {y1 * 1000 // height}, {x2 * 1000 // width}, {y2 * 1000 // height}]"
                    if self.add_region_feature and turn % 2 == 0:
                        written += f" {DEFAULT_REGION_FEA_TOKEN}"
                        masks.append(self.generate_mask_for_feature([x1, y1, x2, y2], [x1, y1, x2, y2], None, raw_w=width, raw_h=height))
                    text = text.replace(f"<bbox_location{number}>", written)
                source["conversations"][turn]["value"] = text
        for turn in source["conversations"]:
            if DEFAULT_IMAGE_TOKEN in turn["value"]:
                turn["value"] = DEFAULT_IMAGE_TOKEN + "\n" + turn["value"].replace(DEFAULT_IMAGE_TOKEN, "").strip()
        made = preprocess([source["conversations"]], self.tokenizer, has_image=True)
        row = {"input_ids": made["input_ids"][0], "labels": made["labels"][0], "image": image}
        if self.add_region_feature:
            row["region_masks"] = masks
        return row


@dataclass
class DataCollatorForSupervisedDataset:
    tokenizer: transformers.PreTrainedTokenizer

    def __call__(self, instances):
        pad = torch.nn.utils.rnn.pad_sequence
        limit = self.tokenizer.model_max_length
        ids = pad([i["input_ids"] for i in instances], batch_first=True, padding_value=self.tokenizer.pad_token_id)[:, :limit]
        labels = pad([i["labels"] for i in instances], batch_first=True, padding_value=IGNORE_INDEX)[:, :limit]
        batch = {"input_ids": ids, "labels": labels, "attention_mask": ids.ne(self.tokenizer.pad_token_id)}
        batch["images"] = torch.stack([i["image"] for i in instances])
        if "region_masks" in instances[0]:
            batch["region_masks"] = [i["region_masks"] for i in instances]
        return batch


def make_supervised_data_module(tokenizer, data_args, model_args):
    data = LazySupervisedDataset(tokenizer=tokenizer, data_path=data_args.data_path, data_args=data_args, model_args=model_args)
    return {"train_dataset": data, "eval_dataset": None, "data_collator": DataCollatorForSupervisedDataset(tokenizer=tokenizer)}


def train():
    parser = transformers.HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    model = FERRETLlamaForCausalLM.from_pretrained(model_args.model_name_or_path, cache_dir=training_args.cache_dir)
    model.config.use_cache = False
    if training_args.lora_enable:
        from peft import LoraConfig, get_peft_model

        settings = {name: getattr(training_args, f"lora_{name}") for name in ("alpha", "dropout")}
        settings = {f"lora_{name}": value for name, value in settings.items()}
        model = get_peft_model(model, LoraConfig(r=training_args.lora_r, target_modules=find_all_linear_names(model), task_type="CAUSAL_LM", **settings))
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        model_args.model_name_or_path, model_max_length=training_args.model_max_length, padding_side="right", use_fast=False
    )
    tokenizer.pad_token = tokenizer.unk_token
    conversation_lib.default_conversation = conversation_lib.conv_templates[model_args.version]
    model.get_model().initialize_vision_modules(
        model_args=model_args, fsdp=training_args.fsdp, add_region_feature=model_args.add_region_feature,
        region_geo_sampler=model_args.region_geo_sampler, sampler_pooler_mode=model_args.sampler_pooler_mode,
    )  # fmt: skip
    vision_tower = model.get_vision_tower()
    vision_tower.to(dtype=torch.bfloat16 if training_args.bf16 else torch.float32, device=training_args.device)
    data_args.image_processor, data_args.is_multimodal = vision_tower.image_processor, True
    training_args.tune_mm_mlp_adapter = model_args.tune_mm_mlp_adapter
    for part in ("region_geo_sampler", "region_fea_adapter"):
        for p in getattr(model.get_model(), part, torch.nn.Module()).parameters():
            p.requires_grad = True
    data_args.mm_use_im_start_end = model_args.mm_use_im_start_end
    model.initialize_vision_tokenizer(model_args, tokenizer=tokenizer, add_region_feature=model_args.add_region_feature)
    data_module = make_supervised_data_module(tokenizer=tokenizer, data_args=data_args, model_args=model_args)
    trainer = FERRETTrainer(model=model, tokenizer=tokenizer, args=training_args, **data_module)
    if list(pathlib.Path(training_args.output_dir).glob("checkpoint-*")):
        trainer.train(resume_from_checkpoint=True)
    else:
        trainer.train()
    trainer.save_state()
    if training_args.lora_enable:
        state_dict = get_peft_state_maybe_zero_3(model.named_parameters(), training_args.lora_bias)
        rest = get_peft_state_non_lora_maybe_zero_3(model.named_parameters())
        if training_args.local_rank in (0, -1):
            model.config.save_pretrained(training_args.output_dir)
            model.save_pretrained(training_args.output_dir, state_dict=state_dict)
            torch.save(rest, os.path.join(training_args.output_dir, "non_lora_trainables.bin"))
    else:
        safe_save_model_for_hf_trainer(trainer=trainer, output_dir=training_args.output_dir, save_vision_tower=model_args.save_vision_tower)


if __name__ == "__main__":
    train()
