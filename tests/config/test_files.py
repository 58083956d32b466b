"""A recipe's own section, and what binds a run."""

import pytest

from spr_plugin.config import SPRConfig, shaping
from spr_plugin.config.files import PRESETS
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
    assert shaping(config)["queries"]["spr_recipe_config"] == {"names": {"together": 3}}


def test_a_setting_that_takes_several_may_be_given_as_one(tmp_path):
    config = SPRConfig(spr=True, spr_recipe_config=recipe_file(tmp_path, "spr: {pairing: repaired}"))
    assert config.spr_pairing == ["repaired"]
    assert SPRConfig(spr=True, spr_recipe="names").spr_recipe == ["names"]


# --- several recipes


def test_each_recipe_has_its_own_section_and_one_may_have_none(tmp_path):
    file = recipe_file(tmp_path, "spr: {lambda: 0.3}\nnames: {together: 3}\nthird: {a: 1}")
    both = SPRConfig(spr=True, spr_recipe=["spr", "names"], spr_recipe_config=file)
    assert both.spr_lambda == 0.3
    assert shaping(both)["queries"]["spr_recipe_config"] == {"names": {"together": 3}}
    without = SPRConfig(spr=True, spr_recipe=["spr", "other"], spr_recipe_config=file)
    assert shaping(without)["queries"]["spr_recipe_config"] == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("third: {a: 1}", "has no section spr"),
        ("spr: {}\nname: {together: 3}", "has no section names"),
        ("spr: {}\nnames: 3", "has no section names"),
        ("names: {}\nspr: {lamda: 0.3}", "spr: lamda is no setting"),
    ],
)
def test_a_section_that_is_none_of_several_recipes_is_one_line(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        SPRConfig(spr=True, spr_recipe=["spr", "names"], spr_recipe_config=recipe_file(tmp_path, text))


# --- what is given, files, presets


def test_what_is_given_stands_though_it_is_the_default(tmp_path):
    """A flag's default may be said against a file or a preset that says otherwise."""
    paper = SPRConfig(spr=True, spr_preset="paper", spr_greedy=True, spr_repair="item")
    assert paper.spr_greedy and paper.spr_repair == "item" and not paper.spr_add_missed
    (tmp_path / "dpo.yaml").write_text("beta: 0.1\nlearning_rate: 1.0e-6\n")
    own = recipe_file(tmp_path, "spr: {lambda: 0.3, match: name}\n")
    plain = SPRConfig(spr=True)
    given = {"spr_beta": plain.spr_beta, "spr_lambda": plain.spr_lambda}
    config = SPRConfig(
        spr=True,
        spr_dpo_config=str(tmp_path / "dpo.yaml"),
        spr_recipe_config=own,
        spr_preset="author",
        **given,
    )
    assert {name: getattr(config, name) for name in given} == given
    assert config.spr_match == "name"
    # A file stands over the preset.
    assert config.spr_learning_rate == 1e-6 != SPRConfig(spr=True, spr_preset="author").spr_learning_rate


def test_weights_go_with_the_losses_that_they_stand_beside(tmp_path):
    (tmp_path / "dpo.yaml").write_text("loss_type: [sigmoid]\n")
    file = str(tmp_path / "dpo.yaml")
    assert SPRConfig(spr=True, spr_preset="paper", spr_dpo_config=file).losses() == (["sigmoid"], [1.0])
    losses = {"spr_loss_type": ["ipo", "sft"]}
    both = {"spr_dpo_config": file, **losses}
    assert SPRConfig(spr=True, **both).losses() == SPRConfig(spr=True, **losses).losses()
    (tmp_path / "dpo.yaml").write_text("loss_weights: [1, 2]\n")
    assert SPRConfig(spr=True, **both).losses() == (["ipo", "sft"], [1.0, 2.0])


def test_a_preset_sets_what_is_not_given():
    author = SPRConfig(spr=True, spr_preset="author")
    assert (author.spr_beta, author.spr_loss_type, author.spr_lora_r) == (0.1, ["sigmoid"], 128)
    assert author.spr_tune_vision_tower and author.peak_rate(1e-5) == 1e-5
    own = SPRConfig(spr=True, spr_preset="author", spr_beta=0.3, spr_learning_rate=2e-5)
    assert (own.spr_beta, own.spr_lora_r, own.peak_rate(1e-4)) == (0.3, 128, 2e-5)


def test_the_preset_paper_is_the_method_without_what_we_added():
    paper = SPRConfig(spr=True, spr_preset="paper")
    assert (paper.spr_repair, paper.spr_match) == ("coordinates", "iou")
    assert paper.losses() == (["sigmoid", "sft"], [1.0, 1.0])
    assert SPRConfig(spr=True, spr_preset="paper", spr_loss_type=["ipo"]).losses() == (["ipo"], [1.0])
    assert not (paper.spr_greedy or paper.spr_reject_vague or paper.spr_add_missed)
    assert paper.spr_beta == SPRConfig(spr=True).spr_beta


def test_the_preset_default_is_what_no_flag_gives():
    plain = SPRConfig(spr=True)
    assert vars(SPRConfig(spr=True, spr_preset="default")) == vars(plain) | {"spr_preset": "default"}
    assert plain.peak_rate(1e-3) == plain.spr_learning_rate


def test_a_preset_that_is_none_is_one_line():
    with pytest.raises(UserError, match="--spr_preset papre: choose from paper, author, default"):
        SPRConfig(spr=True, spr_preset="papre")


def test_every_value_of_a_preset_says_where_it_is_from():
    files = sorted(PRESETS.glob("*.yaml"))
    assert [file.stem for file in files] == ["author", "default", "paper"]
    for file in files:
        rows = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        assert rows and all("  # " in line for line in rows)
