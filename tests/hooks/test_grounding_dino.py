"""Grounding DINO and OWLv2 as detectors, on random weights: phrases, limits, and what the processors' own
post-processing says.

Written for every transformers that has the models: `processed` knows both names of each thing that was
renamed.
"""

import copy
import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
if not hasattr(transformers, "GroundingDinoConfig"):
    pytest.skip(f"transformers {transformers.__version__} has no Grounding DINO", allow_module_level=True)

from PIL import Image  # noqa: E402

from spr_plugin.boxes import Box, Space, best_iou, iou  # noqa: E402
from spr_plugin.config import SPRConfig  # noqa: E402
from spr_plugin.data.annotations import AnnotatedImage, Annotation, usable  # noqa: E402
from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.formats import llava  # noqa: E402
from spr_plugin.hooks import grounding_dino  # noqa: E402
from spr_plugin.recipes.spr.recipe import SPR  # noqa: E402
from spr_plugin.recipes.spr.refinement import refine  # noqa: E402
from spr_plugin.recipes.spr.regions import region_query  # noqa: E402
from spr_plugin.recipes.spr.scoring import SPRScorer  # noqa: E402

pytestmark = pytest.mark.legacy  # every version of the matrix

WORDS = "red blue green dog cat cup tree man hat on the near big small left right ##s".split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def spread(model):
    """The default initialization is so small that every box and phrase looks alike."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 1.2 * parameter[0].numel() ** -0.5)


def save_dino(folder, limit=32):
    """Grounding DINO's layout with tiny parts; its begin, end and full stop have BERT's ids, which the model
    knows by heart.
    """
    vocabulary = [f"[unused{index}]" for index in range(1100)]
    vocabulary[0], vocabulary[100], vocabulary[101], vocabulary[102], vocabulary[103] = (
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    )
    vocabulary[1012], vocabulary[1029] = ".", "?"
    vocabulary[200 : 200 + len(WORDS)] = WORDS
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    sizes = {"shortest_edge": 64, "longest_edge": 96}
    transformers.GroundingDinoProcessor(
        image_processor("GroundingDino", size=sizes), tokenizer
    ).save_pretrained(folder)
    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,  # noqa: E501
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=transformers.BertConfig(
            vocab_size=1100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=limit  # noqa: E501
        ),
        num_queries=20, d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32,  # noqa: E501
        encoder_attention_heads=2, decoder_attention_heads=2, max_text_len=limit,
    )  # fmt: skip
    model = transformers.GroundingDinoForObjectDetection(config)
    spread(model)
    model.save_pretrained(folder)
    return folder


def image_processor(family, **settings):
    """The PIL one where a version has several, since it needs no torchvision."""
    name = next(
        name
        for name in (f"{family}ImageProcessorPil", f"{family}ImageProcessor")
        if hasattr(transformers, name)
    )
    return getattr(transformers, name)(**settings)


def save_owl(folder, family="Owlv2"):
    letters = [*LETTERS, *(letter + "</w>" for letter in LETTERS)]
    vocabulary = ["!", "<|startoftext|>", "<|endoftext|>", *letters]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizerFast(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        pad_token="!",
        unk_token="<|endoftext|>",
        model_max_length=16,
    )
    getattr(transformers, f"{family}Processor")(
        image_processor(family, size={"height": 64, "width": 64}), tokenizer
    ).save_pretrained(folder)
    sides = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(transformers, f"{family}Config")(
        text_config={**sides, "vocab_size": len(vocabulary), "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**sides, "image_size": 64, "patch_size": 8},
        projection_dim=32,
    )
    model = getattr(transformers, f"{family}ForObjectDetection")(config)
    spread(model)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory):
    return save_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def owl_folder(tmp_path_factory):
    return save_owl(tmp_path_factory.mktemp("owl"))


@pytest.fixture(scope="module")
def loaded(dino_folder, owl_folder):
    return [grounding_dino.load(str(folder), 0.0) for folder in (dino_folder, owl_folder)]


@pytest.fixture
def dino(loaded):
    """With a threshold of its own."""
    return copy.copy(loaded[0])


@pytest.fixture
def owl(loaded):
    return copy.copy(loaded[1])


def picture(width=90, height=60, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def middle(detector, image, phrases):
    """A threshold that about half of all scores pass."""
    return float(np.median([score for _, _, score in detector.detect(image, phrases)]))


def processed(processor, outputs, threshold, size, **more):
    """``post_process_grounded_object_detection`` in either of its spellings, as rows of (label, box,
    score).
    """
    call = processor.post_process_grounded_object_detection
    named = inspect.signature(call).parameters
    limit = {"threshold" if "threshold" in named else "box_threshold": threshold}
    settings = {name: value for name, value in more.items() if name in named}
    result = call(outputs, target_sizes=[size[::-1]], **limit, **settings)[0]
    labels = result["text_labels"] if "text_labels" in result else result["labels"]
    return list(zip(labels, result["boxes"].tolist(), result["scores"].tolist()))


# --- Grounding DINO


def test_the_caption_is_the_processor_s(dino):
    [(ids, spans)] = dino._captions(["a red dog", "the cat"])
    inputs = dino.processor(images=picture(), text="a red dog. the cat.", return_tensors="pt")
    assert ids == inputs["input_ids"][0].tolist()
    assert [dino.processor.tokenizer.decode(ids[slice(*span)]) for span in spans.values()] == [
        "[UNK] red dog",
        "the cat",
    ]


@torch.no_grad()
def test_dino_finds_what_the_processor_reads_from_the_same_output(dino):
    """A phrase has a box where one of its words does."""
    image, phrases = picture(), ["red dog", "the cat", "big tree"]
    dino.threshold = limit = middle(dino, image, phrases)
    inputs = dino.processor(images=image, text="red dog. the cat. big tree.", return_tensors="pt")
    outputs = dino.model(**inputs)
    wanted = {
        (phrase, *np.round(box, 2))
        for words, box, _ in processed(
            dino.processor, outputs, limit, image.size, text_threshold=limit, input_ids=inputs["input_ids"]
        )
        for phrase in phrases
        if set(words.replace(".", " ").split()) & set(phrase.split())
    }
    detections = dino.detect(image, phrases)
    assert {(phrase, *np.round(box.xyxy, 2)) for phrase, box, _ in detections} == wanted and len(
        {phrase for phrase, *_ in detections}
    ) == 3
    assert all(limit < score <= 1 for *_, score in detections)


def test_phrases_beyond_the_caption_s_limit_go_into_several(dino, monkeypatch):
    image, phrases = (
        picture(),
        [f"{a} {b} {c}" for a in ("red", "blue") for b in ("dog", "cat", "cup") for c in ("left", "right")],
    )
    captions = list(dino._captions(phrases))
    assert len(captions) == 2 and all(len(ids) <= 32 for ids, _ in captions)
    together = dino.detect(image, phrases)
    assert {phrase for phrase, *_ in together} == set(phrases)
    first, second = (dino.detect(image, list(spans)) for _, spans in captions)
    assert same(together, first + second)
    monkeypatch.setattr(grounding_dino, "CAPTIONS", 1)
    assert same(together, dino.detect(image, phrases))


def same(rows, others):
    """Phrase, box and score alike, box by box, but for the order of boxes that score alike."""

    def key(row):
        return row[0], round(row[2], 4), tuple(round(value, 1) for value in row[1].xyxy)

    pairs = list(zip(sorted(rows, key=key), sorted(others, key=key), strict=True))
    return all(
        a[0] == b[0]
        and a[2] == pytest.approx(b[2], abs=1e-4)
        and a[1].xyxy == pytest.approx(b[1].xyxy, abs=1e-2)
        for a, b in pairs
    )


def test_a_phrase_over_the_limit_is_split_and_found_under_its_own_name(dino):
    long = "red dog near the big tree " * 8
    detections = dino.detect(picture(), [long])
    assert {phrase for phrase, *_ in detections} == {long}
    parts = [part for part, _ in grounding_dino.split_text(long.strip(), dino.count_tokens, dino.text_limit)]
    assert len(parts) == 2 and len(detections) == len(dino.detect(picture(), parts))


@pytest.mark.parametrize("phrase", ["...", "?", " "])
def test_a_phrase_without_words_finds_nothing(dino, owl, phrase):
    assert dino.detect(picture(), [phrase]) == owl.detect(picture(), [phrase]) == []
    assert dino.detect(picture(), []) == []


# --- OWLv2 and OWL-ViT


@torch.no_grad()
@pytest.mark.parametrize("size", [(90, 60), (60, 90)])
def test_owlv2_finds_what_the_processor_reads_on_the_padded_square(owl, size):
    """The processor names a box by its best phrase alone; ours counts for each phrase over the threshold."""
    image, phrases = picture(*size), ["red dog", "cat", "tree"]
    owl.threshold = limit = middle(owl, image, phrases)
    inputs = owl.processor(
        images=image, text=[phrases], return_tensors="pt", padding="max_length", max_length=16
    )
    outputs = owl.model(**inputs)
    scores = torch.sigmoid(outputs.logits[0])
    detections = owl.detect(image, phrases)
    assert [sum(named == phrase for named, *_ in detections) for phrase in phrases] == (scores > limit).sum(
        0
    ).tolist()
    if not hasattr(owl.processor, "post_process_grounded_object_detection"):
        return  # before 4.49
    square = (max(size), max(size))  # on a square picture of the padded size every version scales alike
    for words, box, score in processed(owl.processor, outputs, limit, square, text_labels=[phrases]):
        assert any(
            row[0] == words
            and row[2] == pytest.approx(score, abs=1e-5)
            and row[1].xyxy == pytest.approx(box, abs=0.05)
            for row in detections
        )


def test_owlvit_boxes_lie_on_the_picture_itself(tmp_path):
    detector = grounding_dino.load(str(save_owl(tmp_path, "OwlViT")), 0.0)
    image = picture(90, 30)
    [(_, box, _), *_] = detector.detect(image, ["dog"])
    inputs = detector.processor(
        images=image, text=[["dog"]], return_tensors="pt", padding="max_length", max_length=16
    )
    x, y, w, h = detector.model(**inputs).pred_boxes[0, 0].tolist()
    assert (
        iou(
            box,
            Box((x - w / 2) * 90, (y - h / 2) * 30, (x + w / 2) * 90, (y + h / 2) * 30, Space.pixels(90, 30)),
        )
        > 0.999
    )


def test_a_query_of_more_than_sixteen_tokens_is_split(owl):
    long = "a red dog near a big tree on the left"
    assert owl.text_limit == 14 and owl.count_tokens(long) > 14
    detections = owl.detect(picture(), [long, "cat"])
    assert {phrase for phrase, *_ in detections} == {long, "cat"}


# --- both


def test_a_higher_threshold_leaves_the_better_boxes(dino, owl):
    for detector in (dino, owl):
        every = detector.detect(picture(), ["red dog", "cat"])
        detector.threshold = middle(detector, picture(), ["red dog", "cat"])
        assert same(
            detector.detect(picture(), ["red dog", "cat"]),
            [row for row in every if row[2] > detector.threshold],
        )


class Alike:
    """A similarity for which every text fits every region."""

    def score(self, picture, asked):
        return [(0.5, 0.5) for _ in asked]


def test_what_a_detector_finds_joins_the_truth_of_the_region(dino, owl):
    image, form = picture(), llava("square")
    space = Space.pixels(*image.size)
    annotated = AnnotatedImage("7", "a.png", *image.size, (Annotation(1, "dog", Box(5, 5, 40, 30, space)),))
    query = region_query(annotated, Box(0, 0, *image.size, space), 0)
    texts = [
        form.render([("red dog", query.truth[0].box)]),
        form.render([("big tree", Box(50, 10, 80, 40, space))]),
    ]
    for detector in (dino, owl):
        detector.threshold = middle(detector, image, ["big tree", "red dog"])
        [judged] = SPR(SPRConfig(), form, refine, SPRScorer(Alike()), detector).judge(
            [image], [query], [texts]
        )
        truth = judged.truth
        assert truth[0] == [5, 5, 40, 30] and len(truth) > 1
        found = [
            usable(box).xyxy for _, box, _ in detector.detect(image, ["big tree", "red dog"]) if usable(box)
        ]
        assert all(best_iou([box], found)[0] > 0.999 for box in truth[1:])


def test_the_hook_serves_the_flags(dino_folder, owl_folder):
    for folder, kind in ((dino_folder, grounding_dino.GroundingDino), (owl_folder, grounding_dino.Owlv2)):
        detector = grounding_dino.spr_detector(
            SimpleNamespace(spr_detector=str(folder), spr_detector_threshold=0.4), "cpu"
        )
        assert type(detector) is kind and detector.threshold == 0.4


def test_what_is_no_detector_is_refused_in_one_line(tmp_path, dino_folder):
    with pytest.raises(UserError, match="--spr_detector .*nowhere: no detector") as caught:
        grounding_dino.load(str(tmp_path / "nowhere"), 0.3)
    assert "\n" not in str(caught.value)
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not Grounding DINO or OWLv2 .*'bert'"):
        grounding_dino.load(str(tmp_path), 0.3)
    for file in dino_folder.iterdir():
        (tmp_path / file.name).write_bytes(
            file.read_bytes()[: file.stat().st_size // 2 if file.suffix == ".safetensors" else None]
        )
    with pytest.raises(UserError, match="--spr_detector .*: no detector that transformers loads") as caught:
        grounding_dino.load(str(tmp_path), 0.3)
    assert "\n" not in str(caught.value)
