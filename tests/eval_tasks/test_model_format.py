import pytest

from spr_plugin.eval_tasks import model_format, running
from spr_plugin.eval_tasks.refusal import Refusal

PAD = {"model_type": "llava_llama", "image_aspect_ratio": "pad"}


class Config:
    def __init__(self, **values):
        self.__dict__.update(values)

    def to_dict(self):
        return dict(self.__dict__)


class Model:
    def __init__(self, **values):
        self.config = Config(**values)


class ModelBehindAnAPI:
    pass


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """No model noted; a function that notes one and keeps it alive."""
    monkeypatch.setattr(running, "_models", [])
    alive = []

    def build(kind=Model, **values):
        alive.append(kind(**values))
        running.note_model(alive[-1])
        return alive[-1]

    build.alive = alive
    return build


def refusal(environ):
    with pytest.raises(Refusal) as refused:
        model_format.running_format(environ)
    assert "\n" not in refused.value.message
    return refused.value.message


def test_the_variable_comes_first(models):
    models(**PAD, spr_box={"family": "shikra", "space": "padded_square", "aspect": None})
    assert model_format.running_format({"SPR_BOX_FORMAT": "ferret"}) == "ferret"


def test_spr_box_comes_before_the_family(models):
    models(**PAD, spr_box={"family": "shikra", "space": "padded_square", "aspect": None})
    assert model_format.running_format({}) == "shikra"


def test_what_a_format_describes_is_what_is_resolved(models):
    for name in ("llava:pad", "llava:square", "ferret", "shikra", "cogvlm"):
        described = model_format.named_format(name).describe()
        assert model_format.config_format({"spr_box": described})[0] == name


@pytest.mark.parametrize("model_type", ["llava", "llava_llama", "llava_mistral"])
def test_llava_that_pads_speaks_of_the_padded_square(models, model_type):
    models(model_type=model_type, image_aspect_ratio="pad")
    name = model_format.running_format({})
    assert name == "llava:pad" and model_format.named_format(name).describe()["space"] == "padded_square"


class Processor:
    do_center_crop = True

    def __init__(self, **size):
        self.size = size


CLIP, SQUEEZE = Processor(shortest_edge=336), Processor(height=336, width=336)


@pytest.mark.parametrize(
    "values, processor, name",
    [
        ({"image_aspect_ratio": "pad"}, CLIP, "llava:pad"),
        ({"image_aspect_ratio": "anyres"}, CLIP, "llava:anyres"),
        ({"image_aspect_ratio": "anyres_max_9"}, CLIP, "llava:anyres"),
        ({"image_grid_pinpoints": [[336, 672]]}, CLIP, "llava:anyres"),
        ({"image_aspect_ratio": "square"}, SQUEEZE, "llava:square"),
        ({}, SQUEEZE, "llava:square"),
    ],
)
def test_pictures_preparation_decides_under_one_model_name(models, values, processor, name):
    models(model_type="llava_llama", **values)._image_processor = processor
    assert model_format.running_format({}) == name


@pytest.mark.parametrize("values", [{"image_aspect_ratio": "square"}, {}])
@pytest.mark.parametrize("processor", [CLIP, None])
def test_a_centre_crop_is_refused(models, values, processor):
    models(model_type="llava_llama", **values)._image_processor = processor
    line = refusal({})
    assert "SPR_BOX_FORMAT" in line and "edges off" in line


@pytest.mark.parametrize(
    "values, name",
    [
        ({"model_type": "qwen2_5_vl"}, "qwen2.5-vl"),
        ({"model_type": "qwen3_vl"}, "qwen3-vl"),
        ({"model_type": "qwen"}, "qwen-vl"),
        ({"model_type": "internvl_chat"}, "internvl"),
        ({"architectures": ["CogVLMForCausalLM"]}, "cogvlm"),
        (
            {
                "model_type": "llava",
                "architectures": ["FERRETLlamaForCausalLM"],
                "image_aspect_ratio": "square",
            },
            "ferret",
        ),
    ],
)
def test_other_families_are_known(models, values, name):
    models(**values)
    assert model_format.running_format({}) == name


