"""The tiny world's data folder: what models are taught on, and what lmms-eval's tasks ask.

    python examples/tiny_world/scenes.py OUT [--sft N --spr N --val N --test N --seed S --distractors N ...]

painting.py makes the scenes, wording.py what is said of them; numpy and Pillow are all that they need.
"""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the world's modules are scripts, no package
import painting
import wording


def write_sft(out, count, seed, noise, hardness):
    """OUT/sft.json: one conversation a scene, every fifth with a crop of its picture as well."""
    rng, records = np.random.default_rng([31, seed]), []
    for index, scene in enumerate(painting.scenes("sft", count, seed, hardness)):
        picture = Image.fromarray(painting.render(scene)[0])
        name = f"sft/{index:06d}"
        picture.save(out / "images" / f"{name}.png")
        records.append(_record(name, wording.conversation(scene, rng, noise)))
        if index % 5 == 0:
            region, turns = wording.crop_conversation(scene, rng, noise)
            picture.crop(region).save(out / "images" / f"{name}_crop.png")
            records.append(_record(f"{name}_crop", turns))
    (out / "sft.json").write_text(json.dumps(records))


def _record(name, turns):
    return {"id": name.replace("/", "_"), "image": f"{name}.png", "conversations": turns}


def write_coco(out, split, count, seed, name=None, noise=0.0, hardness=painting.Hardness()):
    """OUT/<name, or split>.json in COCO's format, boxes with `noise`; file names relative to OUT/images."""
    rng, images, annotations = np.random.default_rng([43, seed]), [], []
    for image_id, scene in enumerate(painting.scenes(split, count, seed, hardness), 1):
        file = f"{split}/{image_id - 1:06d}.png"
        Image.fromarray(painting.render(scene)[0]).save(out / "images" / file)
        images.append({"id": image_id, "file_name": file, "width": painting.SIZE, "height": painting.SIZE})
        for thing in scene.things:
            x1, y1, x2, y2 = (round(float(v), 2) for v in wording.coarse(thing.box, noise, rng))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": painting.CATEGORIES.index(thing.name) + 1,
                    "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                    "area": round(painting.area((x1, y1, x2, y2)), 2),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(painting.CATEGORIES, 1)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (out / f"{name or split}.json").write_text(json.dumps(data))


def asked_expressions(scene, rng, most=7):
    """[(expression, index)]: up to `most` about one scene, as many as RefCOCO asks on average.

    As there, objects have others of their kind around them: those that only a word tells apart come first.
    """
    found = wording.expressions(scene.things)
    shuffled = [found[i] for i in rng.permutation(len(found))]
    return sorted(shuffled, key=lambda e: not wording.is_qualified(e[0]))[:most]


def phrase_fields(scene, id):
    """All names that mean one object, with its box."""
    phrases = [
        {
            "id": f"{id}-{index}",
            "phrase": wording.with_article(name),
            "boxes": [list(scene.things[index].box)],
        }
        for name, index in wording.expressions(scene.things)
        if not wording.is_qualified(name)
    ]
    return {
        "caption": wording.enumeration([phrase["phrase"] for phrase in phrases]) + ".",
        "phrases": phrases,
    }


def asked_in_a_word(scene, ask, rng, count):
    """Up to `count` different (question, answer) of one kind."""
    return list(dict.fromkeys(ask(scene, rng, 0) for _ in range(count)))


def task_rows(scene, index, rng, other):
    """Task → rows about one scene, without the fields that all of them share."""
    rec = [
        {"id": f"{index}-{number}", "expression": expression, "bbox": list(scene.things[meant].box)}
        for number, (expression, meant) in enumerate(asked_expressions(scene, rng))
    ]
    rows = {"refcoco": rec}
    if index % 2 == 0 and (asked := phrase_fields(scene, index))["phrases"]:
        rows["phrases"] = [{"id": str(index), **asked}]
    for kind, ask, count in (("presence", wording.ask_presence, 4), ("color", wording.ask_color, 2)):
        asked = asked_in_a_word(scene, ask, other, count)
        rows[kind] = [
            {"id": f"{index}-{number}", "question": question, "answer": answer}
            for number, (question, answer) in enumerate(asked)
            if kind == "presence" or wording.asks_color(question)
        ]
    return rows


