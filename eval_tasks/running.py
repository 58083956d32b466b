"""The models that lmms-eval has built in this process. A task is not told which model it runs on, but some
need to know.
"""

import gc
import weakref
from typing import Any

_models: list[weakref.ref] = []


def note_model(model: object) -> None:
    """Remember a model, weakly; :mod:`spr_plugin.eval_tasks.register` calls this for each one that is
    built.
    """
    _models.append(weakref.ref(model))


def running_models(collect: bool = False) -> list:
    """The models still alive. With `collect` those that only live on in reference cycles, from earlier runs,
    are dropped first.
    """
    if collect:
        gc.collect()
    _models[:] = [reference for reference in _models if reference() is not None]
    return [model for reference in _models if (model := reference()) is not None]


def model_config(model: object) -> Any:
    """The Hugging Face config object that an lmms-eval model works with, or None (models behind an API have
    none).
    """
    config = getattr(model, "config", None) or getattr(getattr(model, "model", None), "config", None)
    return config if hasattr(config, "to_dict") else None


def image_processor(model: object) -> object | None:
    """What prepares pictures for an lmms-eval model, or None."""
    processor = next(
        (
            own
            for name in ("_image_processor", "processor", "image_processor")
            if (own := getattr(model, name, None))
        ),
        None,
    )
    return getattr(processor, "image_processor", processor)


def pad_left() -> None:
    """Let the running LLaVA models pad batches on the left, as generation needs.

    Their config says "right", which is right for training; with it a prompt that is shorter than its batch's
    longest is answered as if the padding belonged to it. A batch of one is not affected.
    """
    for model in running_models():
        config = model_config(model)
        if getattr(config, "tokenizer_padding_side", None) == "right":
            config.tokenizer_padding_side = "left"
