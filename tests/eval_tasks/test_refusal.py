"""A run that cannot succeed."""

import pytest

from spr_plugin.eval_tasks.refusal import Refusal, refuse


def test_one_line_and_status_2_that_no_except_exception_catches(capsys):
    with pytest.raises(Refusal) as refused:
        refuse("a name\n  with \x1b[2J in it")
    assert refused.value.code == 2 and not isinstance(refused.value, Exception)
    err = capsys.readouterr().err
    assert err == f"spr: error: {refused.value.message}\n" and err.count("\n") == 1
    assert "a name with" in err and "\x1b" not in err
