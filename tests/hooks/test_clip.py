"""CLIP and SigLIP similarity: the local attention against a brute-force forward, batches, text splitting,
loading.
"""

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
from spr_plugin.hooks import clip  # noqa: E402
from spr_plugin.hooks.clip import ClipSimilarity, SiglipSimilarity, covered_patches, spr_similarity  # noqa: E402

LETTERS = "abcdefghijklmnopqrstuvwxyz.,!?'"
SHAPES = {"B/32": (224, 32), "B/16": (224, 16), "L/14-336": (336, 14)}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def save_checkpoint(folder, image_size=224, patch_size=32, width=32, layers=3, heads=4, projection=24):
    """A random-weight CLIP of the given shape in the files that a real one has; its tokens are single
    letters.
    """
    letters = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    )
    special = {
        "bos_token": letters[-2],
        "eos_token": letters[-1],
        "unk_token": letters[-1],
        "pad_token": letters[-1],
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "CLIPImageProcessor",
                "image_mean": MEAN,
                "image_std": STD,
                "size": image_size,
            }
        )
    )
    sides = {
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": width,
    }
    ends = {
        "bos_token_id": len(letters) - 2,
        "eos_token_id": len(letters) - 1,
        "pad_token_id": len(letters) - 1,
    }
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={**sides, **ends, "vocab_size": len(letters), "max_position_embeddings": 77},
        vision_config={**sides, "image_size": image_size, "patch_size": patch_size},
        projection_dim=projection,
    )
    model = transformers.CLIPModel(config)
    spread(model)
    model.save_pretrained(folder)
    return folder


def save_siglip(folder, image_size=224, patch_size=16, width=32, layers=3, heads=4):
    """A random-weight SigLIP with a tokenizer of single letters; a text ends with </s> and is padded to
    64.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokens = ["</s>", "<unk>", *LETTERS]
    tokenizer = Tokenizer(
        models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=64
    )
    fast.save_pretrained(folder)
    half = {
        "image_processor_type": "SiglipImageProcessor",
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"height": image_size, "width": image_size},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(half))
    sides = {
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": width,
    }
    torch.manual_seed(0)
    config = transformers.SiglipConfig(
        text_config={
            **sides,
            "vocab_size": len(tokens),
            "max_position_embeddings": 64,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "bos_token_id": 0,
        },
        vision_config={**sides, "image_size": image_size, "patch_size": patch_size},
    )
    model = transformers.SiglipModel(config)
    spread(model)
    model.save_pretrained(folder)
    return folder


def spread(model):
    """The default initialization is so small that any attention looks alike."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 1.5 * parameter[0].numel() ** -0.5)


def load(folder) -> ClipSimilarity:
    """The similarity model, with the untouched transformers model of the same weights as `whole`."""
    similarity = clip.load(str(folder))
    similarity.whole = transformers.AutoModel.from_pretrained(folder).eval()
    return similarity


