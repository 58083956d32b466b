"""A device is tried before anything is loaded for it."""

import pytest

pytest.importorskip("torch")

from spr_plugin.devices import refuse_no_device
from spr_plugin.errors import UserError


@pytest.mark.parametrize("device", ["potato", "meta", "", None, [1]])
def test_what_is_no_device_is_one_line_by_the_name_it_was_given_under(device):
    with pytest.raises(UserError, match="^--device[^\n]+$"):
        refuse_no_device(device)
    with pytest.raises(UserError, match="^device=…: [^\n]+$"):
        refuse_no_device(device, "device=…")


def test_a_device_is_taken():
    refuse_no_device("cpu")
