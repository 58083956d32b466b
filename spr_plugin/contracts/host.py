"""A plugin's host, tried on a question and an answer."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path

from spr_plugin.contracts.box_format import checked_format
from spr_plugin.contracts.made_up import made_up
from spr_plugin.foreign import Broken, Foreign, has, kind, listed, of_kind, shown
from spr_plugin.training.host import PARTS, Host


def checked_host(plugin: str, hook: str, host, arguments: dict) -> Host:
    """`host`, whose rows and names are as they must be.

    What runs the model (prefill, step, a forward) is not tried: it needs the model as the training leaves it.
    """
    checking = Foreign(plugin, hook, host).checking
    with checking():
        of_kind(host, Host)
        has(host, Host.__annotations__)
        of_kind(host.most_pictures, int, "as most_pictures ")
        for attribute in ("data_path", "image_folder", "vision_tower"):
            of_kind(getattr(host, attribute), (str, Path, type(None)), f"as {attribute} ")
    checked_format(plugin, f"{hook}, {kind(host)}.box_format", host.box_format, arguments)
    _check_rows(host, checking)
    _check_answering(host, checking)
    _check_names(host, checking)
    return host


def _check_rows(host: Host, checking) -> None:
    with made_up() as (picture, (query, _)):
        answer = host.box_format.render([("a red square", query.truth[0].box)])
        with checking("row"):
            row = host.row([query.image.path], "Describe the objects.", answer)
            ids, labels = (_tokens(row, key) for key in ("input_ids", "labels"))
            trained_on = [token for token, label in zip(ids, labels) if label != -100]
            if len(ids) != len(labels) or not trained_on or len(trained_on) == len(ids):
                raise Broken("gives labels that are not -100 off the answer and its tokens on it")
        with checking("questions"):
            prompts = ["Describe the objects.", "Where?"]
            for question in listed(host.questions([picture], prompts), len(prompts), "prompts"):
                _tokens(question, "input_ids")
    with checking("fits"):
        if (fits := host.fits(row)) not in (True, False):
            raise Broken(f"gives {shown(fits)}, neither True nor False")
    with checking("batch"):
        batch = of_kind(host.batch([row, row]), Mapping)
        tokens = batch.get("input_ids")
        if getattr(tokens, "ndim", None) != 2 or len(tokens) != 2:
            raise Broken("gives no input_ids of two rows for two rows")
    with checking("pictures"):
        listed(host.pictures(batch))
    with checking("texts"):
        of_kind(listed(host.texts([trained_on]), 1, "answers")[0], str)


def _check_answering(host: Host, checking) -> None:
    with checking("stop_tokens"):
        if not [of_kind(token, Integral, "among ids ") for token in listed(host.stop_tokens)]:
            raise Broken("gives no token that ends an answer")
    with checking("language_model"):
        listed(host.language_model(), 2, "(decoder, head)")
    with checking("labels_overheard"), host.labels_overheard() as heard:
        of_kind(heard, list)
    with checking("image_encoder"):
        encoder = host.image_encoder()
        if encoder is not None:
            owner, method, modules = listed(encoder, 3, "(object, name of its method, modules)")
            if not callable(getattr(owner, of_kind(method, str, "as method "), None)):
                raise Broken(f"gives {method!r}, which {kind(owner)} has not")
            listed(modules)


def _check_names(host: Host, checking) -> None:
    with checking("language_layers"):
        known = {name for name, _ in host.trainer.model.named_modules()}
        layers = listed(host.language_layers())
        if unknown := [name for name in layers if name not in known]:
            raise Broken(f"gives {shown(unknown[0])}, which is no module of the model")
    with checking("part_of"):
        for name, _ in host.trainer.model.named_parameters():
            if (part := host.part_of(name)) not in PARTS:
                raise Broken(f"gives {shown(part)} for {name}, none of {', '.join(PARTS)}")


def _tokens(row, key: str) -> list[int]:
    values = of_kind(row, Mapping).get(key)
    if getattr(values, "ndim", None) != 1:
        raise Broken(
            f"gives {key} of shape {tuple(getattr(values, 'shape', ()))} ({kind(values)}), no 1-D tensor"
        )
    return values.tolist()
