"""One check, for a terminal and for JSON."""

from spr_plugin.errors import UserError
from spr_plugin.tools.checks import Check, as_lines, as_plain, checked


def test_lines_for_a_terminal():
    def broken():
        raise RuntimeError("no kernel image\nis available")

    checks = [Check("torch", True, "2.13"), checked("GPU", "mend the driver", broken)]
    assert list(as_lines(checks)) == [
        "ok    torch: 2.13",
        "FAIL  GPU: RuntimeError: no kernel image",
        "      do: mend the driver",
    ]


def test_a_user_s_mistake_is_told_as_it_is():
    def wrong():
        raise UserError("--spr_clip: no such folder")

    def silent():
        raise KeyError

    assert checked("settings", "change it", wrong) == Check(
        "settings", False, "--spr_clip: no such folder", "change it"
    )
    assert checked("host", "write one", silent).detail == "KeyError: "
    assert checked("host", "write one", lambda: "LLaVA") == Check("host", True, "LLaVA", "")


def test_a_detail_of_several_lines_is_one():
    lines = as_lines([Check("host", False, "one\ntwo", "mend\tit")])
    assert all(len(line.splitlines()) == 1 for line in lines)


def test_checks_for_json():
    check = {"name": "GPU", "ok": False, "detail": "none", "fix": "mend"}
    assert as_plain([Check("GPU", False, "none", "mend")]) == {"checks": [check]}
