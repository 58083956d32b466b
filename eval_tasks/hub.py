"""Documents of data sets on the hub, as their publishers lay them out."""

import datasets
import huggingface_hub

from spr_plugin.data.pictures import BadImage, outside_of, whole_size
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import fields
from spr_plugin.eval_tasks.catalogue import Split

ROOT = "SPR_DATA_ROOT"


def read_hub(split: Split) -> datasets.Dataset:
    """The published split from its hub data set. Needs the network, or the hub's cache."""
    if split.hub is None:
        raise UserError(
            f"{split.task}: set {ROOT} to a folder that holds {split.folder}/{split.split}.parquet; `spr"
            " data` converts the original release"
        )
    hub, where = split.hub, f"hub data set {split.hub.name}, split {split.hub.split}"
    try:
        rows = datasets.load_dataset(hub.name, split=hub.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{where}: {error}; or set {ROOT} to a local folder") from None
    plain = rows.cast_column("image", datasets.Image(decode=False))
    published = published_rows(plain, hub.rows, split.published, where)
    _refuse_outside_cache(published, where)
    return explode(published, where)


def _refuse_outside_cache(rows: datasets.Dataset, name: str) -> None:
    """UserError where a row names a file that was not downloaded: other people's data name none of this
    machine.
    """
    caches = [outside_of(str(folder)) for folder in cache_folders()]
    for picture in rows["image"]:
        path = picture["path"] if picture["bytes"] is None else None
        if path is not None and all(outside(path) for outside in caches):
            raise UserError(
                f"{name}: picture {path} lies outside the hub's cache; set {ROOT} to a local folder"
            )


def cache_folders() -> tuple[str, str, str]:
    """Where the hub's libraries keep what they download."""
    return (
        datasets.config.HF_CACHE_HOME,
        datasets.config.HF_DATASETS_CACHE,
        huggingface_hub.constants.HF_HUB_CACHE,
    )


def published_rows(
    rows: datasets.Dataset, count: int, expressions: int | None, name: str
) -> datasets.Dataset:
    """The published split among a hub data set's rows: its first `count`, which must hold exactly
    `expressions` expressions.

    The hub's RefCOCO val is UNC's split followed by Google's, most of whose pictures are UNC training data.
    """
    published = rows.select(range(min(count, len(rows))))
    number = sum(len(answers) for answers in published["answer"])
    if (len(published), number) != (count, expressions):
        raise UserError(
            f"{name}: the first {count} rows should hold {expressions} expressions, but {len(published)} rows"
            f" hold {number}; the data set has changed, so set {ROOT} to a local folder with the published"
            " split"
        )
    return published


def explode(rows: datasets.Dataset, name: str = "the hub's rows") -> datasets.Dataset:
    """Hub rows ``{question_id, image, answer: [expression …], bbox: xywh px, file_name}`` → one document an
    expression. Raises UserError for a row whose picture or box cannot be used."""
    indices, documents = [], []
    plain = rows.cast_column("image", datasets.Image(decode=False))
    for index, row in enumerate(plain):
        where = f"{name}, question {row['question_id']}"
        try:
            size = width, height = whole_size(row["image"])
            box = fields.box(xywh_to_xyxy(row["bbox"]), size)
        except BadImage as error:
            raise UserError(f"{where}: its picture {row['file_name']} does not open: {error}") from None
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: bbox {row['bbox']!r:.100} {error} (in a picture of {size})") from None
        for number, expression in enumerate(row["answer"]):
            indices.append(index)
            documents.append(
                {
                    "id": f"{row['question_id']}-{number}",
                    "image_id": row["file_name"],
                    "width": width,
                    "height": height,
                    "expression": expression,
                    "bbox": box,
                }
            )
    pictures = plain.select_columns("image").select(indices)
    return datasets.concatenate_datasets([datasets.Dataset.from_list(documents), pictures], axis=1)


def xywh_to_xyxy(box: list[float]) -> list[float]:
    """Left, top, width, height → left, top, right, bottom; no + 1."""
    x, y, width, height = map(float, box)
    return [x, y, x + width, y + height]
