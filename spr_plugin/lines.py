"""What is said to whoever runs a command: one safe line at a time on stderr. Standard library only.

Names of records, pictures and files come from data that other people wrote. One with a line break could forge
a line of ours, one with a terminal's escape codes hide or recolour what stands there.
"""

import re
import sys

# Controls (line breaks and ESC among them), marks that turn the direction of text, the line and paragraph
# separator, and halves of surrogate pairs, which no stream takes.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: object) -> str:
    """`text` as it may stand in a line: every character that could end the line or steer a terminal escaped.

    >>> one_line("cat\\n\\x1b[31m.png")
    'cat\\\\n\\\\x1b[31m.png'
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def say(text: object) -> None:
    """One line of ours on stderr."""
    print(one_line(f"spr: {text}"), file=sys.stderr, flush=True)


def say_error(error: object) -> None:
    """The line that a command ends with."""
    say(f"error: {error}")
