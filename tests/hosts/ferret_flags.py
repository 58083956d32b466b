"""The command line of Ferret's ``ferret/train/train.py`` (apple/ml-ferret at 3c9e5c9), for the real parser: names, types and defaults.

Run as a script it parses its arguments as Ferret does and prints what our hook and Ferret then hold.
"""

import json
from dataclasses import field, make_dataclass
from typing import Optional

import transformers

ModelArguments = make_dataclass(
    "ModelArguments",
    [
        ("model_name_or_path", Optional[str], "facebook/opt-125m"),
        ("version", Optional[str], "v0"),
        ("freeze_backbone", bool, False),
        ("tune_mm_mlp_adapter", bool, False),
        ("vision_tower", Optional[str], None),
        ("mm_vision_select_layer", Optional[int], -1),
        ("pretrain_mm_mlp_adapter", Optional[str], None),
        ("mm_use_im_start_end", bool, False),
        ("mm_use_im_patch_token", bool, True),
        ("mm_vision_select_feature", Optional[str], "patch"),
        ("add_region_feature", bool, False),
        ("region_geo_sampler", bool, False),
        ("sampler_pooler_mode", str, "mean"),
        ("no_coor", bool, False),
        ("save_vision_tower", bool, False),
    ],
)
DataArguments = make_dataclass(
    "DataArguments",
    [
        ("data_path", list[str], None),
        ("data_multiple", list[float], None),
        ("lazy_preprocess", bool, False),
        ("is_multimodal", bool, False),
        ("image_folder", list[str], None),
        ("image_aspect_ratio", str, "square_nocrop"),
        ("resized_image_h", int, 336),
        ("resized_image_w", int, 336),
        ("point_input_sample", str, "segment_mask|uniform"),
        ("refer_previous_point", bool, True),
        ("image_grid_pinpoints", Optional[str], None),
    ],
)
TrainingArguments = make_dataclass(
    "TrainingArguments",
    [
        ("cache_dir", Optional[str], field(default=None)),
        ("optim", str, field(default="adamw_torch")),
        ("remove_unused_columns", bool, field(default=False)),
        ("freeze_mm_mlp_adapter", bool, field(default=False)),
        ("mpt_attn_impl", Optional[str], field(default="triton")),
        ("model_max_length", int, field(default=512)),
        ("double_quant", bool, field(default=True)),
        ("quant_type", str, field(default="nf4")),
        ("bits", int, field(default=16)),
        ("lora_enable", bool, field(default=False)),
        ("lora_r", int, field(default=64)),
        ("lora_alpha", int, field(default=16)),
        ("lora_dropout", float, field(default=0.05)),
        ("lora_weight_path", str, field(default="")),
        ("lora_bias", str, field(default="none")),
    ],
    bases=(transformers.TrainingArguments,),
)

if __name__ == "__main__":
    parser = transformers.HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model, data, training = parser.parse_args_into_dataclasses()
    from spr_plugin.process import State

    print(json.dumps({"spr": vars(State.config), "model": vars(model), "data": vars(data), "lora_enable": training.lora_enable}))
