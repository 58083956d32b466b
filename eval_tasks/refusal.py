"""How a task stops a run that cannot succeed."""

from typing import NoReturn

from spr_plugin.lines import one_line, say_error


class Refusal(SystemExit):
    """The run cannot go on, and the user can mend it; the exit status is 2.

    A SystemExit, because lmms-eval turns every Exception while a task loads into five attempts, a traceback
    and exit status 0.
    """

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


def refuse(message: str) -> NoReturn:
    """Print ``spr: error: message`` as one line and raise Refusal."""
    line = one_line(" ".join(message.split()))
    say_error(line)
    raise Refusal(line)
