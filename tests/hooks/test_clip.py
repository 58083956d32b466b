"""CLIP similarity: the local attention against a brute-force forward, text splitting, loading."""

import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from PIL import Image  # noqa: E402

from spr_plugin.boxes import Box, Space  # noqa: E402
from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.hooks.clip import ClipSimilarity, covered_patches, spr_similarity  # noqa: E402

LETTERS = "abcdefghijklmnopqrstuvwxyz.,!?'"
SHAPES = {"B/32": (224, 32), "B/16": (224, 16), "L/14-336": (336, 14)}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def save_checkpoint(folder, image_size=224, patch_size=32, width=32, layers=3, heads=4, projection=24):
    """A random-weight CLIP of the given shape in the files that a real one has; its tokens are single letters."""
    letters = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}))
    special = {"bos_token": letters[-2], "eos_token": letters[-1], "unk_token": letters[-1], "pad_token": letters[-1]}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "CLIPImageProcessor", "image_mean": MEAN, "image_std": STD, "size": image_size})
    )
    sides = {"intermediate_size": 2 * width, "num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": width}
    ends = {"bos_token_id": len(letters) - 2, "eos_token_id": len(letters) - 1, "pad_token_id": len(letters) - 1}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={**sides, **ends, "vocab_size": len(letters), "max_position_embeddings": 77},
        vision_config={**sides, "image_size": image_size, "patch_size": patch_size},
        projection_dim=projection,
    )
    model = transformers.CLIPModel(config)
    for parameter in model.parameters():  # the default initialization is so small that any attention looks alike
        if parameter.dim() > 1:
            parameter.data.normal_(0, 1.5 * parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=SHAPES)
def similarity(request, tmp_path_factory):
    image_size, patch_size = SHAPES[request.param]
    return ClipSimilarity(str(save_checkpoint(tmp_path_factory.mktemp("clip"), image_size, patch_size)))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return ClipSimilarity(str(save_checkpoint(tmp_path_factory.mktemp("clip"))))


def picture(width=300, height=200, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def box(x1, y1, x2, y2, image):
    return Box(x1, y1, x2, y2, Space.pixels(*image.size))


def pixel_values(similarity, image):
    """Squeezed and normalized, by torch instead of numpy."""
    size = similarity.image_size
    values = torch.from_numpy(np.array(image.convert("RGB").resize((size, size), Image.BICUBIC))).permute(2, 0, 1).double() / 255
    values = (values - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).double().view(3, 1, 1)
    return values.float()[None]


def brute_force(similarity, image, patches):
    """The whole tower by transformers' own modules; in the last block a hand-made mask on the class token's row."""
    model = similarity.model
    vision = model.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(pixel_values(similarity, image)))
    length = hidden.shape[1]
    mask = torch.zeros(1, 1, length, length)
    mask[0, 0, 0, 1:][~torch.from_numpy(patches)] = torch.finfo(torch.float32).min
    for block in vision.encoder.layers:
        used = mask if block is vision.encoder.layers[-1] else torch.zeros_like(mask)
        needed = {"causal_attention_mask": None} if "causal_attention_mask" in inspect.signature(block.forward).parameters else {}
        out = block(hidden, used, **needed)
        hidden = out[0] if isinstance(out, tuple) else out
    features = model.visual_projection(vision.post_layernorm(hidden[:, 0]))[0]
    return features / features.norm()


def image_features(similarity, image):
    """What transformers gives for the squeezed picture, unit length."""
    with torch.no_grad():
        out = similarity.model.get_image_features(pixel_values=pixel_values(similarity, image))
    features = (out if isinstance(out, torch.Tensor) else out.pooler_output)[0]
    return features / features.norm()


REGIONS = [(0, 0, 300, 200), (10, 20, 180, 90), (100, 0, 300, 200), (37, 41, 43, 45), (0, 150, 300, 200)]


@torch.no_grad()
@pytest.mark.parametrize("region", REGIONS)
def test_local_embedding_equals_a_masked_forward(similarity, region):
    image = picture()
    region = box(*region, image)
    patches = covered_patches(region, similarity.image_size, similarity.model.config.vision_config.patch_size)
    wanted = brute_force(similarity, image, patches)
    assert torch.allclose(similarity.local_embedding(image, region), wanted, atol=1e-5)
    if not patches.all():
        assert not torch.allclose(wanted, image_features(similarity, image), atol=1e-3)


@torch.no_grad()
def test_the_whole_picture_as_region_is_plain_clip(similarity):
    image = picture()
    whole = box(0, 0, 300, 200, image)
    plain = image_features(similarity, image)
    assert torch.allclose(similarity.local_embedding(image, whole), plain, atol=1e-5)
    assert torch.allclose(similarity.crop_embedding(image, whole), plain, atol=1e-5)


