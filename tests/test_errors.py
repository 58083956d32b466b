"""A user's mistake is one line, in a notebook too."""

import pytest

from spr_plugin.errors import UserError


@pytest.mark.parametrize("given", ["a\nb", 7, ValueError("a\rb"), None])
def test_its_text_is_one_line_whatever_is_given(given):
    error = UserError(given)
    assert len(str(error).splitlines()) == 1
    assert error._render_traceback_() == [f"spr: error: {error}"]
