"""examples/finetune_vlm.py where torchvision is missing, which Qwen's processor wants for videos alone: the
same script, with a processor of pictures."""

import inspect
import runpy
import sys
from pathlib import Path

import transformers.models.qwen2_5_vl as family

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from tests.hosts.make_vlm import pictures_only  # noqa: E402

Bare = pictures_only(family.Qwen2_5_VLProcessor)


def install() -> None:
    """Have the family's processor read and save pictures and text alone."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        given = inspect.signature(family_init).parameters
        more = {"video_processor": None} if "video_processor" in given else {}
        family_init(self, image_processor, tokenizer, chat_template=chat_template, **more, **kwargs)

    family_init = Bare.__init__
    Bare.__init__ = __init__
    family.Qwen2_5_VLProcessor = Bare


if __name__ == "__main__":
    install()
    sys.argv[0] = str(ROOT / "examples" / "finetune_vlm.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
