"""How other trainers want preference pairs with pictures: one pure function a format, from a pair and the
names of its pictures to a row. Each layout is the one that the trainer documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spr_plugin.pairing import PreferencePair

Row = dict[str, Any]  # plain data, in which nothing is null
IMAGE = "<image>"  # stands for a picture in a prompt
NAME = "spr_pairs"  # of the data set, where one is asked for


def trl(pair: PreferencePair, images: Sequence[str]) -> Row:
    """TRL's conversational preference with pictures, as ``datasets`` reads an image folder: the column
    ``images`` comes of the file names.
    """
    return {"images_file_names": list(images), **_conversation(pair)}


def parquet(pair: PreferencePair, images: Sequence[str]) -> Row:
    """The same with the pictures in the row; whoever writes the file replaces their names by their bytes."""
    return {"images": list(images), **_conversation(pair)}


def _conversation(pair: PreferencePair) -> Row:
    return {
        "prompt": [{"role": "user", "content": pair.prompt}],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "score_chosen": pair.chosen_score,
        "score_rejected": pair.rejected_score,
        "id": pair.id,
    }


def llava(pair: PreferencePair, images: Sequence[str]) -> Row:
    """LLaVA-NeXT's ``train_dpo.py``, which puts one placeholder before the prompt itself; its lengths count
    an ``answer`` too.
    """
    texts = {"prompt": pair.prompt, "answer": pair.chosen, "chosen": pair.chosen, "rejected": pair.rejected}
    return {"id": pair.id, "image": images[0], **texts}


def llamafactory(pair: PreferencePair, images: Sequence[str]) -> Row:
    """LLaMA-Factory's sharegpt preference with pictures, a placeholder each."""
    return {
        "conversations": [{"from": "human", "value": IMAGE * len(images) + pair.prompt}],
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
        "images": list(images),
        "id": pair.id,
    }


def ms_swift(pair: PreferencePair, images: Sequence[str]) -> Row:
    """ms-swift's messages with a rejected response, a placeholder a picture."""
    return {
        "messages": [
            {"role": "user", "content": IMAGE * len(images) + pair.prompt},
            {"role": "assistant", "content": pair.chosen},
        ],
        "rejected_response": pair.rejected,
        "images": list(images),
        "id": pair.id,
    }


@dataclass(frozen=True)
class Layout:
    """A trainer's layout.

    Attributes:
        file: that gets the rows; its ending says how.
        row: of a pair and its pictures' names within the folder.
        use: how the trainer is told of it; ``DIR`` is the folder.
        placeholder: whether ``<image>`` in a text stands for a picture.
        most: pictures that a row can show.
        beside: file → what else it holds as JSON.
    """

    file: str
    row: Callable[[PreferencePair, Sequence[str]], Row]
    use: str
    placeholder: bool = False
    most: int | None = None
    beside: dict[str, Row] | None = None

    def refused(self, pair: PreferencePair) -> str | None:
        """Why a pair cannot be put so; None where it can."""
        if self.most is not None and len(pair.pictures) > self.most:
            return "several pictures"
        texts = (pair.prompt, pair.chosen, pair.rejected)
        return f"{IMAGE} in its text" if self.placeholder and any(IMAGE in text for text in texts) else None


COLUMNS = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"}
SHAREGPT = {"file_name": "pairs.json", "ranking": True, "formatting": "sharegpt", "columns": COLUMNS}
LAYOUTS = {
    "trl": Layout("metadata.jsonl", trl, 'load_dataset("DIR", split="train"), or trl dpo --dataset_name DIR'),
    "llava": Layout(
        "pairs.json",
        llava,
        "llava/train/train_dpo.py --data_path DIR/pairs.json --image_folder DIR",
        placeholder=True,
        most=1,
    ),
    "llamafactory": Layout(
        "pairs.json",
        llamafactory,
        f"dataset_dir: DIR, dataset: {NAME}, stage: dpo",
        placeholder=True,
        beside={"dataset_info.json": {NAME: SHAREGPT}},
    ),
    "ms-swift": Layout(
        "pairs.jsonl",
        ms_swift,
        "ROOT_IMAGE_DIR=DIR swift rlhf --rlhf_type dpo --dataset DIR/pairs.jsonl",
        placeholder=True,
    ),
    "parquet": Layout("pairs.parquet", parquet, 'load_dataset("parquet", data_files="DIR/pairs.parquet")'),
}
