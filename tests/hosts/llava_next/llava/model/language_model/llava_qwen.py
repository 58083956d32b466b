"""A Qwen2 that sees pictures in tiles: six values from the expansion, padding and cutting inside it, ``image_newline`` behind each row of patches."""

import torch
import torch.nn as nn
from transformers import AutoConfig, AutoModelForCausalLM, CLIPImageProcessor, CLIPVisionModel, Qwen2Config, Qwen2ForCausalLM, Qwen2Model

from llava.mm_utils import select_best_resolution

IGNORE_INDEX, IMAGE_TOKEN_INDEX = -100, -200


class LlavaQwenConfig(Qwen2Config):
    model_type = "llava_qwen"


class CLIPVisionTower(nn.Module):
    def __init__(self, path, layer):
        super().__init__()
        self.image_processor = CLIPImageProcessor.from_pretrained(path)
        self.vision_tower = CLIPVisionModel.from_pretrained(path).requires_grad_(False)
        self.layer = layer

    def forward(self, images):
        return self.vision_tower(images.to(self.vision_tower.dtype), output_hidden_states=True).hidden_states[self.layer][:, 1:].to(images.dtype)

    @property
    def image_size(self):
        return self.vision_tower.config.image_size

    @property
    def num_patches_per_side(self):
        return self.image_size // self.vision_tower.config.patch_size

    @property
    def num_patches(self):
        return self.num_patches_per_side**2


class LlavaQwenModel(Qwen2Model):
    config_class = LlavaQwenConfig

    def get_vision_tower(self):
        return getattr(self, "vision_tower", None)

    def initialize_vision_modules(self, model_args, fsdp=None):
        self.config.mm_vision_tower, self.config.mm_patch_merge_type = model_args.vision_tower, model_args.mm_patch_merge_type
        self.vision_tower = CLIPVisionTower(model_args.vision_tower, model_args.mm_vision_select_layer)
        self.vision_resampler = nn.Identity()
        width, hidden = self.vision_tower.vision_tower.config.hidden_size, self.config.hidden_size
        self.mm_projector = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.image_newline = nn.Parameter(torch.randn(hidden) / hidden**0.5)


def unpad_image(features, size):
    """``(C, H, W)`` without the rows or columns that only show padding; ``size`` is the picture's (width, height)."""
    height, width = features.shape[1:]
    if size[0] / size[1] > width / height:
        margin = (height - int(size[1] * width / size[0])) // 2
        return features[:, margin : height - margin]
    margin = (width - int(size[0] * height / size[1])) // 2
    return features[:, :, margin : width - margin]


class LlavaQwenForCausalLM(Qwen2ForCausalLM):
    config_class = LlavaQwenConfig

    def __init__(self, config):
        Qwen2ForCausalLM.__init__(self, config)
        config.model_type = "llava_qwen"
        self.model = LlavaQwenModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_model(self):
        return self.model

    def get_vision_tower(self):
        return self.get_model().get_vision_tower()

    def initialize_vision_tokenizer(self, model_args, tokenizer):
        pass

    def encode_images(self, images):
        return self.get_model().mm_projector(self.get_model().get_vision_tower()(images))

    def merged(self, tiles, size):
        """``(n, N, H)`` features of a picture's tiles → its tokens ``(T, H)``."""
        if len(tiles) == 1:
            return torch.cat([tiles[0], self.model.image_newline[None]])
        tower = self.get_vision_tower()
        side = tower.num_patches_per_side
        grid = select_best_resolution(size, self.config.image_grid_pinpoints)
        across, down = grid[0] // tower.image_size, grid[1] // tower.image_size
        laid = tiles[1:].view(down, across, side, side, -1).permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2, 3)
        laid = unpad_image(laid, size)
        newline = self.model.image_newline[:, None, None].expand(*laid.shape[:-1], 1)
        return torch.cat([tiles[0], torch.cat([laid, newline], -1).flatten(1, 2).transpose(0, 1)])

    def prepare_inputs_labels_for_multimodal(
        self, input_ids, position_ids, attention_mask, past_key_values, labels, images, modalities=["image"], image_sizes=None
    ):
        if self.get_vision_tower() is None or images is None or input_ids.shape[1] == 1:
            return input_ids, position_ids, attention_mask, past_key_values, None, labels
        assert isinstance(images, list) and len(modalities) == len(images)
        images = [image if image.ndim == 4 else image[None] for image in images]
        features = torch.split(self.encode_images(torch.cat(images)), [len(image) for image in images])
        features = [self.merged(tiles, size) for tiles, size in zip(features, image_sizes)]
        given_labels, given_mask, given_positions = labels, attention_mask, position_ids
        labels = torch.full_like(input_ids, IGNORE_INDEX) if labels is None else labels
        mask = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        limit = getattr(self.config, "tokenizer_model_max_length", None)
        rows, pictures = [], iter(features)
        for ids, own, seen in zip(input_ids, labels, mask):
            ids, own = ids[seen], own[seen]
            embeds, targets, start = [], [], 0
            for place in [*torch.where(ids == IMAGE_TOKEN_INDEX)[0].tolist(), len(ids)]:
                embeds.append(self.get_model().embed_tokens(ids[start:place]))
                targets.append(own[start:place])
                if place < len(ids):
                    picture = next(pictures)
                    embeds.append(picture.to(embeds[0].dtype))
                    targets.append(own.new_full((len(picture),), IGNORE_INDEX))
                start = place + 1
            rows.append((torch.cat(embeds)[:limit], torch.cat(targets)[:limit]))
        longest = max(len(own) for _, own in rows)
        left = getattr(self.config, "tokenizer_padding_side", "right") == "left"
        new_embeds = torch.zeros(len(rows), longest, rows[0][0].shape[1], dtype=rows[0][0].dtype, device=rows[0][0].device)
        new_labels = labels.new_full((len(rows), longest), IGNORE_INDEX)
        new_mask, new_positions = mask.new_zeros(len(rows), longest), input_ids.new_zeros(len(rows), longest)
        embeds_of_rows = []
        for row, (embeds, own) in enumerate(rows):
            span = slice(longest - len(own), None) if left else slice(0, len(own))
            new_labels[row, span], new_mask[row, span] = own, True
            new_positions[row, span] = torch.arange(len(own), device=own.device)
            gap = new_embeds[row, : longest - len(own)]
            embeds_of_rows.append(torch.cat([gap, embeds] if left else [embeds, gap]))
        return (
            None, None if given_positions is None else new_positions, None if given_mask is None else new_mask.to(given_mask.dtype), past_key_values,
            torch.stack(embeds_of_rows), None if given_labels is None else new_labels,
        )  # fmt: skip

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None, labels=None, use_cache=None,
        output_attentions=None, output_hidden_states=None, images=None, image_sizes=None, return_dict=None, modalities=["image"], dpo_forward=False,
        cache_position=None,
    ):  # fmt: skip
        if inputs_embeds is None:
            input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels = self.prepare_inputs_labels_for_multimodal(
                input_ids, position_ids, attention_mask, past_key_values, labels, images, modalities, image_sizes
            )
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=past_key_values,
            inputs_embeds=inputs_embeds, labels=labels, use_cache=use_cache,
        )  # fmt: skip


AutoConfig.register("llava_qwen", LlavaQwenConfig)
AutoModelForCausalLM.register(LlavaQwenConfig, LlavaQwenForCausalLM)
