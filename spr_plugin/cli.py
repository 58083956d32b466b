"""``spr demo | report | score | sample | compare | data``."""

import sys

import click

from spr_plugin.config import MAX_PIXELS
from spr_plugin.errors import UserError


@click.group()
@click.version_option(package_name="spr-plugin")
def commands():
    """Spatial Preference Rewarding for the multimodal-LLM trainer you already have."""


@commands.command()
@click.option("--out", default="demo", show_default=True, help="Folder of data, checkpoints and results.")
@click.option("--limit", type=int, help="Evaluate only so many expressions of each split.")
def demo(out, limit):
    """Train, run SPR and evaluate on the embedded tiny world."""
    from spr_plugin.demo import run

    run(out, limit)


@commands.command()
@click.argument("directory")
@click.option("--spr_plugin", multiple=True, help="Python file with the run's box format; none is loaded unless named here.")
def report(directory, spr_plugin):
    """Write report.html of a run; DIRECTORY is OUTPUT_DIR/spr."""
    from spr_plugin.report import write_report

    print(write_report(directory, spr_plugin))


@commands.command()
@click.option("--annotations", required=True, help="COCO JSON with the objects of the pictures.")
@click.option("--images", required=True, help="Folder of the pictures.")
@click.option("--responses", required=True, help='JSON lines {"id", "image", "region": [x1, y1, x2, y2] in pixels, "text"}.')
@click.option("--box-format", required=True, help="How the answers write boxes: llava, ferret, shikra …")
@click.option("--aspect", default="pad", show_default=True, help="How the picture reached the model (LLaVA's image_aspect_ratio).")
@click.option("--clip", required=True, help="CLIP checkpoint of the semantic score.")
@click.option("--detector", help="Detector whose boxes join the ground truth.")
@click.option("--lambda", "lam", default=0.8, show_default=True, help="Weight of the semantic score.")
@click.option("--device", default="cpu", show_default=True, help="Where CLIP runs.")
@click.option("--plugin", multiple=True, help="Python file with hook implementations.")
@click.option("--out", required=True, help="Gets every response with its scores and refined text.")
@click.option("--pairs", help="Gets the preference pair of each region.")
@click.option("--allow-outside", is_flag=True, help="Use pictures that lie outside --images.")
@click.option("--max-pixels", default=MAX_PIXELS, show_default=True, help="Larger pictures are left out.")
def score(
    annotations, images, responses, box_format, aspect, clip, detector, lam, device, plugin, out, pairs,
    allow_outside, max_pixels,
):  # fmt: skip
    """Score and pair anybody's answers, without a trainer."""
    from spr_plugin import formats
    from spr_plugin.config import SPRConfig
    from spr_plugin.pictures import limit_pixels
    from spr_plugin.plugins import load_file
    from spr_plugin.score_file import score_file
    from spr_plugin.scoring import find_scorer

    limit_pixels(max_pixels)
    for path in plugin:
        load_file(path)
    form = formats.box_format(box_format, aspect)
    config = SPRConfig(spr=True, spr_clip=clip, spr_detector=detector, spr_lambda=lam)
    scorer = find_scorer(config, device, form)
    score_file(responses, annotations, images, form, scorer, out, pairs, allow_outside)


@commands.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--out", help="Gets regions and candidates; the same command goes on after an interruption.")
@click.option("--aspect", default="pad", help="How pictures reach the model (LLaVA's image_aspect_ratio).")
@click.pass_context
def sample(context, out, aspect):
    """Ask a server for candidates, without a trainer: --out DIR and --spr_… flags."""
    from spr_plugin import formats
    from spr_plugin.config import parse
    from spr_plugin.sample_alone import FLAGS, sample_alone

    config = parse([*context.args, "--spr_sampler", "openai"], [*FLAGS, "spr_sampler"], "spr sample --out DIR [--aspect pad]")
    if not (out and config.spr_annotations and config.spr_image_folder and config.spr_box_format):
        raise UserError("spr sample needs --out, --spr_annotations, --spr_image_folder and --spr_box_format")
    print(f"{sample_alone(out, config, formats.box_format(config.spr_box_format, aspect))} candidates in {out}")


@commands.command()
@click.argument("a")
@click.argument("b")
@click.option("--out", help="Folder that gets compare.md, compare.json and compare.html; default: B.")
def compare(a, b, out):
    """Compare two result folders of lmms-eval, sample by sample."""
    from spr_plugin.compare import compare, markdown

    print(markdown(compare(a, b, out)))


@commands.command()
@click.argument("benchmark", type=click.Choice(["refcoco", "flickr30k", "lvis", "vg"]))
@click.option("--from", "source", required=True, help="Folder of the original release.")
@click.option("--to", "target", required=True, help="SPR_DATA_ROOT: gets BENCHMARK/SPLIT.parquet.")
@click.option("--embed", is_flag=True, help="Put the pictures themselves into the files, not their paths.")
@click.option("--allow-outside", is_flag=True, help="Use pictures outside the release's folders of them.")
def data(benchmark, source, target, embed, allow_outside):
    """Convert a benchmark's original release into what the tasks read."""
    from spr_plugin.releases import convert

    convert(benchmark, source, target, embed, allow_outside)


def main():
    """Entry point: a user's mistake is one line and exit code 2."""
    try:
        commands()
    except UserError as error:
        print(f"spr: error: {error}", file=sys.stderr)
        sys.exit(2)
