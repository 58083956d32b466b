"""A recipe's questions in a file, with their pictures beside it: to measure a model by
(`spr_plugin.eval_tasks`), or to score anybody's answers (``spr score --recipe``).

    FOLDER/images/ID.png    the pictures as a model is shown them; ID-1.png … of a question with several
    FOLDER/SPLIT.jsonl      a line a question:
        {"id", "question", "answer", "pictures": ["images/ID.png"], "kind", "file_name", "truth"}

`pictures` are named as seen from the file's folder, `file_name` is the (first) picture that was asked about:
``--spr_exclude FOLDER/SPLIT.jsonl`` has a run ask about others. Of questions written by hand `kind`,
`file_name` and `truth` may be missing where the recipe needs no more than the answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spr_plugin.data.pictures import BadImage, Picture, header_size, open_image
from spr_plugin.errors import UserError
from spr_plugin.files import disk_errors, draft, write_json_lines
from spr_plugin.loading import read_json_lines
from spr_plugin.recipes.base import MOST_PICTURES, Query, Recipe


def write_pictures(query: Query, folder: Path) -> list[str]:
    """The names of a query's pictures, which are written to a folder that is there."""
    several = len(query.pictures) > 1
    names = [
        f"{query.id}-{number}.png" if several else f"{query.id}.png"
        for number, _ in enumerate(query.pictures, 1)
    ]
    for name, picture in zip(names, query.pictures):
        with disk_errors(folder / name), draft(folder / name) as file:
            open_image(picture.source, picture.id).save(file, "PNG")
    return names


def write_questions(queries: Iterable[Query], file: Path) -> int:
    """Write a file of questions and their pictures; how many."""
    images, rows = file.parent / "images", []
    with disk_errors(images):
        images.mkdir(parents=True, exist_ok=True)
    for query in queries:
        names = write_pictures(query, images)
        row = {
            "id": query.id,
            "question": query.text,
            "answer": query.truth["answer"],
            "pictures": [f"images/{name}" for name in names],
            "kind": query.task,
            "file_name": query.pictures[0].id,
            "truth": query.truth,
        }
        rows.append(row)
    write_json_lines(file, rows)
    return len(rows)


def read_questions(file: str | Path, recipe: Recipe[Any], flag: str = "") -> Iterator[tuple[Query, str]]:
    """The questions of a file, each with the words that name its line. A picture's id is the name of the one
    that was asked about. UserError for a line that is none, whose pictures cannot be used, or whose truth is
    not what the recipe judges by.

    Args:
        flag: that names the file.
    """
    named = f"{flag} {file}".strip()
    for number, row in read_json_lines(file, named):
        where = f"{named}, line {number}"
        query = question_of(row, Path(file).parent, where)
        try:
            recipe.measure([""], [query])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: truth is not what {recipe.name} judges by ({error!r})") from None
        yield query, where


def question_of(row: object, folder: Path, where: str) -> Query:
    """The query of a line, whose pictures lie in `folder`."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a record but {type(row).__name__}")
    texts = {"kind": "question", **row}
    for name in ("id", "question", "answer", "kind"):
        if not isinstance(texts.get(name), str) or not texts[name].strip():
            raise UserError(f"{where}: {name} is no text")
    names = row.get("pictures")
    if not isinstance(names, list) or not 1 <= len(names) <= MOST_PICTURES:
        raise UserError(f"{where}: pictures are a list of one to {MOST_PICTURES} names")
    truth = row.get("truth", {"answer": row["answer"]})
    if not isinstance(truth, dict) or truth.get("answer") != row["answer"]:
        raise UserError(f"{where}: truth is a table with the same answer")
    shown = tuple(_picture(name, folder, row.get("file_name"), where) for name in names)
    return Query(row["id"], shown, row["question"], truth, texts["kind"], 0)


def _picture(name: object, folder: Path, source: object, where: str) -> Picture:
    if not isinstance(name, str) or os.path.isabs(name) or ".." in Path(name).parts:
        raise UserError(f"{where}: picture {name} is no name in the file's folder")
    path = str(folder / name)
    try:
        return Picture(source if isinstance(source, str) else name, path, *header_size(path))
    except BadImage as error:
        raise UserError(f"{where}: picture {name} cannot be used: {error.why}") from None
