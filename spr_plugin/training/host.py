"""What the method needs to know about a training code base, and nothing more.

A host is found by the ``spr_host`` hook; every code base that trains vision-language models differs in these
things only.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from spr_plugin.errors import UserError
from spr_plugin.plugins import load_file, loaded_files

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from spr_plugin.data.pictures import PictureSource
    from spr_plugin.formats import BoxFormat

Row = dict[str, Any]  # and a batch of them: by the host's own names
IGNORED = -100  # the label of a token that is not trained on
PARTS = ("language model", "projector", "vision tower")


class Answering(ABC):
    """What :mod:`spr_plugin.sampling.decoding` asks of a model: it runs the loop, this only forwards."""

    @property
    @abstractmethod
    def stop_tokens(self) -> list[int]:
        """Ids of the tokens that end an answer, at least one."""

    @abstractmethod
    def batch(self, rows: list[Row]) -> Row:
        """Rows → keyword arguments of the model's forward, by the host's own collator."""

    @abstractmethod
    def prefill(self, rows: list[Row]) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """B rows of ``questions``, padded on the left → next-token logits ``(B, V)``, key-value cache,
        attention mask ``(B, T)`` of 0 and 1. Rows of one picture share its features.
        """

    def step(self, tokens: torch.Tensor, mask: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """t tokens a row ``(B, t)`` behind ``cache``, padded on the left; ``mask (B, T)`` covers cache and
        tokens → logits ``(B, V)`` of what follows the last, cache.
        """
        decoder, head = self.language_model()
        positions = positions_of(mask, tokens)
        out = decoder(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        )
        return head(out.last_hidden_state[:, -1]), out.past_key_values

    @abstractmethod
    def texts(self, answers: list[list[int]]) -> list[str]:
        """Answers as text, without special tokens."""

    @abstractmethod
    def language_model(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The decoder that takes ``inputs_embeds``, and the linear head behind it."""

    def sharing(self, row: Row) -> tuple[Hashable, int] | None:
        """What rows can have computed together: (which pictures this one shows, how many of its ``input_ids``
        stay with them, as only plain text follows); None where nothing can be taken apart.
        """
        return None

    def on_device(self, batch: Row) -> Row:
        """``batch`` where the model is, with the types that it computes in."""
        weight = self.language_model()[1].weight
        moved: Row = _moved(batch, weight.device, weight.dtype)
        return moved


