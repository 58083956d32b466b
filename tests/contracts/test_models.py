"""A plugin's repair, checked when it is found."""

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.contracts.models import CheckedRepair
from spr_plugin.errors import UserError


def without(text, truth, box_format, width, height, parsed):
    return text, 1, 0


def with_names(text, truth, box_format, width, height, parsed, agree=None):
    return text, 1, 0


def with_any(text, truth, box_format, width, height, parsed, **names):
    return text, 1, 0


def checked(repair, match):
    return CheckedRepair("lab.py", "spr_repair", repair, {"config": SPRConfig(spr=True, spr_match=match)})


def test_a_repair_that_takes_no_names_is_refused_where_names_match():
    with pytest.raises(UserError, match=r"lab.py: spr_repair takes no agree=.*run with --spr_match iou"):
        checked(without, "name")


@pytest.mark.parametrize(
    ("repair", "match"), [(without, "iou"), (with_names, "name"), (with_any, "name"), (with_names, "iou")]
)
def test_any_other_is_taken(repair, match):
    checked(repair, match)
