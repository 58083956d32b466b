"""``spr demo | report``."""

import sys

import click

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
def report(directory):
    """Write report.html of a run; DIRECTORY is OUTPUT_DIR/spr."""
    from spr_plugin.report import write_report

    print(write_report(directory))


def main():
    """Entry point: a user's mistake is one line and exit code 2."""
    try:
        commands()
    except UserError as error:
        print(f"spr: error: {error}", file=sys.stderr)
        sys.exit(2)
