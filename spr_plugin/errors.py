"""The one exception that means "the user can mend this"."""


class UserError(Exception):
    """A user's mistake.

    The text is one line that names the flag, file or record and says what to do. Entry points print it as
    ``spr: error: …`` and exit with 2; a traceback would hide the line.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"spr: error: {self}"]