def write_tasks(out, split, count, seed, hardness=painting.Hardness()):
    """What lmms-eval's tiny-world tasks ask about a split's scenes.

    OUT/refcoco/{val,testA,testB}.jsonl: up to seven expressions a scene, scenes 3 : 1 : 1;
    OUT/phrases/val.jsonl: every second scene; OUT/{presence,color}/val.jsonl: up to four and two questions
    about a scene, answered in a word.
    """
    rng, other = np.random.default_rng([37, seed]), np.random.default_rng([41, seed])
    bounds = {"val": count * 3 // 5, "testA": count * 4 // 5, "testB": count}
    rows = {f"refcoco/{name}": [] for name in bounds}
    rows |= {f"{name}/val": [] for name in ("phrases", "presence", "color")}
    for index, scene in enumerate(painting.scenes(split, count, seed, hardness)):
        name = f"images/{split}/{index:06d}.png"
        Image.fromarray(painting.render(scene)[0]).save(out / name)
        part = next(part for part, bound in bounds.items() if index < bound)
        for kind, lines in task_rows(scene, index, rng, other).items():
            file = f"refcoco/{part}" if kind == "refcoco" else f"{kind}/val"
            rows[file] += [
                {"image": name, "width": painting.SIZE, "height": painting.SIZE, **line} for line in lines
            ]
    for name, lines in rows.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_evaluation(out, split, count, described, seed):
    """All that the tasks of `spr_tiny_world` ask about scenes of one split; `described` of them by region, as
    OUT/val.json.
    """
    out = Path(out)
    (out / "images" / split).mkdir(parents=True, exist_ok=True)
    write_tasks(out, split, count, seed)
    write_coco(out, split, described, seed, "val")


def write_geometry(out, split, count, seed, hardness=painting.Hardness()):
    """OUT/depth/SPLIT/*.png, 16 bits, and OUT/graphs/SPLIT.json, picture → graph, of a split's pictures."""
    (out / "depth" / split).mkdir(parents=True, exist_ok=True)
    (out / "graphs").mkdir(exist_ok=True)
    graphs = {}
    for index, scene in enumerate(painting.scenes(split, count, seed, hardness)):
        Image.fromarray(painting.depth_map(scene)).save(out / "depth" / split / f"{index:06d}.png")
        graphs[f"{split}/{index:06d}.png"] = painting.graph(scene)
    (out / "graphs" / f"{split}.json").write_text(json.dumps(graphs))


def write_world(
    out,
    sft=1000,
    spr=800,
    val=100,
    test=500,
    seed=0,
    noise=wording.NOISE,
    spr_noise=0.0,
    geometry=False,
    **hardness,
):
    """Writes the whole data folder; the counts are numbers of scenes, `hardness` are fields of `Hardness`;
    `geometry` adds exact depth and scene graphs of the scenes for SPR and of the asked ones.
    """
    out, hardness = Path(out), painting.Hardness(**hardness)
    for folder in ("images/sft", "images/spr", "images/val", "images/test"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_sft(out, sft, seed, noise, hardness)
    write_coco(out, "spr", spr, seed, noise=spr_noise, hardness=hardness)
    write_coco(out, "val", val, seed, hardness=hardness)
    write_tasks(out, "test", test, seed, hardness)
    for split, count in (("spr", spr), ("test", test)) if geometry else ():
        write_geometry(out, split, count, seed, hardness)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--sft", type=int, default=1000, help="scenes with conversations")
    parser.add_argument("--spr", type=int, default=800, help="scenes with COCO boxes")
    parser.add_argument("--val", type=int, default=100, help="more scenes with COCO boxes")
    parser.add_argument(
        "--test",
        type=int,
        default=500,
        help="held-out scenes, up to seven expressions each, and other questions",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=wording.NOISE, help="of a side, on sft boxes")
    parser.add_argument("--spr_noise", type=float, default=0.0, help="the same on spr.json's boxes")
    parser.add_argument("--geometry", action="store_true", help="also exact depth and scene graphs")
    for one in fields(painting.Hardness):
        parser.add_argument(
            f"--{one.name}", type=type(one.default), default=one.default, help=one.metadata["help"]
        )
    wanted = vars(parser.parse_args())
    try:
        painting.Hardness(**{one.name: wanted[one.name] for one in fields(painting.Hardness)})
    except ValueError as error:
        parser.error(str(error))
    write_world(**wanted)


if __name__ == "__main__":
    main()