class Host(Answering):
    """One training script with its model, tokenizer and image transform.

    ``row``, ``batch``, ``pictures`` and ``texts`` are also called in data loaders' processes, where there is
    no trainer and no model: those that are not forked get the rest of the host by pickle. A host that keeps
    more that cannot go there says so by ``__getstate__``.

    Attributes:
        trainer: the host's ``transformers.Trainer``; ``trainer.model`` is the live model.
        box_format: how the model writes boxes (see :mod:`spr_plugin.formats`).
        data_path: the host's training data in LLaVA's form, of which boxes are mined by default; else None.
        image_folder: where that data's pictures lie, the default of ``--spr_image_folder``; else None.
        vision_tower: path or hub id of the vision tower, the default of ``--spr_clip``; or None.
        most_pictures: how many pictures one question may show.
        frozen_tower: why the vision tower cannot be trained here, in a few words; None where it can.
        saves_adapter_alone: of a model with adapters the host saves these, and nothing else that trained.
    """

    trainer: Any
    box_format: BoxFormat
    data_path: str | None
    image_folder: str | None
    vision_tower: str | None
    most_pictures: int = 1
    frozen_tower: str | None = None
    saves_adapter_alone: bool = False

    @abstractmethod
    def row(self, sources: Sequence[PictureSource], prompt: str, answer: str) -> Row:
        """One training row about the pictures that ``data.pictures.open_image`` gives of these, in the host's
        own layout (1-D ``input_ids`` and ``labels``, pictures); labels are -100 off the answer.
        """

    @abstractmethod
    def fits(self, row: Row) -> bool:
        """Whether the host would train on the whole answer of this row (neither cut at its maximum length nor
        masked).
        """

    @abstractmethod
    def questions(self, pictures: Sequence[Image.Image], prompts: list[str]) -> list[Row]:
        """One row without an answer for each prompt, all of which show ``pictures`` (RGB), on the CPU. Called
        off the main thread.
        """

    @abstractmethod
    def labels_overheard(self) -> AbstractContextManager[list[torch.Tensor]]:
        """Context manager: a list that gets, at each forward, the labels ``(B, T)`` expanded to the tokens
        the decoder sees (image tokens are -100). Inside, the host computes no loss.
        """

    @abstractmethod
    def pictures(self, batch: Row) -> list[torch.Tensor]:
        """The image tensors of a batch, in the order in which the image encoder gets them stacked."""

    @abstractmethod
    def image_encoder(self) -> tuple[object, str, tuple[torch.nn.Module, ...]] | None:
        """``(object, name of its method, modules)``: what maps stacked image tensors to features, as far as
        ``modules`` are frozen. None where features cannot be kept a picture.
        """

    @abstractmethod
    def language_layers(self) -> list[str]:
        """Names of the linear layers that an adapter may be added to: the language model's, without head,
        projector, vision tower.
        """

    @abstractmethod
    def part_of(self, parameter_name: str) -> str:
        """Which part of the model a parameter belongs to: "language model", "projector", "vision tower"."""

    def tower_trains(self) -> None:
        """Called before the vision tower trains: let the checkpoint say so, where its loader asks."""
        return

    @abstractmethod
    def save(self, directory: str) -> None:
        """Write the live model as the host itself would, in its own layout."""

    def on_device(self, batch: Row) -> Row:
        """``batch`` where the model is, with the types that transformers' own Trainer gives a step's. The
        host's may know its own batches alone.
        """
        moved: Row = _on_device(self.trainer, batch)
        return moved

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: all but the live model and its trainer."""
        # A model in whatever attribute: gigabytes, and on a device that the process does not have.
        live = {name for name, value in vars(self).items() if hasattr(value, "named_parameters")}
        return {name: value for name, value in vars(self).items() if name != "trainer" and name not in live}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In that process; what a host has left out there it finds again here."""
        vars(self).update(state)

    def __reduce__(self) -> tuple[Callable[..., Host], tuple[list[str], bytes]]:
        """In two layers: the inner one, which names the host's own modules, is read once the shims and plugin
        files are there.

        Raises:
            UserError: something of the host cannot be pickled.
        """
        try:
            # Bytes within the pickle: its modules are not looked for before `_unpacked` has made them known.
            packed = pickle.dumps((type(self), self.__getstate__()))
        except (pickle.PicklingError, TypeError, AttributeError) as error:  # what it holds is foreign
            why = " ".join(str(error).split())
            raise UserError(
                f"{type(self).__name__} cannot go to data loader workers that do not fork ({why}): take "
                "dataloader_num_workers 0"
            ) from None
        return _unpacked, (loaded_files(), packed)


def _unpacked(plugin_files: list[str], packed: bytes) -> Host:
    from spr_plugin.hooks import shims

    shims.install()
    for path in plugin_files:
        load_file(path)
    kind, state = pickle.loads(packed)
    # Without __init__, which asks for a trainer.
    host: Host = object.__new__(kind)
    host.__setstate__(state)
    return host


def positions_of(mask: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The positions ``(B, t)`` of the last t tokens of rows with this mask ``(B, T)``."""
    # How many valid tokens there are up to each, less one; padding before them all stays at 0.
    return (mask.cumsum(1)[:, -tokens.shape[1] :] - 1).clamp(min=0)


def _moved(data: Any, device: Any, dtype: Any) -> Any:
    if isinstance(data, Mapping):
        return {name: _moved(value, device, dtype) for name, value in data.items()}
    if isinstance(data, (tuple, list)):
        return type(data)(_moved(value, device, dtype) for value in data)
    # Numbers, texts and None go along as they are.
    if not hasattr(data, "is_floating_point"):
        return data
    return data.to(device, dtype) if data.is_floating_point() else data.to(device)


def _on_device(trainer: Any, data: Any) -> Any:
    """``Trainer._prepare_inputs``, whatever the trainer's class makes of it."""
    from transformers import Trainer

    if isinstance(data, Mapping):
        kind: Any = type(data)
        return kind({name: _on_device(trainer, value) for name, value in data.items()})
    if isinstance(data, (tuple, list)):
        return type(data)(_on_device(trainer, value) for value in data)
    return Trainer._prepare_input(trainer, data)
