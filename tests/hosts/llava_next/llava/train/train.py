"""LLaVA-NeXT's training script in little, for Qwen2 and records of a picture or several."""

import ast
import copy
import json
import os
import pathlib
import time
from dataclasses import dataclass, field
from typing import Optional

import torch
import transformers
from llava import conversation as conversation_lib
from llava.mm_utils import process_anyres_image
from llava.model import *  # noqa: F403
from llava.model import LlavaQwenForCausalLM
from llava.train.llava_trainer import LLaVATrainer
from PIL import Image
from torch.utils.data import Dataset

IGNORE_INDEX, IMAGE_TOKEN_INDEX, DEFAULT_IMAGE_TOKEN = -100, -200, "<image>"


@dataclass
class ModelArguments:
    model_name_or_path: Optional[str] = field(default="facebook/opt-125m")
    mm_tunable_parts: Optional[str] = field(default=None)
    version: Optional[str] = field(default="v0")
    tune_mm_mlp_adapter: bool = field(default=False)
    vision_tower: Optional[str] = field(default=None)
    mm_vision_select_layer: Optional[int] = field(default=-1)
    mm_projector_type: Optional[str] = field(default="linear")
    mm_use_im_start_end: bool = field(default=False)
    mm_use_im_patch_token: bool = field(default=True)
    mm_patch_merge_type: Optional[str] = field(default="flat")


@dataclass
class DataArguments:
    data_path: str = field(default=None)
    lazy_preprocess: bool = False
    is_multimodal: bool = False
    image_folder: Optional[str] = field(default=None)
    image_aspect_ratio: str = "square"
    image_grid_pinpoints: Optional[str] = field(default=None)


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    cache_dir: Optional[str] = field(default=None)
    remove_unused_columns: bool = field(default=False)
    model_max_length: int = field(default=4096)
    bits: int = field(default=16)
    lora_enable: bool = False
    lora_r: int = 64
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_bias: str = "none"
    group_by_modality_length: bool = field(default=False)
    gradient_checkpointing: bool = field(default=True)
    attn_implementation: str = field(default="flash_attention_2")
    trainer_mode: str = field(default="regular")


def maybe_zero_3(param, ignore_status=False, name=None):
    from deepspeed import zero

    if hasattr(param, "ds_id"):
        with zero.GatheredParameters([param]):
            return param.data.detach().cpu().clone()
    return param.detach().cpu().clone()


def get_peft_state_maybe_zero_3(named_params, bias):
    return {name: maybe_zero_3(p, name=name) for name, p in named_params if "lora_" in name}


def get_peft_state_non_lora_maybe_zero_3(named_params, require_grad_only=True):
    return {name: maybe_zero_3(p, ignore_status=True) for name, p in named_params if "lora_" not in name and (p.requires_grad or not require_grad_only)}


def find_all_linear_names(model):
    outside = ("mm_projector", "vision_tower", "vision_resampler", "lm_head")
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and not any(part in name for part in outside)]
    return sorted({name.split(".")[-1] for name in linear})


def safe_save_model_for_hf_trainer(trainer, output_dir: str):
    if trainer.deepspeed:
        trainer.save_model(output_dir)
        return
    state_dict = trainer.model.state_dict()
    if trainer.args.should_save:
        trainer._save(output_dir, state_dict={key: value.cpu() for key, value in state_dict.items()})


def preprocess_qwen(sources, tokenizer, has_image=False, system_message="You are a helpful assistant."):
    """The template's own tokens, and line ends, stay in the labels of every turn."""
    tokenizer = copy.deepcopy(tokenizer)
    if has_image:
        tokenizer.add_tokens(["<image>"], special_tokens=True)
    image, start, end = tokenizer.convert_tokens_to_ids(["<image>", "<|im_start|>", "<|im_end|>"])
    (newline,) = tokenizer("\n").input_ids
    roles = {"human": "user", "gpt": "assistant"}
    ids, labels = [], []
    for turn in [{"from": "system", "value": system_message}, *sources[0]]:
        role = roles.get(turn["from"], turn["from"])
        piece = tokenizer(f"<|im_start|>{role}\n{turn['value']}<|im_end|>\n").input_ids
        ids += piece
        labels += piece if role == "assistant" else [token if token in (newline, start, end) else IGNORE_INDEX for token in piece]
    ids = [IMAGE_TOKEN_INDEX if token == image else token for token in ids]
    return {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}


class LazySupervisedDataset(Dataset):
    def __init__(self, data_path, tokenizer, data_args):
        with open(data_path) as file:
            self.list_data_dict = json.load(file)
        self.tokenizer, self.data_args = tokenizer, data_args

    def __len__(self):
        return len(self.list_data_dict)

    @property
    def modality_lengths(self):
        return [sum(len(turn["value"].split()) for turn in record["conversations"]) for record in self.list_data_dict]

    def process_image(self, image_file, overwrite_image_aspect_ratio=None):
        try:
            image = Image.open(os.path.join(self.data_args.image_folder, image_file)).convert("RGB")
        except Exception as exn:
            print(f"Failed to open image {image_file}. Exception:", exn)
            raise exn
        if overwrite_image_aspect_ratio == "pad":
            processor, side = self.data_args.image_processor, max(image.size)
            square = Image.new(image.mode, (side, side), tuple(int(x * 255) for x in processor.image_mean))
            square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            return processor.preprocess(square, return_tensors="pt")["pixel_values"][0], image.size, "image"
        assert self.data_args.image_aspect_ratio.startswith("anyres")
        return process_anyres_image(image, self.data_args.image_processor, self.data_args.image_grid_pinpoints), image.size, "image"

    def __getitem__(self, i):
        for attempt in range(3):
            try:
                return self._get_item(i)
            except Exception as e:
                print(f"[Try #{attempt}] Failed to fetch sample {i}. Exception:", e)
                time.sleep(1)
        return self._get_item(min(i + 1, len(self.list_data_dict) - 1))

    def _get_item(self, i):
        record = self.list_data_dict[i]
        several = isinstance(record["image"], list)
        image = [self.process_image(file, "pad") for file in record["image"]] if several else [self.process_image(record["image"])]
        made = preprocess_qwen(copy.deepcopy([record["conversations"]]), self.tokenizer, has_image=True)
        return {"input_ids": made["input_ids"][0], "labels": made["labels"][0], "image": image, "id": record.get("id", i)}


