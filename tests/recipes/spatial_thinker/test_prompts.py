"""In which pixels an answer speaks, by family; how a question is put."""

import numpy as np
import pytest

from spr_plugin.formats import box_format
from spr_plugin.formats.listed import resized
from spr_plugin.recipes.spatial_thinker.prompts import option, prompt, seen, with_options


def test_a_small_picture_is_enlarged_with_its_pixels():
    """Under 512² Qwen2.5-VL's processor, told to, enlarges: the prompt says so, and boxes follow."""
    form = box_format("qwen2.5-vl", "262144-4194304")
    view = seen(form, 500, 375)
    assert (view.width, view.height) == resized(500, 375, 28, 262144, 4194304) and view.width > 560
    assert view.pixels([[0, 0, view.width, view.height]]).tolist() == pytest.approx(
        np.array([[0, 0, 500, 375]])
    )
    (half,) = view.steps([[0, 0, 250, 375]])
    assert half == [0, 0, round(view.width / 2), view.height]
    assert f"Image size: {view.width} x {view.height}\n" in prompt("Where?", view.width, view.height)


@pytest.mark.parametrize(
    ("family", "aspect", "size", "box"),
    [
        ("llava", "pad", (100, 100), [0, 25, 100, 75]),  # the picture lies in a square
        ("llava", "square", (100, 50), [0, 0, 100, 50]),
        ("qwen3-vl", None, (1000, 1000), [0, 0, 1000, 1000]),
        ("shikra", None, (100, 100), [0, 25, 100, 75]),
    ],
)
def test_each_family_speaks_of_the_picture_that_it_sees(family, aspect, size, box):
    view = seen(box_format(family, aspect), 100, 50)
    assert (view.width, view.height) == size
    assert view.steps([[0, 0, 100, 50]]) == [box]
    assert view.pixels([box]).tolist() == [[0, 0, 100, 50]]


def test_there_and_back_moves_by_half_a_step_at_most():
    rng = np.random.default_rng(0)
    for family, aspect in (("llava", "pad"), ("qwen3-vl", None), ("qwen2.5-vl", "3136-100352")):
        view = seen(box_format(family, aspect), 321, 123)
        low = rng.uniform(0, 100, (50, 2))
        boxes = np.hstack([low, low + 20])
        back = view.pixels(view.steps(boxes))
        assert (abs(back - boxes) <= np.array(view.space.scale * 2) / 2 + 1e-9).all()


def test_a_written_box_is_never_empty_and_never_off_the_picture():
    view = seen(box_format("llava", "pad"), 96, 96)
    assert view.steps([[10.2, 10.2, 10.4, 10.4], [95.8, 95.8, 96, 96], [-5, 0, 120, 50]]) == [
        [10, 10, 11, 11],
        [95, 95, 96, 96],
        [0, 0, 96, 50],
    ]


def test_options_have_letters():
    assert with_options("Which?", ["cat", "dog"]) == "Which?\nOptions:\n(A) cat\n(B) dog"
    assert option(1, "dog") == "(B) dog"