@pytest.fixture(scope="module", params=SHAPES)
def similarity(request, tmp_path_factory):
    image_size, patch_size = SHAPES[request.param]
    return load(save_checkpoint(tmp_path_factory.mktemp("clip"), image_size, patch_size))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return load(save_checkpoint(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module", params=[16, 14], ids=["16", "14, which leaves a margin"])
def siglip(request, tmp_path_factory):
    return load(
        save_siglip(
            tmp_path_factory.mktemp("siglip"),
            patch_size=request.param,
            image_size=224 if request.param == 16 else 230,
        )
    )


def picture(width=300, height=200, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def box(x1, y1, x2, y2, image):
    return Box(x1, y1, x2, y2, Space.pixels(*image.size))


def pixel_values(similarity, image):
    """Squeezed and normalized, by torch instead of numpy."""
    size = similarity.image_size
    values = (
        torch.from_numpy(np.array(image.convert("RGB").resize((size, size), Image.BICUBIC)))
        .permute(2, 0, 1)
        .double()
        / 255
    )
    mean, std = ([0.5] * 3, [0.5] * 3) if similarity.model.config.model_type == "siglip" else (MEAN, STD)
    values = (values - torch.tensor(mean).double().view(3, 1, 1)) / torch.tensor(std).double().view(3, 1, 1)
    return values.float()[None]


def brute_force(similarity, image, patches):
    """The whole tower by transformers' own modules; in the last block a hand-made mask on the class token's
    row.
    """
    model = similarity.whole
    vision = model.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(pixel_values(similarity, image)))
    length = hidden.shape[1]
    mask = torch.zeros(1, 1, length, length)
    mask[0, 0, 0, 1:][~torch.from_numpy(patches)] = torch.finfo(torch.float32).min
    for block in vision.encoder.layers:
        used = mask if block is vision.encoder.layers[-1] else torch.zeros_like(mask)
        needed = (
            {"causal_attention_mask": None}
            if "causal_attention_mask" in inspect.signature(block.forward).parameters
            else {}
        )
        out = block(hidden, used, **needed)
        hidden = out[0] if isinstance(out, tuple) else out
    features = model.visual_projection(vision.post_layernorm(hidden[:, 0]))[0]
    return features / features.norm()


def image_features(similarity, image):
    """What transformers gives for the squeezed picture, unit length."""
    with torch.no_grad():
        out = similarity.whole.get_image_features(pixel_values=pixel_values(similarity, image))
    features = (out if isinstance(out, torch.Tensor) else out.pooler_output)[0]
    return features / features.norm()


REGIONS = [(0, 0, 300, 200), (10, 20, 180, 90), (100, 0, 300, 200), (37, 41, 43, 45), (0, 150, 300, 200)]


def boxes(image, regions=REGIONS):
    return [box(*region, image) for region in regions]


@torch.no_grad()
def test_local_embeddings_equal_a_masked_forward(similarity):
    image, plain = picture(), None
    for region, local in zip(boxes(image), similarity.local_embeddings(image, boxes(image)), strict=True):
        patches = covered_patches(region, similarity.image_size, similarity.patch_size)
        assert torch.allclose(local, brute_force(similarity, image, patches), atol=1e-5)
        plain = image_features(similarity, image) if plain is None else plain
        assert torch.allclose(local, plain, atol=1e-5 if patches.all() else 1e-3) == patches.all()


@torch.no_grad()
def test_crop_embeddings_are_clip_of_the_crops_rounded_outwards(similarity):
    image = picture()
    regions = boxes(image, [(0, 0, 300, 200), (10.6, 20.9, 100.1, 150.2), (37, 41, 43, 45)])
    for corners, embedding in zip(
        [(0, 0, 300, 200), (10, 20, 101, 151), (37, 41, 43, 45)], similarity.crop_embeddings(image, regions)
    ):
        assert torch.allclose(embedding, image_features(similarity, image.crop(corners)), atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_full_size_b32(tmp_path):
    similarity = load(save_checkpoint(tmp_path, 224, 32, width=768, layers=12, heads=12, projection=512))
    image = picture()
    [region] = boxes(image, [(30, 30, 200, 170)])
    [local] = similarity.local_embeddings(image, [region])
    assert torch.allclose(local, brute_force(similarity, image, covered_patches(region, 224, 32)), atol=1e-5)


def siglip_by_hand(similarity, image, patches):
    """SigLIP's whole tower by transformers' own modules, then its pooling head on nothing but the region's
    tokens.
    """
    vision = similarity.whole.vision_model
    hidden = vision(pixel_values=pixel_values(similarity, image)).last_hidden_state
    features = vision.head(hidden[:, torch.from_numpy(patches)])[0]
    return features / features.norm()


@torch.no_grad()
def test_siglip_masks_its_pooling_head(siglip):
    image = picture()
    assert isinstance(siglip, SiglipSimilarity)
    for region, local in zip(boxes(image), siglip.local_embeddings(image, boxes(image)), strict=True):
        patches = covered_patches(region, siglip.image_size, siglip.patch_size)
        assert torch.allclose(local, siglip_by_hand(siglip, image, patches), atol=1e-5)
        assert (
            torch.allclose(local, image_features(siglip, image), atol=1e-5 if patches.all() else 1e-3)
            == patches.all()
        )
    [crop] = siglip.crop_embeddings(image, boxes(image, [(10, 20, 101, 151)]))
    assert torch.allclose(crop, image_features(siglip, image.crop((10, 20, 101, 151))), atol=1e-5)


@torch.no_grad()
def test_siglip_cosines_are_those_of_transformers(siglip):
    image, long = picture(), "dog " * 30 + "cat."
    whole = box(0, 0, 300, 200, image)
    [(s_crop, s_local), (split, _)] = siglip.score(image, [(whole, "a red dog"), (whole, long)])
    tokens = siglip.tokenizer("a red dog", return_tensors="pt", padding="max_length", max_length=64)
    out = siglip.whole(input_ids=tokens["input_ids"], pixel_values=pixel_values(siglip, image))
    assert s_crop == pytest.approx(
        float(out.text_embeds[0] @ out.image_embeds[0]), abs=1e-5
    ) and s_local == pytest.approx(s_crop, abs=1e-5)
    assert siglip.text_limit == 63 and siglip.count_tokens(long) == 94 and -1 <= split <= 1


def test_context_outside_the_region_counts(small):
    """What distinguishes S_local from the crop: another surrounding gives another embedding."""
    image, other = picture(), picture(seed=1)
    region = [box(75, 50, 225, 150, image)]
    other.paste(image.crop((75, 50, 225, 150)), (75, 50))
    assert torch.allclose(
        small.crop_embeddings(image, region), small.crop_embeddings(other, region), atol=1e-6
    )
    assert not torch.allclose(
        small.local_embeddings(image, region), small.local_embeddings(other, region), atol=1e-3
    )


def test_one_forward_of_the_whole_picture_serves_all_its_regions(small, monkeypatch):
    """Whatever the number of its regions, texts and calls; the crops go together."""
    tower, batches = small.model.vision_model.forward, []
    monkeypatch.setattr(
        small.model.vision_model,
        "forward",
        lambda pixel_values: batches.append(len(pixel_values)) or tower(pixel_values),
    )
    image = picture(seed=2)
    for corners in ((10, 50, 90), (20, 60, 100)):
        small.score(
            image,
            [(box(corner, 0, 200, 100, image), text) for corner in corners for text in ("a dog", "a cat")],
        )
    assert sorted(batches) == [1, 3, 3]


def test_batches_change_nothing(small, monkeypatch):
    image = picture()
    asked = [
        (region, text)
        for region in boxes(image)
        for text in ("a dog", "a red cat on the mat, asleep", "dog " * 40)
    ]
    together = small.score(image, asked)
    alone = [small.score(image, [one])[0] for one in asked]
    monkeypatch.setattr(clip, "CROPS", 2)
    monkeypatch.setattr(clip, "TEXTS", 1)
    assert np.allclose(together, alone, atol=1e-5) and np.allclose(
        together, small.score(image, asked), atol=1e-5
    )


# --- patches


def naive_patches(region, size, patch):
    """Share of each patch that the region covers, counted on a fine raster."""
    fine, grid = 8, size // patch
    xs = (np.arange(grid * patch * fine) + 0.5) / (size * fine)
    inside_x = (xs > region.x1 / region.space.width) & (xs < region.x2 / region.space.width)
    inside_y = (xs > region.y1 / region.space.height) & (xs < region.y2 / region.space.height)
    shares = (
        np.outer(inside_y, inside_x).reshape(grid, patch * fine, grid, patch * fine).mean(axis=(1, 3)).ravel()
    )
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
    [(s_crop, s_local)] = small.score(image, [(region, "a red dog")])
    tokens = small.tokenizer("a red dog", return_tensors="pt")
    out = small.whole(**tokens, pixel_values=pixel_values(small, image.crop((75, 50, 225, 150))))
    assert s_crop == pytest.approx(float(out.text_embeds[0] @ out.image_embeds[0]), abs=1e-5)
    assert s_local == pytest.approx(
        float(out.text_embeds[0] @ small.local_embeddings(image, [region])[0]), abs=1e-5
    )
    assert -1 <= s_crop <= 1


@torch.no_grad()
def test_long_text_is_the_token_weighted_mean_of_its_sentences(small):
    image = picture()
    region = box(75, 50, 225, 150, image)
    first, second = "a man is " + "very " * 10 + "tall.", "the dog " + "runs " * 7 + "off."
    assert small.count_tokens(first) <= 75 and small.count_tokens(second) <= 75
    assert small.count_tokens(f"{first} {second}") > 75
    one, two, both = small.score(image, [(region, text) for text in (first, second, f"{first} {second}")])
    n, m = small.count_tokens(first), small.count_tokens(second)
    for term in (0, 1):
        assert both[term] == pytest.approx((n * one[term] + m * two[term]) / (n + m), abs=1e-6)


@torch.no_grad()
def test_likeness_is_the_cosine_of_texts_whatever_is_asked_beside_them(small):
    long = "dog " * 60
    first, second = ["a dog", "cups", long], ["cups", "a dog"]
    table = small.likeness(first, second)
    assert table.shape == (3, 2) and table[0, 1] == pytest.approx(1, abs=1e-6) == table[1, 0]
    embeddings = small.text_embeddings(["a dog", "cups"])
    assert table[0, 0] == pytest.approx(float(embeddings[0] @ embeddings[1]), abs=1e-6)
    assert small.likeness(second, first) == pytest.approx(table.T, abs=1e-6)
    assert small.likeness([long], ["cups"])[0, 0] == pytest.approx(table[2, 0], abs=1e-6)


def test_a_name_is_worth_the_same_to_the_last_bit_whatever_is_asked_beside_it(tmp_path):
    names = ["a cup", "cups", "dog", "a tall man", "red ball", "kite", "zebra", "a chair", "bus", "two owls"]
    save_checkpoint(tmp_path, width=64, heads=4)
    together, alone = clip.load(str(tmp_path)), clip.load(str(tmp_path))
    table = together.likeness(names, names)
    rows = [alone.likeness([name], [name]) for name in reversed(names)]  # each in a batch of its own
    assert len(rows) == len(names) and np.array_equal(table, alone.likeness(names, names))


def test_a_very_long_text_is_never_cut_silently(small):
    image = picture()
    region = box(75, 50, 225, 150, image)
    long = "dog " * 60 + "x" * 200
    [(changed, _), (whole, _)] = small.score(image, [(region, long + " cat"), (region, long)])
    assert changed != whole


# --- loading


def test_what_is_no_clip_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"--spr_clip .*nowhere: not a CLIP checkpoint") as caught:
        clip.load(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)


def test_a_vision_tower_alone_is_refused(tmp_path):
    config = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not a CLIP checkpoint with a text tower"):
        clip.load(str(tmp_path))


def test_a_checkpoint_without_text_weights_is_refused(tmp_path):
    """transformers would fill them with random numbers and go on."""
    save_checkpoint(tmp_path)
    from safetensors.torch import load_file, save_file

    weights = {
        name: value for name, value in load_file(tmp_path / "model.safetensors").items() if "text" not in name
    }
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="no weights for text"):
        clip.load(str(tmp_path))


def test_weights_of_another_shape_are_refused(tmp_path):
    save_checkpoint(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["vision_config"]["hidden_size"] = content["vision_config"]["intermediate_size"] = 48
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="--spr_clip .*not a CLIP checkpoint") as caught:
        clip.load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_truncated_weights_are_refused(tmp_path):
    save_checkpoint(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="--spr_clip .*not a CLIP checkpoint") as caught:
        clip.load(str(tmp_path))
    assert "\n" not in str(caught.value)


END = len(LETTERS) * 2 + 1  # of `save_checkpoint`, its largest id


@pytest.mark.parametrize("eos", [2, END, END - 1, END + 1])
def test_a_text_tower_that_does_not_read_to_the_end_is_refused(tmp_path, eos):
    """What transformers pools is that of the last token, or the checkpoint is refused."""
    save_checkpoint(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["text_config"]["eos_token_id"] = eos
    (tmp_path / "config.json").write_text(json.dumps(content))
    if eos in (2, END):
        assert isinstance(clip.load(str(tmp_path)), ClipSimilarity)
    else:
        with pytest.raises(UserError, match=f"eos_token_id {eos}.* must be {END}, as its tokenizer says"):
            clip.load(str(tmp_path))


def test_a_last_token_that_transformers_takes_for_openais_config_is_refused(tmp_path):
    """Its id is 2 and words have larger ones: two texts that differ behind their largest id are one."""
    vocabulary = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{x}</w>" for x in LETTERS)]
    save_checkpoint(tmp_path)
    ids = {token: index for index, token in enumerate(vocabulary)}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    for file in ("tokenizer.json", "added_tokens.json"):
        (tmp_path / file).unlink(missing_ok=True)
    content = json.loads((tmp_path / "config.json").read_text())
    content["text_config"].update(eos_token_id=2, bos_token_id=1, pad_token_id=0, vocab_size=len(ids))
    model = transformers.CLIPModel(transformers.CLIPConfig.from_dict(content))
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"does not read texts to their end .* last token is 2\)$"):
        clip.load(str(tmp_path))


@pytest.mark.parametrize("eos", [2, END, 0])
def test_a_tokenizer_without_an_end_token_is_refused(tmp_path, eos):
    """Whatever the config says: the last token of a text is a word, and the first of its kind is pooled."""
    save_checkpoint(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    # CLIP's own class puts the end token back.
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    content = json.loads((tmp_path / "config.json").read_text())
    content["text_config"]["eos_token_id"] = eos
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="tokenizer ends texts with no token of their own"):
        clip.load(str(tmp_path))


@pytest.mark.parametrize("file", ["preprocessor_config.json", "vocab.json"])
def test_missing_files_are_named_in_one_line(tmp_path, file):
    save_checkpoint(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match="--spr_clip") as caught:
        clip.load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_hook_serves_spr_clip(tmp_path):
    folder = str(save_checkpoint(tmp_path))
    assert isinstance(spr_similarity(SimpleNamespace(spr_clip=folder), "cpu"), ClipSimilarity)
    assert spr_similarity(SimpleNamespace(spr_clip=None), "cpu") is None
