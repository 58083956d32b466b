"""`spr sample` in this process."""

from pathlib import Path

from spr_plugin.cli import commands
from spr_plugin.runs.log import Log

REGIONS = 5
ASKED = REGIONS * 3 * 2
MANY = ("--spr_samples", "8")


def sample(world, out, url, *flags):
    """``spr sample`` in this process."""
    commands([*words_of(world, out, url), *flags], standalone_mode=False)
    return Log(out / "candidates").read()


def words_of(world, out, url) -> list[str]:
    return f"""sample --out {out} --spr_annotations {world}/spr.json --spr_image_folder {world}/images --spr_box_format llava
        --spr_regions {REGIONS} --spr_sampler_url {url}""".split()  # noqa: E501


def written(folder) -> str:
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return " ".join(path.read_text(errors="replace") for path in files)
