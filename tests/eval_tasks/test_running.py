"""The models that run in this process."""

import pytest

from spr_plugin.eval_tasks import running


class Config:
    def __init__(self, **values):
        vars(self).update(values)

    def to_dict(self):
        return vars(self)


class Model:
    def __init__(self, config=None, **parts):
        self.config = config
        vars(self).update(parts)


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    monkeypatch.setattr(running, "_models", [])


def test_models_are_known_as_long_as_they_live():
    first, second = Model(), Model()
    running.note_model(first)
    running.note_model(second)
    assert running.running_models() == [first, second]
    del first
    assert running.running_models() == [second]
    second.itself = second  # a cycle: only a collection drops it
    del second
    assert len(running.running_models()) == 1
    assert running.running_models(collect=True) == []


def test_configs_and_processors_are_found_where_models_keep_them():
    config, inner = Config(a=1), Model(Config(b=2))
    assert running.model_config(Model(config)) is config
    assert running.model_config(Model(model=inner)) is inner.config
    assert running.model_config(Model("no config")) is running.model_config(Model()) is None
    assert running.image_processor(Model(_image_processor="p")) == "p"
    assert running.image_processor(Model(processor=Model(image_processor="q"))) == "q"
    assert running.image_processor(Model()) is None


def test_only_models_that_pad_on_the_right_are_turned():
    models = [Model(Config(tokenizer_padding_side=side)) for side in ("right", "left")] + [
        Model(Config()),
        Model(),
    ]
    for model in models:
        running.note_model(model)
    running.pad_left()
    assert [vars(model.config) for model in models[:3]] == [{"tokenizer_padding_side": "left"}] * 2 + [{}]
