"""``spr demo | doctor | status | report | inspect | export | score | sample | compare | data``."""

import contextlib
import dataclasses
import re
import sys
from pathlib import Path

import click

from spr_plugin.config import KINDS, SPRConfig
from spr_plugin.config.queries import MAX_PIXELS
from spr_plugin.errors import UserError
from spr_plugin.lines import say_error
from spr_plugin.settings import default_of
from spr_plugin.tools.layouts import LAYOUTS

FLAG = re.compile(r"--spr_\w+")
RECIPES = ("spatial_ssrl", "spatial_thinker", "actial")  # whose questions `spr data` writes
COLD_STARTS = ("spatial_ssrl", "actial")  # and worked answers, which need no model's boxes
QUESTIONS = 1000
# Flags of a run that `spr score` takes as they are.
METHOD = ("repair", "match", "match_threshold", "count_duplicates", "reject_vague", "min_kept")


@click.group()
@click.version_option(package_name="spr-plugin")
def commands():
    """Spatial Preference Rewarding for the multimodal-LLM trainer you already have."""


@commands.command()
@click.option("--out", default="demo", show_default=True, help="Folder of data, checkpoints and results.")
@click.option("--limit", type=int, help="Evaluate only so many expressions of each split.")
def demo(out, limit):
    """Train, run SPR and evaluate on the embedded tiny world."""
    from spr_plugin.tools.demo import run

    run(out, limit)


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.option("--out", help="Folder for the pictures of a command's boxes; default: a new temporary one.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def doctor(as_json, out, command):
    """Check this environment, or with `-- COMMAND --spr …` what that training would meet; nothing trains."""
    from spr_plugin.tools.doctor import doctor

    sys.exit(doctor(command, out, as_json))


plugin_option = click.option(
    "--spr_plugin",
    multiple=True,
    help="Python file with the run's box format or recipe; none is loaded unless named here.",
)
images_option = click.option("--images", help="Folder of the pictures, where they moved since the run.")


@commands.command()
@click.argument("directory")
@images_option
@plugin_option
@click.option(
    "--results",
    nargs=2,
    metavar="BASE SPR",
    help="Result folders of lmms-eval of both models: their comparison goes along.",
)
def report(directory, images, spr_plugin, results):
    """Write report.html of a run; DIRECTORY is its OUTPUT_DIR."""
    from spr_plugin.report.page import write_report

    print(write_report(directory, spr_plugin, results or (), images))


@commands.command()
@click.argument("directory")
@click.option("--format", type=click.Choice([*LAYOUTS]), required=True, help="The trainer's layout.")
@click.option("--to", required=True, help="A new folder, which gets rows, pictures and a card.")
@click.option("--link", is_flag=True, help="Link to the pictures instead of copying them.")
@click.option("--marks", help="File of pairs to leave out.  [default: DIRECTORY/spr-marks.jsonl]")
@images_option
@plugin_option
def export(directory, format, to, link, marks, images, spr_plugin):
    """Write a run's preference pairs for another trainer; DIRECTORY is its OUTPUT_DIR."""
    from spr_plugin.tools.export import export

    print(export(directory, format, to, spr_plugin, link, marks, images))


@commands.command()
@click.argument("directory")
@click.option("--port", default=8765, show_default=True, help="Of this machine alone; 0: any that is free.")
@images_option
@plugin_option
def inspect(directory, port, images, spr_plugin):
    """Look at a run in the browser, also while it goes on: all queries, answers, pairs and skips; mark bad
    pairs. DIRECTORY is its OUTPUT_DIR."""
    from spr_plugin.tools.inspect.serve import serve

    serve(directory, port, images, spr_plugin)


def _short(flag: str) -> str:
    return flag.replace("--spr_", "--").replace("_", "-")


def method_options(command):
    """The options of METHOD, each with the flag's default and help."""
    known = {f.name: f for f in dataclasses.fields(SPRConfig)}
    for name in reversed(METHOD):
        f, kind = known[f"spr_{name}"], KINDS[f"spr_{name}"]
        about = FLAG.sub(lambda flag: _short(flag[0]), f.metadata["help"])
        asked = {} if kind.type is bool else {"type": kind.type}
        words = _short(f"--{f.name}")
        if kind.type is bool:
            words += words.replace("--", "/--no-", 1)
        option = click.option(words, default=default_of(f), show_default=True, help=f"{about}.", **asked)
        command = option(command)
    return command


@commands.command()
@click.argument("directory")
@click.option("--watch", is_flag=True, help="Again every few seconds until the run ends, or Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on a line.")
def status(directory, watch, as_json):
    """How far a run is, while it runs or after it died; DIRECTORY is its OUTPUT_DIR."""
    from spr_plugin.tools.status import show

    show(directory, watch, as_json)


@commands.command()
@click.option("--recipe", default="spr", show_default=True, help="Whose questions were answered.")
@click.option("--questions", help="Of another recipe than spr: they, as `spr data` writes them.")
@click.option("--recipe-config", help="Of another recipe than spr: YAML file with its section.")
@click.option("--annotations", help="Of spr: COCO JSON with the objects of the pictures.")
@click.option("--images", help="Of spr: folder of the pictures.")
@click.option(
    "--responses",
    required=True,
    help='JSON lines {"id", "image", "region": [x1, y1, x2, y2] in pixels, "text"}; of another recipe than'
    ' spr {"id", "question": its id, "text"}.',
)
@click.option("--box-format", help="How the answers write boxes: llava, ferret, shikra …")
@click.option(
    "--aspect",
    default="pad",
    show_default=True,
    help="How the picture reached the model (LLaVA's image_aspect_ratio).",
)
@click.option("--clip", help="CLIP checkpoint of the semantic score; the scorer spr needs it.")
@click.option("--detector", help="Detector whose boxes join the ground truth.")
@click.option("--scorer", default="spr", show_default=True, help="Scorer of the answers, spr or a plugin's.")
@click.option("--lambda", "lam", default=0.8, show_default=True, help="Weight of the semantic score.")
@click.option("--device", default="cpu", show_default=True, help="Where the scorer's models run.")
@click.option("--plugin", multiple=True, help="Python file with hook implementations.")
@click.option(
    "--out",
    required=True,
    help="Gets each response with its scores and refined text; an interrupted command goes on when repeated.",
)
@method_options
@click.option("--pairs", help="Gets the preference pair of each region.")
@click.option("--allow-outside", is_flag=True, help="Use pictures that lie outside --images.")
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Larger pictures are left out.",
)
def score(
    recipe,
    questions,
    recipe_config,
    annotations,
    images,
    responses,
    box_format,
    aspect,
    clip,
    detector,
    scorer,
    lam,
    device,
    plugin,
    out,
    pairs,
    allow_outside,
    max_pixels,
    **method,
):
    """Score and pair anybody's answers, without a trainer."""
    from spr_plugin import formats
    from spr_plugin.data.pictures import limit_pixels
    from spr_plugin.devices import refuse_no_device
    from spr_plugin.files import content
    from spr_plugin.pairing import find_pairing
    from spr_plugin.plugins import load_file
    from spr_plugin.recipes.find import find_recipe
    from spr_plugin.tools.score_file import Scoring
    from spr_plugin.tools.score_questions import score_questions

    with own_flags():
        limit_pixels(max_pixels)
        refuse_no_device(device)
        for path in plugin:
            load_file(path)
        refuse_missing(recipe, questions, recipe_config, annotations, images, box_format)
        asked = {"clip": clip, "detector": detector, "scorer": scorer, "lambda": lam, **method}
        flags = {**asked, "recipe": [recipe], "recipe_config": recipe_config}
        config = SPRConfig(spr=True, **{f"spr_{name}": value for name, value in flags.items()})
        form = formats.box_format(box_format, aspect) if box_format else None
        if form:
            formats.refuse_unknown_aspect(box_format, aspect, f"--aspect {aspect}")
        if recipe != "spr":
            ready = find_recipe(config, form).on(device)
            score_questions(ready, find_pairing(config), questions, responses, out, pairs)
            return
        files = {Path(path).name: content(path)["hash"] for path in plugin}
        settings = {**asked, "plugin": files, "max-pixels": max_pixels}
        models = [(flag, path) for flag, path in (("--clip", clip), ("--detector", detector)) if path]
        reads = [*models, *(("--plugin", path) for path in plugin)]
        scoring = Scoring(responses, annotations, images, form, out, pairs, allow_outside, settings, reads)
        scoring.run(find_recipe(config, form).on(device), find_pairing(config))