@torch.no_grad()
def test_crop_embedding_is_clip_of_the_crop_rounded_outwards(small):
    image = picture()
    wanted = image_features(small, image.crop((10, 20, 101, 151)))
    assert torch.allclose(small.crop_embedding(image, box(10.6, 20.9, 100.1, 150.2, image)), wanted, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_full_size_b32(tmp_path):
    similarity = ClipSimilarity(str(save_checkpoint(tmp_path, 224, 32, width=768, layers=12, heads=12, projection=512)))
    image = picture()
    region = box(30, 30, 200, 170, image)
    assert torch.allclose(similarity.local_embedding(image, region), brute_force(similarity, image, covered_patches(region, 224, 32)), atol=1e-5)


def test_context_outside_the_region_counts(small):
    """What distinguishes S_local from the crop: another surrounding gives another embedding."""
    image, other = picture(), picture(seed=1)
    region = box(75, 50, 225, 150, image)
    other.paste(image.crop((75, 50, 225, 150)), (75, 50))
    assert torch.allclose(small.crop_embedding(image, region), small.crop_embedding(other, region), atol=1e-6)
    assert not torch.allclose(small.local_embedding(image, region), small.local_embedding(other, region), atol=1e-3)


def test_one_forward_of_the_whole_picture_serves_all_its_regions(small, monkeypatch):
    forward, shown = small._before_last_block, []
    monkeypatch.setattr(small, "_before_last_block", lambda image: shown.append(image) or forward(image))
    image = picture(seed=2)
    for corner in (10, 50, 90):
        small.score(image, box(corner, 0, 200, 100, image), ["a dog", "a cat"])
    assert sum(seen is image for seen in shown) == 1


# --- patches


def naive_patches(region, size, patch):
    """Share of each patch that the region covers, counted on a fine raster."""
    fine, grid = 8, size // patch
    xs = (np.arange(grid * patch * fine) + 0.5) / (size * fine)
    inside_x = (xs > region.x1 / region.space.width) & (xs < region.x2 / region.space.width)
    inside_y = (xs > region.y1 / region.space.height) & (xs < region.y2 / region.space.height)
    shares = np.outer(inside_y, inside_x).reshape(grid, patch * fine, grid, patch * fine).mean(axis=(1, 3)).ravel()
    return shares


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("region", REGIONS)
def test_covered_patches_are_those_covered_by_half(shape, region):
    region = box(*region, picture())
    shares, covered = naive_patches(region, *shape), covered_patches(region, *shape)
    sure = abs(shares - 0.5) > 0.02
    if (shares >= 0.52).any():
        assert (covered == (shares >= 0.5))[sure].all()
    else:
        assert covered.sum() == 1 and shares[covered.argmax()] >= shares.max() - 0.02


def test_exactly_half_counts_and_rows_come_first():
    image = picture(224, 224)
    covered = covered_patches(box(16, 0, 64, 32, image), 224, 32).reshape(7, 7)
    assert covered[0, :3].tolist() == [True, True, False] and covered.sum() == 2


# --- text


@torch.no_grad()
def test_cosines_are_raw_and_those_of_transformers(small):
    image = picture()
    region = box(75, 50, 225, 150, image)
    [(s_crop, s_local)] = small.score(image, region, ["a red dog"])
    tokens = small.tokenizer("a red dog", return_tensors="pt")
    out = small.model(**tokens, pixel_values=pixel_values(small, image.crop((75, 50, 225, 150))))
    assert s_crop == pytest.approx(float(out.text_embeds[0] @ out.image_embeds[0]), abs=1e-5)
    assert s_local == pytest.approx(float(out.text_embeds[0] @ small.local_embedding(image, region)), abs=1e-5)
    assert -1 <= s_crop <= 1


@torch.no_grad()
def test_long_text_is_the_token_weighted_mean_of_its_sentences(small):
    image = picture()
    region = box(75, 50, 225, 150, image)
    first, second = "a man is " + "very " * 10 + "tall.", "the dog " + "runs " * 7 + "off."
    assert small._count_tokens(first) <= 75 and small._count_tokens(second) <= 75
    assert small._count_tokens(f"{first} {second}") > 75
    (one, two, both) = small.score(image, region, [first, second, f"{first} {second}"])
    n, m = small._count_tokens(first), small._count_tokens(second)
    for term in (0, 1):
        assert both[term] == pytest.approx((n * one[term] + m * two[term]) / (n + m), abs=1e-6)


def test_a_very_long_text_is_never_cut_silently(small):
    image = picture()
    region = box(75, 50, 225, 150, image)
    long = "dog " * 60 + "x" * 200
    [(changed, _), (whole, _)] = small.score(image, region, [long + " cat", long])
    assert changed != whole


# --- loading


def test_what_is_no_clip_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"--spr_clip .*nowhere: not a CLIP checkpoint") as caught:
        ClipSimilarity(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)


def test_a_vision_tower_alone_is_refused(tmp_path):
    config = transformers.CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not a CLIP checkpoint with a text tower"):
        ClipSimilarity(str(tmp_path))


def test_a_checkpoint_without_text_weights_is_refused(tmp_path):
    """transformers would fill them with random numbers and go on."""
    save_checkpoint(tmp_path)
    from safetensors.torch import load_file, save_file

    weights = {name: value for name, value in load_file(tmp_path / "model.safetensors").items() if "text" not in name}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="no weights for text"):
        ClipSimilarity(str(tmp_path))


@pytest.mark.parametrize("file", ["preprocessor_config.json", "vocab.json"])
def test_missing_files_are_named_in_one_line(tmp_path, file):
    save_checkpoint(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match="--spr_clip") as caught:
        ClipSimilarity(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_hook_serves_spr_clip(tmp_path):
    folder = str(save_checkpoint(tmp_path))
    assert isinstance(spr_similarity(SimpleNamespace(spr_clip=folder), "cpu"), ClipSimilarity)
    assert spr_similarity(SimpleNamespace(spr_clip=None), "cpu") is None
