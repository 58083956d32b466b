"""Every task and group of ours in one table, and the YAML files that lmms-eval finds them by.

    python -m spr_plugin.eval_tasks.catalogue      # writes eval_tasks/tasks/ anew; a test compares

A task is a split of a benchmark under a protocol, which is a module: :mod:`rec`, :mod:`phrases`,
:mod:`classification`, :mod:`captions`, :mod:`description`, :mod:`short_answers` or :mod:`by_recipe`. A
benchmark of a known protocol is one more line here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spr_plugin.eval_tasks import metrics

FOLDER = Path(__file__).with_name("tasks")
PACKAGE = "!function spr_plugin.eval_tasks."


@dataclass(frozen=True)
class Hub:
    """A published split on the hub: the first `rows` rows of a data set's split, which hold exactly as many
    expressions as published.
    """

    name: str
    split: str
    rows: int


@dataclass(frozen=True)
class Split:
    """One task.

    Attributes:
        task: its name in lmms-eval.
        protocol: the module of this package that asks and scores.
        folder, split: SPR_DATA_ROOT/folder/split.parquet or .jsonl (COCO .json for descriptions); "a+b" is
            two splits in one.
        published: documents of the published split, where it was published.
        options: columns that every document gets; what the protocol's variants differ in.
        prompt: asked in place of the family's own words.
        title: what lmms-eval's table calls it, where the name does not say which protocol it is.
    """

    task: str
    protocol: str
    folder: str
    split: str
    published: int | None = None
    hub: Hub | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""
    title: str | None = None

    @property
    def key(self) -> str:
        """`task` as a name that the datasets library allows for a split."""
        return self.task.replace("+", "plus")


@dataclass(frozen=True)
class Protocol:
    """What all tasks of one protocol share: metrics → whether higher is better, answer length, aggregate of
    the details.
    """

    metrics: Mapping[str, bool | None]
    max_new_tokens: int
    details: str = "metrics.ratio_details"
    module: str | None = None  # that asks and scores, where it is not called as the protocol is
    doc_to_visual: str = "data.doc_to_visual"


def _rec(name: str, hub: str, splits: Mapping[str, tuple[int, int]]) -> list[Split]:
    """RefCOCO-like splits: name → (rows on the hub, expressions)."""
    return [
        Split(
            f"spr_{name}_{split}",
            "rec",
            name,
            split,
            expressions,
            Hub(f"lmms-lab-encoder/{hub}", split, rows),
        )
        for split, (rows, expressions) in splits.items()
    ]


SPLITS = [
    *_rec("refcoco", "RefCOCO", {"val": (3811, 10834), "testA": (1975, 5657), "testB": (1810, 5095)}),
    *_rec("refcoco+", "RefCOCOplus", {"val": (3805, 10758), "testA": (1975, 5726), "testB": (1798, 4889)}),
    *_rec("refcocog", "RefCOCOg", {"val": (2573, 4896), "test": (5023, 9602)}),
    Split("spr_flickr30k_val", "phrases", "flickr30k", "val"),
    Split("spr_flickr30k_test", "phrases", "flickr30k", "test"),
    Split("spr_lvis_box", "classification", "lvis", "val", options={"location": "box"}),
    Split("spr_lvis_point", "classification", "lvis", "val", options={"location": "point"}),
    Split(
        "spr_region_caption_refcocog",
        "captions",
        "refcocog_refs",
        "val",
        2573,
        title="spr_region_caption_refcocog (refer)",
    ),
    Split("spr_region_caption_vg", "captions", "vg", "test", title="spr_region_caption_vg (GRiT)"),
    Split("spr_grounded_description_val", "description", "grounded_description", "val"),
    Split("spr_tiny_world_rec", "rec", "refcoco", "val+testA+testB"),
    Split("spr_tiny_world_description", "description", ".", "val"),
    # its model was taught no question about several phrases: they are looked up in a description of the whole
    # picture
    Split(
        "spr_tiny_world_phrases",
        "phrases",
        "phrases",
        "val",
        prompt="Describe the objects in the image with their bounding boxes.",
    ),
    Split("spr_tiny_world_presence", "short_answers", "presence", "val"),
    Split("spr_tiny_world_color", "short_answers", "color", "val"),
    *(
        Split(task, protocol, recipe, "val", options={"recipe": recipe})
        for task, protocol, recipe in (
            ("spr_spatial_ssrl", "right_or_wrong", "spatial_ssrl"),
            ("spr_spatial_thinker", "scene_graph", "spatial_thinker"),
            ("spr_viewpoint", "right_or_wrong", "actial"),
        )
    ),
]
CATALOGUE = {split.key: split for split in SPLITS}

PROTOCOLS = {
    "rec": Protocol(
        {**metrics.BOX_METRICS, **dict.fromkeys(metrics.FERRET_ACCURACIES, True)}, 128, "metrics.box_details"
    ),
    "phrases": Protocol(
        {
            **metrics.BOX_METRICS,
            **dict.fromkeys(
                (
                    *(f"first_{a}" for a in metrics.ACCURACIES),
                    *(f"any_{a}" for a in metrics.ACCURACIES),
                    "ferret_R@1",
                ),
                True,
            ),
        },
        512,
        "metrics.box_details",
    ),
    "classification": Protocol({"accuracy": True, "strict_accuracy": True, "ferret_accuracy": True}, 64),
    "captions": Protocol(
        dict.fromkeys(("CIDEr", "BLEU-1", "BLEU-4", "ROUGE-L", "METEOR"), True),
        64,
        "captions.caption_details",
    ),
    "description": Protocol(
        {
            "precision": True,
            "recall": True,
            "mIoU": True,
            "phrase_precision": True,
            "phrase_recall": True,
            "parse_failure": False,
        },
        512,
    ),
    "short_answers": Protocol({"accuracy": True, "false_yes": False}, 16),
    **{
        name: Protocol(
            dict.fromkeys(figures, True), length, module="by_recipe", doc_to_visual="by_recipe.doc_to_visual"
        )
        for name, figures, length in (
            ("right_or_wrong", ("exact", "format", "reward"), 512),
            ("scene_graph", ("answer", "format", "scene", "reward"), 1024),
        )
    },
}

BY_SAMPLE = {"weight_by_size": True}
PLAIN_MEAN = {"weight_by_size": False}
REC_GROUPS = ("spr_refcoco", "spr_refcoco+", "spr_refcocog")
# group → (members, how its figures come from the members', or None for no figures)
GROUPS = {
    **{
        group: ([split.task for split in SPLITS if split.task.rsplit("_", 1)[0] == group], BY_SAMPLE)
        for group in REC_GROUPS
    },
    "spr_rec": ([*REC_GROUPS], PLAIN_MEAN),  # the paper's summary figure: the plain mean of the eight splits
    "spr_flickr30k": (["spr_flickr30k_val", "spr_flickr30k_test"], None),
    "spr_lvis": (["spr_lvis_box", "spr_lvis_point"], None),
    "spr_region_caption": (["spr_region_caption_refcocog", "spr_region_caption_vg"], None),
    "spr_grounded_description": (["spr_grounded_description_val"], None),
    "spr_tiny_world": ([split.task for split in SPLITS if split.task.startswith("spr_tiny_world_")], None),
    "spr_general": (["gqa", "textvqa_val", "pope"], None),  # lmms-eval's own; regressions show there
    "spr_spatial": (
        [
            *("cv_bench", "3dsrbench", "spatial457", "mmsi_bench", "mindcube_tiny", "viewspatial"),
            *("blink_multi_view_reasoning", "blink_relative_depth", "blink_spatial_relation"),
        ],
        None,
    ),
    "spr_spatial_video": (["vsibench"], None),  # apart: models that know pictures alone refuse it
    "spr": (["spr_rec", "spr_flickr30k", "spr_lvis", "spr_region_caption", "spr_grounded_description"], None),
}


FOREIGN = ("spr_general", "spr_spatial", "spr_spatial_video")  # groups whose members are lmms-eval's own


def module_of(protocol: str) -> str:
    """The module of a protocol, by its whole name."""
    return f"spr_plugin.eval_tasks.{PROTOCOLS[protocol].module or protocol}"


def splits_of(names: Iterable[str]) -> list[Split]:
    """The tasks of ours among these names of tasks and groups, each once; other names are passed over."""
    by_task, chosen = {split.task: split for split in SPLITS}, {}
    for name in names:
        members = splits_of(GROUPS[name][0]) if name in GROUPS else filter(None, [by_task.get(name)])
        chosen |= {split.task: split for split in members}
    return list(chosen.values())


# --- YAML


def files() -> dict[str, str]:
    """Name → content of every file under ``tasks/``."""
    made = {f"_{name}_yaml": _protocol_yaml(name, protocol) for name, protocol in PROTOCOLS.items()}
    made |= {f"{split.task}.yaml": _task_yaml(split) for split in SPLITS}
    made |= {f"{group}.yaml": _group_yaml(group, members, how) for group, (members, how) in GROUPS.items()}
    return made


def _protocol_yaml(name: str, protocol: Protocol) -> str:
    module = f"{PACKAGE}{protocol.module or name}"
    lines = [
        "dataset_path: json",
        "output_type: generate_until",
        f"process_docs: {PACKAGE}data.load_documents",
    ]
    lines += [
        f"doc_to_visual: {PACKAGE}{protocol.doc_to_visual}",
        *(f"{f}: {module}.{f}" for f in ("doc_to_text", "doc_to_target", "process_results")),
    ]
    lines += ["metric_list:"]
    for metric, better in protocol.metrics.items():
        aggregate = f"captions.{metric.lower().replace('-', '_')}" if name == "captions" else "metrics.mean"
        lines += _metric(metric, aggregate, better)
    lines += _metric(metrics.DETAILS, protocol.details, None)
    if protocol.module == "by_recipe":
        # lmms-eval's command cuts thoughts out of answers before they are scored: here they are the form
        lines.append("reasoning_tags: none")
    # an empty prompt is that of the model's family (spr_plugin.eval_tasks.questions)
    lines += [
        "score_key: score",
        "cluster_key: image",
        "lmms_eval_specific_kwargs:",
        "  default:",
        '    prompt: ""',
        "metadata:",
        "  version: 1.0",
    ]
    return "\n".join(lines) + "\n"


def _metric(name: str, aggregate: str, better: bool | None) -> list[str]:
    return [
        f"  - metric: {name}",
        f"    aggregation: {PACKAGE}{aggregate}",
        f"    higher_is_better: {'null' if better is None else str(better).lower()}",
    ]


def _task_yaml(split: Split) -> str:
    # lmms-eval batches requests of equal settings, and its LLaVA takes all pictures of a batch from the task
    # of the first: a stop string that no other task has keeps the tasks of one run apart.
    prompt = f'lmms_eval_specific_kwargs:\n  default:\n    prompt: "{split.prompt}"\n' if split.prompt else ""
    return f"""\