@dataclass
class DataCollatorForSupervisedDataset:
    tokenizer: transformers.PreTrainedTokenizer

    def __call__(self, instances):
        pad, limit = torch.nn.utils.rnn.pad_sequence, self.tokenizer.model_max_length
        ids = pad([i["input_ids"][:limit] for i in instances], batch_first=True, padding_value=self.tokenizer.pad_token_id)
        labels = pad([i["labels"][:limit] for i in instances], batch_first=True, padding_value=IGNORE_INDEX)
        pictures = [picture for i in instances for picture in i["image"]]
        return {
            "input_ids": ids, "labels": labels, "attention_mask": ids.ne(self.tokenizer.pad_token_id), "images": [p[0] for p in pictures],
            "image_sizes": [p[1] for p in pictures], "modalities": [p[2] for p in pictures],
        }  # fmt: skip


def make_supervised_data_module(tokenizer, data_args):
    data = LazySupervisedDataset(tokenizer=tokenizer, data_path=data_args.data_path, data_args=data_args)
    return {"train_dataset": data, "eval_dataset": None, "data_collator": DataCollatorForSupervisedDataset(tokenizer=tokenizer)}


def train(attn_implementation=None):
    parser = transformers.HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    assert "qwen" in model_args.model_name_or_path.lower()
    model = LlavaQwenForCausalLM.from_pretrained(model_args.model_name_or_path, attn_implementation=training_args.attn_implementation)
    model.config.use_cache = False
    if training_args.gradient_checkpointing:
        model.enable_input_require_grads()
    if training_args.lora_enable:
        from peft import LoraConfig, get_peft_model

        settings = {"r": training_args.lora_r, "lora_alpha": training_args.lora_alpha, "lora_dropout": training_args.lora_dropout}
        model = get_peft_model(model, LoraConfig(target_modules=find_all_linear_names(model), task_type="CAUSAL_LM", **settings))
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        model_args.model_name_or_path, model_max_length=training_args.model_max_length, padding_side="right"
    )
    conversation_lib.default_conversation = conversation_lib.conv_templates[model_args.version]
    model.get_model().initialize_vision_modules(model_args=model_args, fsdp=training_args.fsdp)
    vision_tower = model.get_vision_tower()
    vision_tower.to(dtype=torch.bfloat16 if training_args.bf16 else torch.float16, device=training_args.device)
    data_args.image_processor, data_args.is_multimodal = vision_tower.image_processor, True
    data_args.image_grid_pinpoints = ast.literal_eval(data_args.image_grid_pinpoints)
    model.config.image_aspect_ratio, model.config.image_grid_pinpoints = data_args.image_aspect_ratio, data_args.image_grid_pinpoints
    model.config.tokenizer_padding_side, model.config.tokenizer_model_max_length = tokenizer.padding_side, tokenizer.model_max_length
    training_args.tune_mm_mlp_adapter = model_args.tune_mm_mlp_adapter
    if model_args.mm_tunable_parts is not None and not training_args.lora_enable:
        model.requires_grad_(False)
        parts = {"mm_mlp_adapter": "mm_projector", "mm_vision_tower": "vision_tower"}
        for name, p in model.named_parameters():
            of_language = not any(part in name for part in ("vision_tower", "mm_projector", "vision_resampler"))
            chosen = [of_language if part == "mm_language_model" else parts[part] in name for part in model_args.mm_tunable_parts.split(",")]
            p.requires_grad_(any(chosen))
    data_args.mm_use_im_start_end = model_args.mm_use_im_start_end
    model.initialize_vision_tokenizer(model_args, tokenizer=tokenizer)
    trainer = LLaVATrainer(model=model, tokenizer=tokenizer, args=training_args, **make_supervised_data_module(tokenizer=tokenizer, data_args=data_args))
    if list(pathlib.Path(training_args.output_dir).glob("checkpoint-*")):
        trainer.train(resume_from_checkpoint=True)
    else:
        trainer.train()
    trainer.save_state()
    model.config.use_cache = True
    if training_args.lora_enable:
        state_dict = get_peft_state_maybe_zero_3(model.named_parameters(), training_args.lora_bias)
        rest = get_peft_state_non_lora_maybe_zero_3(model.named_parameters())
        if training_args.local_rank in (0, -1):
            model.config.save_pretrained(training_args.output_dir)
            model.save_pretrained(training_args.output_dir, state_dict=state_dict)
            torch.save(rest, os.path.join(training_args.output_dir, "non_lora_trainables.bin"))
    else:
        safe_save_model_for_hf_trainer(trainer=trainer, output_dir=training_args.output_dir)


if __name__ == "__main__":
    train()
