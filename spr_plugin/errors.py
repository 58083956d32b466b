"""The one exception that means "the user can mend this"."""

from spr_plugin.lines import one_line


class UserError(Exception):
    """A user's mistake.

    The text is one line that names the flag, file or record and says what to do; whatever those names hold,
    it stays one (:func:`spr_plugin.lines.one_line`). Entry points print it as ``spr: error: …`` and exit with
    2; a traceback would hide the line.
    """

    def __init__(self, text: object):
        super().__init__(one_line(text))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"spr: error: {self}"]