class QwenProcessor:
    def __init__(self, **values):
        self.__dict__.update(values)


@pytest.mark.parametrize(
    "values",
    [
        {"min_pixels": 200704, "max_pixels": 1605632},
        {"size": {"shortest_edge": 200704, "longest_edge": 1605632}},
    ],
)
def test_qwens_resizing_is_that_of_the_running_processor(models, values):
    """lmms-eval enlarges small pictures, where the published processor does not: a pixel is another place."""
    models(model_type="qwen2_5_vl").processor = QwenProcessor(image_processor=QwenProcessor(**values))
    name = model_format.running_format({})
    assert name == "qwen2.5-vl:200704-1605632"
    form = model_format.named_format(name)
    assert form.space(640, 300).scale[0] == pytest.approx(640 / 672) and model_format.named_format(
        "qwen2.5-vl"
    ).space(640, 300).scale[0] == pytest.approx(640 / 644)
    assert model_format.config_format({"spr_box": form.describe()})[0] == name


def test_another_family_is_refused(models):
    models(model_type="idefics2")
    assert "idefics2" in refusal({})


def test_model_without_a_config_is_refused(models):
    models(ModelBehindAnAPI)
    assert "no config" in refusal({})


def test_no_model_is_refused():
    assert "no model" in refusal({})


def test_unknown_name_is_refused():
    assert "SPR_BOX_FORMAT is nonsense" in refusal({"SPR_BOX_FORMAT": "nonsense"})


@pytest.mark.parametrize(
    "recorded",
    ["llava", {"space": "padded_square"}, {"family": "llava", "aspect": "pad", "space": "normalized"}],
)
def test_broken_record_is_refused(models, recorded):
    models(**PAD, spr_box=recorded)
    assert "spr_box" in refusal({})


def test_models_that_differ_are_refused_while_both_live(models):
    models(**PAD)
    models(**PAD, spr_box={"family": "ferret", "space": "grid1000", "aspect": None})
    assert "differ" in refusal({})
    del models.alive[0]
    assert model_format.running_format({}) == "ferret"


def test_models_that_agree_are_fine(models):
    models(**PAD)
    models(**PAD)
    assert model_format.running_format({}) == "llava:pad"


def test_dead_model_in_a_cycle_does_not_count(models):
    model = models(**PAD)
    model.itself = model
    del model, models.alive[:]
    models(model_type="llava_llama", image_aspect_ratio="pad", spr_box={"family": "ferret"})
    assert model_format.running_format({}) == "ferret"


def test_batches_are_padded_left_where_the_config_says_right(models):
    right, none = models(tokenizer_padding_side="right"), models()
    running.pad_left()
    assert right.config.tokenizer_padding_side == "left"
    assert not hasattr(none.config, "tokenizer_padding_side")


@pytest.mark.parametrize(
    "name",
    [
        "llava:sqare",
        "llava:PAD",
        "llava:1-2",
        "ferret:sqare",
        "qwen2.5-vl:9-1",
        "qwen2.5-vl:0-0",
        "llava:pad:x",
    ],
)
def test_an_aspect_that_the_family_has_not_is_refused(models, name):
    """LLaVA's boxes were read as 0-1 of the picture for any word but pad."""
    models(**PAD)
    family, _, aspect = name.partition(":")
    assert f"SPR_BOX_FORMAT is {name}: " in (line := refusal({"SPR_BOX_FORMAT": name}))
    assert f"{family} knows no aspect '{aspect}'" in line


@pytest.mark.parametrize(
    "name",
    ["llava:square", "llava:anyres_max_9", "ferret:pad", "qwen2.5-vl:3136-1605632", "shikra", "llava:"],
)
def test_an_aspect_that_means_something_is_taken(models, name):
    assert model_format.running_format({"SPR_BOX_FORMAT": name}) == name


def test_a_plugin_s_family_has_aspects_of_its_own(monkeypatch):
    class Lab:
        family = "lab"

    monkeypatch.setattr(model_format, "named_format", lambda name: Lab)
    assert model_format.given_format("lab:upside-down", "box_format") is Lab