task: {split.task}
{f"task_alias: '{split.title}'" if split.title else f"task_alias: {split.task}"}
include: _{split.protocol}_yaml
test_split: {split.key}
dataset_kwargs:
  data_files:
    {split.key}: one.json
generation_kwargs:
  max_new_tokens: {PROTOCOLS[split.protocol].max_new_tokens}
  temperature: 0
  do_sample: false
  until: ["<end of {split.task}>"]
{prompt}"""


def _group_yaml(group: str, members: list[str], how: Mapping | None) -> str:
    lines = [f"group: {group}", "task:", *(f"  - {member}" for member in members)]
    if how:
        lines += ["aggregate_metric_list:"]
        for metric in metrics.BOX_METRICS:
            lines += [
                f"  - metric: {metric}",
                "    aggregation: mean",
                f"    weight_by_size: {str(how['weight_by_size']).lower()}",
            ]
        if how["weight_by_size"]:
            lines += [
                f"  - metric: {metrics.DETAILS}",
                f"    aggregation: {PACKAGE}metrics.pooled_box_details",
            ]
    return "\n".join([*lines, "metadata:", "  version: 1.0"]) + "\n"


def write(folder: Path = FOLDER) -> None:
    """Write all files, and remove what no table row stands for any more."""
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    # lmms-eval cannot take a path from the environment: data.load_documents puts the real documents in this
    # record's place
    for name, content in {**files(), "one.json": '{"documents": "come from load_documents"}\n'}.items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write()