def refuse_missing(recipe, questions, recipe_config, annotations, images, box_format):
    """UserError for what of a recipe's own inputs is not named, or is another recipe's."""
    of_spr = {"--annotations": annotations, "--images": images, "--box-format": box_format}
    if recipe == "spr":
        wanted, strange = of_spr, {"--questions": questions, "--recipe-config": recipe_config}
    else:
        wanted, strange = {"--questions": questions}, {"--annotations": annotations, "--images": images}
    if missing := [flag for flag, value in wanted.items() if not value]:
        raise UserError(f"spr score --recipe {recipe} needs {', '.join(missing)}")
    if given := [flag for flag, value in strange.items() if value]:
        raise UserError(f"spr score --recipe {recipe}: {given[0]} is of another recipe; leave it out")


@contextlib.contextmanager
def own_flags():
    """Inside, an error names `score`'s flags, not those of a training command that mean the same."""
    own = {option for parameter in score.params for option in parameter.opts}
    try:
        yield
    except UserError as error:
        names = {"--spr_image_folder": "--images"}
        text = FLAG.sub(lambda flag: _own(names.get(flag[0], flag[0]), own), str(error))
        raise UserError(text) from error


def _own(flag: str, own: set[str]) -> str:
    short = _short(flag)
    return short if short in own else flag


