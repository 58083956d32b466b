"""A real LLaVA in this process: model, data set and trainer as its script builds them, and preference pairs
on its pictures.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers.trainer_callback import PrinterCallback

from spr_plugin.config import SPRConfig
from spr_plugin.hooks.llava import LlavaHost
from spr_plugin.pairing import PreferencePair

ANSWERS = (
    (
        "red circle [0.1, 0.2, 0.5, 0.75]",
        "blue square [0.1, 0.2, 0.5, 0.75] green ring [0.5, 0.25, 0.75, 0.5]",
    ),
    ("green ring [0.1, 0.2, 0.5, 0.75] red triangle", "red"),
    ("yellow square [0.2, 0.2, 0.5, 0.5]", "yellow ring [0.1, 0.1, 0.2, 0.2] red circle"),
    ("blue triangle [0.5, 0.1, 0.75, 0.2]", "the user gives helpful answers"),
)


class Reporter(PrinterCallback):
    """What a test hears, or does, between the stage's steps: of a host's callbacks those that report stay. It
    prints nothing.
    """

    def on_log(self, args, state, control, **kwargs):
        pass


def build(
    folder: Path,
    out: Path,
    family="llama",
    attention="sdpa",
    max_length=256,
    lora=False,
    args=(),
    model_settings=(),
    **spr,
):
    """``(host, config)``; ``folder`` is what tests/random_llava.py wrote. Untrained weights, the same at
    every call.
    """
    from spr_plugin.hooks import shims

    shims.install()
    from llava.train import train as script
    from transformers import AutoTokenizer

    from llava import conversation

    conversation.default_conversation = conversation.conv_templates["v1"]
    arguments = script.TrainingArguments(
        output_dir=str(out),
        **{"use_cpu": True, "report_to": [], "per_device_train_batch_size": 2, **dict(args)},
    )
    tokenizer = AutoTokenizer.from_pretrained(
        folder / "llm", model_max_length=max_length, padding_side="right", use_fast=False
    )
    tokenizer.pad_token = tokenizer.unk_token
    model = llava_model(family, attention, len(tokenizer), dict(model_settings))
    tower = SimpleNamespace(
        vision_tower=str(folder / "clip"), mm_vision_select_layer=-2, mm_vision_select_feature="patch",
        pretrain_mm_mlp_adapter=None, mm_patch_merge_type="flat", mm_projector_type="mlp2x_gelu",
    )  # fmt: skip
    torch.manual_seed(0)
    model.get_model().initialize_vision_modules(tower)
    torch.manual_seed(0)  # again: under ZeRO-3 the tower is loaded with other draws of chance
    for parameter in model.get_model().mm_projector.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.config.tokenizer_model_max_length = max_length
    vision = model.get_vision_tower()
    if arguments.bf16:  # as the script does
        model.to(torch.bfloat16)
    data = script.DataArguments(
        data_path=str(folder / "data.json"),
        image_folder=str(folder / "images"),
        is_multimodal=True,
        image_aspect_ratio="pad",
    )
    data.image_processor, data.mm_use_im_start_end = vision.image_processor, False
    if lora:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        model = get_peft_model(
            model,
            LoraConfig(
                r=4, lora_alpha=8, target_modules=script.find_all_linear_names(model), lora_dropout=0.1
            ),
        )
        for (
            name,
            parameter,
        ) in model.named_parameters():  # as LLaVA does: the projector trains beside the adapter
            parameter.requires_grad_("lora_" in name or "mm_projector" in name)
    trainer = script.LLaVATrainer(
        model=model,
        tokenizer=tokenizer,
        args=arguments,
        **script.make_supervised_data_module(tokenizer=tokenizer, data_args=data),
    )
    config = SPRConfig(spr=True, **spr)
    return LlavaHost(trainer, vars(script), config), config


def llava_model(family, attention, vocabulary, settings):
    from llava.model.language_model import llava_llama, llava_mistral

    torch.manual_seed(0)
    sizes = dict(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    sizes |= dict(vocab_size=vocabulary, max_position_embeddings=512, initializer_range=0.2) | settings
    kinds = {
        "llama": (llava_llama.LlavaConfig, llava_llama.LlavaLlamaForCausalLM),
        "mistral": (llava_mistral.LlavaMistralConfig, llava_mistral.LlavaMistralForCausalLM),
        "ferret": (llava_llama.LlavaConfig, ferret_like(llava_llama.LlavaLlamaForCausalLM)),
    }
    kind, model = kinds[family]
    config = kind(**sizes, mm_vision_tower=None)
    del config.mm_vision_tower
    config._attn_implementation = attention
    return model(config)


def ferret_like(base):
    """LLaVA with the two things that Ferret has otherwise: its expansion gives five values, and its forward
    computes the logits itself.
    """

    class FerretLike(base):
        def prepare_inputs_labels_for_multimodal(
            self, input_ids, attention_mask, past_key_values, labels, images, region_masks=None
        ):
            _, _, mask, cache, embeddings, expanded = super().prepare_inputs_labels_for_multimodal(
                input_ids, None, attention_mask, past_key_values, labels, images
            )
            return None, mask, cache, embeddings, expanded

        def forward(
            self,
            input_ids=None,
            attention_mask=None,
            past_key_values=None,
            inputs_embeds=None,
            labels=None,
            images=None,
            region_masks=None,
        ):
            from transformers.modeling_outputs import CausalLMOutputWithPast

            _, attention_mask, past_key_values, inputs_embeds, labels = (
                self.prepare_inputs_labels_for_multimodal(
                    input_ids, attention_mask, past_key_values, labels, images, region_masks=region_masks
                )
            )
            out = self.model(
                attention_mask=attention_mask, past_key_values=past_key_values, inputs_embeds=inputs_embeds
            )
            return CausalLMOutputWithPast(logits=self.lm_head(out.last_hidden_state))

    return FerretLike


def make_pairs(folder: Path, count: int) -> list[PreferencePair]:
    records = json.loads((folder / "data.json").read_text())
    made = []
    for index in range(count):
        chosen, rejected = ANSWERS[index % len(ANSWERS)]
        record = records[index % len(records)]
        prompt = record["conversations"][0]["value"].removeprefix("<image>\n")
        image = str(folder / "images" / record["image"])
        made.append(
            PreferencePair(
                f"pair{index}", f"region{index}", prompt, (image,), chosen, rejected, 1.0, 0.0, "a", "b"
            )
        )
    return made
