"""A LLaMA that sees a picture and marked regions of it.

Quirks kept: expansion takes no positions and returns five values, forward always overwrites ``inputs_embeds``, points of a region are
drawn anew at every forward, a region token outside a marked row is an assertion, ``generate`` returns prompt and new tokens.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, CLIPImageProcessor, CLIPVisionModel, LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from ferret.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX

REGION_TOKEN = "<region_fea>"
POINTS = 512


class FERRETConfig(LlamaConfig):
    model_type = "ferret"


class SquareProcessor(CLIPImageProcessor):
    """CLIP's, which here takes ``size=[height, width]`` and keeps no aspect ratio."""

    def preprocess(self, images, size=None, **kwargs):
        if isinstance(size, list):
            size = {"height": size[0], "width": size[1]}
        return super().preprocess(images, **({"size": size} if size else {}), **kwargs)


class CLIPVisionTower(nn.Module):
    def __init__(self, path, layer):
        super().__init__()
        self.image_processor = SquareProcessor.from_pretrained(path)
        self.vision_tower = CLIPVisionModel.from_pretrained(path).requires_grad_(False)
        self.layer = layer

    @torch.no_grad()
    def forward(self, images):
        return self.vision_tower(images.to(self.vision_tower.dtype), output_hidden_states=True).hidden_states[self.layer][:, 1:].to(images.dtype)

    @property
    def hidden_size(self):
        return self.vision_tower.config.hidden_size

    @property
    def num_patches(self):
        return (self.vision_tower.config.image_size // self.vision_tower.config.patch_size) ** 2


def drawn_points(mask):
    """``(POINTS, 2)`` places in 0-1 of what a ``(W, H)`` mask marks, drawn at random."""
    places = mask.nonzero() / torch.tensor(mask.shape, device=mask.device)
    return places[torch.randint(0, len(places), (POINTS,), device=mask.device)]


def features_at(feature_map, points, dtype):
    """Features ``(n, POINTS, C)`` of a square map ``(H · W, C)`` at points ``(n, POINTS, 2)``."""
    side = int(len(feature_map) ** 0.5)
    grid = feature_map.reshape(side, side, -1).permute(2, 0, 1)[None].expand(len(points), -1, -1, -1)
    sampled = F.grid_sample(grid.float(), 2 * points.flip(2)[:, :, None].float() - 1, align_corners=True)
    return sampled[..., 0].transpose(1, 2).to(dtype)


class GeoRegionSampler(nn.Module):
    def __init__(self, input_dim, output_dim):
        super().__init__()
        self.mix = nn.Linear(input_dim + 2, input_dim)
        self.dim_projector = nn.Linear(input_dim, output_dim)

    def forward(self, feature_map, region_masks, original_dtype, return_dtype):
        assert len(feature_map) == len(region_masks)
        found = []
        for map_of_one, masks in zip(feature_map, region_masks):
            if not masks:
                found.append(None)
                continue
            points = torch.stack([drawn_points(mask) for mask in masks]).to(return_dtype)
            mixed = self.mix(torch.cat([features_at(map_of_one.to(original_dtype), points, return_dtype), points], -1))
            found.append(self.dim_projector(F.relu(mixed).amax(1)))
        return found


class FERRETLlamaModel(LlamaModel):
    config_class = FERRETConfig

    def get_vision_tower(self):
        return getattr(self, "vision_tower", None)

    def initialize_vision_modules(self, model_args, fsdp=None, add_region_feature=False, region_geo_sampler=False, sampler_pooler_mode="mean"):
        self.config.mm_vision_tower = model_args.vision_tower
        self.vision_tower = CLIPVisionTower(model_args.vision_tower, model_args.mm_vision_select_layer)
        self.config.mm_hidden_size = self.vision_tower.hidden_size
        self.mm_projector = nn.Linear(self.config.mm_hidden_size, self.config.hidden_size)
        if add_region_feature and region_geo_sampler:
            self.config.region_geo_sampler = True
            self.region_geo_sampler = GeoRegionSampler(self.config.mm_hidden_size, self.config.hidden_size)
        elif add_region_feature:
            self.config.region_fea_adapter = True
            self.region_fea_adapter = nn.Linear(self.config.mm_hidden_size, self.config.hidden_size)


class FERRETLlamaForCausalLM(LlamaForCausalLM):
    config_class = FERRETConfig

    def __init__(self, config):
        super(LlamaForCausalLM, self).__init__(config)
        self.model = FERRETLlamaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_model(self):
        return self.model

    def get_vision_tower(self):
        return self.get_model().get_vision_tower()

    def initialize_vision_tokenizer(self, model_args, tokenizer, add_region_feature=False):
        if add_region_feature:
            tokenizer.add_tokens([REGION_TOKEN], special_tokens=True)
            self.config.im_region_fea_token = tokenizer.convert_tokens_to_ids([REGION_TOKEN])[0]
            self.resize_token_embeddings(len(tokenizer))

    def encode_images(self, images, region_flag=False, region_geo_sampler=False):
        raw = self.get_vision_tower()(images)
        for_regions = None
        if region_flag:
            for_regions = raw if region_geo_sampler else self.get_model().region_fea_adapter(raw)
        return raw, self.get_model().mm_projector(raw), for_regions

    def extract_region_feature(self, region_feature_map, region_masks, original_dtype, return_dtype):
        found = []
        for map_of_one, masks in zip(region_feature_map, region_masks):
            points = torch.stack([drawn_points(mask) for mask in masks]) if masks else None
            found.append(features_at(map_of_one.to(original_dtype), points, map_of_one.dtype).mean(1) if masks else None)
        return found

    def prepare_inputs_labels_for_multimodal(self, input_ids, attention_mask, past_key_values, labels, images, region_masks):
        tower = self.get_vision_tower()
        if tower is None or images is None or input_ids.shape[1] == 1:
            return input_ids, attention_mask, past_key_values, None, labels
        marked = region_masks is not None
        geometric = marked and getattr(self.config, "region_geo_sampler", False)
        raw, pictures, region_map = self.encode_images(images, marked, geometric)
        regions = None
        if marked:
            draw = self.get_model().region_geo_sampler if geometric else self.extract_region_feature
            regions = draw(region_map, region_masks, original_dtype=raw.dtype, return_dtype=pictures.dtype)

        embeds, new_labels = [], []
        for row, ids in enumerate(input_ids):
            (place,) = torch.where(ids == IMAGE_TOKEN_INDEX)[0].tolist()
            after = self.get_model().embed_tokens(ids[place + 1 :])
            is_region = ids[place + 1 :] == getattr(self.config, "im_region_fea_token", IMAGE_TOKEN_INDEX)
            if marked and regions[row] is not None:
                filled = torch.zeros_like(after)
                filled[is_region] = regions[row].to(after.dtype)
                after = after * (~is_region)[:, None].to(after.dtype) + filled
            else:
                assert not is_region.any()
            embeds.append(torch.cat([self.get_model().embed_tokens(ids[:place]), pictures[row], after]))
            if labels is not None:
                hidden = labels.new_full((len(pictures[row]),), IGNORE_INDEX)
                new_labels.append(torch.cat([labels[row, :place], hidden, labels[row, place + 1 :]]))
        grown = embeds[0].shape[0] - input_ids.shape[1]
        if attention_mask is not None:
            attention_mask = torch.cat([attention_mask.new_ones(len(attention_mask), grown), attention_mask], 1)  # the picture counts at the left
        return None, attention_mask, past_key_values, torch.stack(embeds), torch.stack(new_labels) if labels is not None else None

    def forward(
        self, input_ids=None, attention_mask=None, region_masks=None, past_key_values=None, inputs_embeds=None, labels=None, use_cache=None,
        output_attentions=None, output_hidden_states=None, images=None, return_dict=None,
    ):  # fmt: skip
        input_ids, attention_mask, past_key_values, inputs_embeds, labels = self.prepare_inputs_labels_for_multimodal(
            input_ids, attention_mask, past_key_values, labels, images, region_masks=region_masks
        )
        outputs = self.model(
            input_ids=input_ids, attention_mask=attention_mask, past_key_values=past_key_values, inputs_embeds=inputs_embeds, use_cache=use_cache,
            output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.lm_head(outputs[0])
        loss = None
        if labels is not None:
            loss = nn.CrossEntropyLoss()(logits[:, :-1].reshape(-1, self.config.vocab_size), labels[:, 1:].reshape(-1))
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values)


AutoConfig.register("ferret", FERRETConfig)
AutoModelForCausalLM.register(FERRETConfig, FERRETLlamaForCausalLM)