@commands.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
@click.option("--out", help="Gets regions and candidates; the same command goes on after an interruption.")
@click.option("--aspect", default="pad", help="How pictures reach the model (LLaVA's image_aspect_ratio).")
@click.pass_context
def sample(context, out, aspect):
    """Ask a server for candidates, without a trainer: --out DIR and --spr_… flags."""
    from spr_plugin import formats
    from spr_plugin.command_line import parse
    from spr_plugin.plugins import load_file
    from spr_plugin.sampling.alone import FLAGS, sample_alone

    config = parse(
        [*context.args, "--spr_sampler", "openai"],
        [*FLAGS, "spr_sampler"],
        "spr sample --out DIR [--aspect pad]",
    )
    annotated = config.spr_annotations or "spr" not in config.recipes()
    if not (out and annotated and config.spr_image_folder and config.spr_box_format):
        raise UserError("spr sample needs --out, --spr_annotations, --spr_image_folder and --spr_box_format")
    for path in config.spr_plugin:
        load_file(path)
    form = formats.box_format(config.spr_box_format, aspect)
    formats.refuse_unknown_aspect(config.spr_box_format, aspect, f"--aspect {aspect}")
    print(f"{sample_alone(out, config, form)} candidates in {out}")


@commands.command()
@click.argument("a")
@click.argument("b")
@click.option("--out", help="Folder that gets compare.md, compare.json and compare.html; default: B.")
def compare(a, b, out):
    """Compare two result folders of lmms-eval, sample by sample."""
    from spr_plugin.report.comparison import compare, markdown

    print(markdown(compare(a, b, out)))


@commands.command()
@click.argument("benchmark", type=click.Choice(["refcoco", "flickr30k", "lvis", "vg", *RECIPES]))
@click.option("--from", "source", required=True, help="Folder of the original release, or of pictures.")
@click.option("--to", "target", required=True, help="SPR_DATA_ROOT: gets BENCHMARK/SPLIT.parquet.")
@click.option("--embed", is_flag=True, help="Put the pictures themselves into the files, not their paths.")
@click.option("--allow-outside", is_flag=True, help="Use pictures outside the release's folders of them.")
@click.option(
    "--cold_start",
    type=click.IntRange(1),
    help="Of a recipe: so many worked answers, in LLaVA's JSON, for the host's own training.",
)
@click.option(
    "--questions", type=click.IntRange(1), help="Of a recipe: so many to measure by (default 1000)."
)
@click.option("--spr_annotations", help="Of a recipe: as in training.")
@click.option("--spr_recipe_config", help="Of a recipe: as in training.")
@click.option("--spr_seed", type=click.IntRange(0), default=0, help="Of a recipe: as in training.")
def data(benchmark, source, target, embed, allow_outside, cold_start, questions, **own):
    """Convert a benchmark's original release into what the tasks read, or write a recipe's questions, or its
    cold start."""
    if benchmark not in RECIPES:
        from spr_plugin.eval_tasks.releases import convert

        if cold_start or questions or own["spr_recipe_config"] or own["spr_annotations"]:
            of = f"--questions, --spr_recipe_config and --spr_annotations are of {', '.join(RECIPES)}"
            raise UserError(f"spr data {benchmark}: --cold_start, {of}")
        convert(benchmark, source, target, embed, allow_outside)
        return
    from spr_plugin.tools.cold_start import write_cold_start, write_evaluation

    if embed:
        raise UserError(f"spr data {benchmark}: --embed is of releases; a recipe's pictures are files")
    if cold_start and questions:
        raise UserError(f"spr data {benchmark}: --cold_start and --questions are two commands")
    if cold_start and benchmark not in COLD_STARTS:
        raise UserError(f"spr data {benchmark}: --cold_start is of {' and '.join(COLD_STARTS)}")
    number = cold_start or questions or QUESTIONS
    config = SPRConfig(spr=True, spr_recipe=[benchmark], spr_regions=number, **own)
    write = write_cold_start if cold_start else write_evaluation
    print(write(config, source, target, allow_outside))


def main():
    """Entry point: a user's mistake is one line and exit code 2."""
    try:
        commands()
    except UserError as error:
        say_error(error)
        sys.exit(2)
