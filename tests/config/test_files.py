"""A recipe's own section, and what binds a run."""

import pytest

from spr_plugin.config import SPRConfig, shaping
from spr_plugin.errors import UserError


def test_flags_that_alter_no_record_do_not_bind_a_run():
    bound = {name for flags in shaping(SPRConfig(spr=True)).values() for name in flags}
    assert "spr_beta" in bound and "spr_seed" in bound
    assert not {"spr", "spr_only", "spr_overwrite", "spr_save_base", "spr_rounds"} & bound


def recipe_file(tmp_path, text: str) -> str:
    (tmp_path / "recipe.yaml").write_text(text)
    return str(tmp_path / "recipe.yaml")


def test_the_section_of_spr_sets_its_flags_and_shapes_as_they_do(tmp_path):
    file = recipe_file(
        tmp_path, "spr: {lambda: 0.3, more_than: 2, prompts: [plain], repair: none}\nother: {x: 1}\n"
    )
    config = SPRConfig(spr=True, spr_recipe_config=file)
    assert (config.spr_lambda, config.spr_more_than, config.spr_prompts) == (0.3, 2, ["plain"])
    plain = SPRConfig(spr=True, spr_lambda=0.3, spr_more_than=2, spr_prompts=["plain"], spr_repair="none")
    # The flags count, not the file: the same run by flags goes on with what this one left.
    shaped, alike = shaping(config), shaping(plain)
    assert (
        shaped["queries"].pop("spr_recipe_config") == {} and alike["queries"].pop("spr_recipe_config") == {}
    )
    assert shaped == alike


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spr: {lamda: 0.3}", "recipe.yaml: spr: lamda is no setting"),
        ("spr: {lambda: 3}", "recipe.yaml: spr: lambda 3.*between 0 and 1"),
        ("spr: {more_than: many}", "recipe.yaml: spr: more_than many"),
        ("spr: [1]", "recipe.yaml: has no section spr"),
        ("names: {together: 2}", "recipe.yaml: has no section spr"),
        ("spr: {lambda: 0.3", "recipe.yaml: cannot be read"),
    ],
)
def test_a_wrong_section_is_one_line(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as refused:
        SPRConfig(spr=True, spr_recipe_config=recipe_file(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_another_recipe_s_section_is_its_own(tmp_path):
    file = recipe_file(tmp_path, "names: {together: 3}")
    config = SPRConfig(spr=True, spr_recipe="names", spr_recipe_config=file)
    assert shaping(config)["queries"]["spr_recipe_config"] == {"together": 3}
