"""The words that the code gives its reasons in."""

import re
from pathlib import Path

import spr_plugin

ROOT = Path(spr_plugin.__file__).parent


def words(pattern, *files):
    """What the pattern's groups find in the code of these files and folders."""
    texts = [
        path.read_text()
        for file in files
        for path in ([ROOT / file] if file.endswith(".py") else (ROOT / file).rglob("*.py"))
    ]
    return {word for text in texts for found in re.findall(pattern, text) for word in [found] if word}
