"""Our flags through every parser: the dataclasses are the host's, what was said is never lost, and mistakes
get one line."""

import dataclasses
import importlib.util
import json
import os
from dataclasses import dataclass, field

import pytest

from spr_plugin import flags
from spr_plugin.config import SPRConfig
from spr_plugin.process import State

pytestmark = pytest.mark.legacy


@dataclass
class ModelArguments:
    name: str = field(default="tiny")


@dataclass
class DataArguments:
    path: str = field(default="data.json")


@pytest.fixture
def hooked(clean_state):
    """A hooked HfArgumentParser."""
    from transformers import HfArgumentParser

    parser = type("Parser", (HfArgumentParser,), {})
    flags.hook_parser(parser)
    return parser


@pytest.fixture
def parser(hooked):
    return hooked((ModelArguments,))


@pytest.fixture
def parse(parser):
    """``parse(*arguments)`` returns what the host gets."""
    return lambda *arguments: parser.parse_args_into_dataclasses(list(arguments))


@pytest.mark.parametrize("argument", ["--spr", "--spr=True", "--spr_beta", "--spr_beta=0.1", "--spr-only"])
def test_asked(argument):
    assert flags.asked(["train.py", argument])


@pytest.mark.parametrize("argument", ["--sprinkle", "spr", "--model", "--spri_x", "-spr"])
def test_not_asked(argument):
    assert not flags.asked(["train.py", argument])


def test_named_knows_every_way_of_writing():
    words = [
        "--spr",
        "--spr_beta=1",
        "--spr-lora-r",
        "--no_spr_keep_best",
        "--no-spr-keep-best",
        "--sprinkle",
        "spr_x",
        "--name",
        "-spr_y",
    ]
    assert flags.named(words) == ["spr", "spr_beta", "spr_lora_r", "spr_keep_best", "spr_keep_best"]


def test_spr_only_implies_spr(parse):
    assert len(parse("--spr_only")) == 1 and State.config.spr


def test_list_flags_take_several_values(parse):
    parse("--spr", "--spr_prompts", "plain", "crop")
    assert State.config.spr_prompts == ["plain", "crop"]


def shows_every_help(parser) -> None:
    """argparse formats a help with ``%`` only when it is shown: a bare one ends ``--help`` in a traceback."""
    formatter = parser._get_formatter()
    told = [action for action in parser._actions if action.help]  # Python 3.10 asks for one
    shown = {name: formatter._expand_help(action) for action in told for name in action.option_strings}
    for flag in dataclasses.fields(SPRConfig):
        assert shown[f"--{flag.name}"].startswith(flag.metadata["help"])


def test_help_shows_every_flag_in_the_hosts_parser(parser, parse, capsys):
    shows_every_help(parser)
    with pytest.raises(SystemExit) as stop:
        parse("--spr", "--help")
    assert stop.value.code == 0 and "after 10 % warm-up" in " ".join(capsys.readouterr().out.split())


def test_help_shows_every_flag_in_trls_parser(clean_state):
    parser = type("Parser", (pytest.importorskip("trl").TrlParser,), {})
    flags.hook_parser(parser)
    shows_every_help(parser((ModelArguments,)))


def test_spr_false_is_off(parse):
    parse("--spr", "False", "--spr_beta", "0.3")
    assert not State.config.spr


def test_an_unknown_flag_of_the_host_is_the_hosts_to_refuse(parse):
    with pytest.raises(ValueError, match="--nonsense"):
        parse("--spr", "--nonsense", "1")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--spr_beta", "0.3"], "--spr_beta does nothing without --spr"),
        (["--spr", "--spr_bata", "1"], "--spr_bata: unknown flag; did you mean spr_beta?"),
        (["--spr", "--spr_beta", "much"], "--spr_beta"),
        (["--spr", "--spr_beta", "-1"], "--spr_beta -1.0: must be greater than 0"),
        (["--spr", "--spr_prompts", "poem"], "--spr_prompts"),
        (["--spr=perhaps"], "argument --spr"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(parse, capsys, arguments, says):
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    error = capsys.readouterr().err
    assert (
        stop.value.code == 2 and error.startswith("spr: error: ") and error.count("\n") == 1 and says in error
    )


# --- several parsers ------------------------------------------------------------------------------


def by_list(parser, folder):
    parser.parse_args_into_dataclasses(["--name", "x"])


def by_rest(parser, folder):
    parser.parse_args_into_dataclasses(["--name", "x", "--other", "1"], return_remaining_strings=True)


def by_dict(parser, folder):
    parser.parse_dict({"name": "x", "other": 1}, allow_extra_keys=True)


def by_json(parser, folder):
    (folder / "a.json").write_text(json.dumps({"name": "x"}))
    parser.parse_json_file(str(folder / "a.json"))


def by_yaml(parser, folder):
    (folder / "a.yaml").write_text("name: x\n")
    parser.parse_yaml_file(str(folder / "a.yaml"))


def by_namespace(parser, folder):
    parser.parse_args(["--name", "x"])


LATER = [by_list, by_rest, by_dict, by_json, by_yaml, by_namespace]


@pytest.mark.parametrize("later", LATER, ids=lambda later: later.__name__)
def test_a_parse_without_our_flags_leaves_what_was_said(hooked, parse, tmp_path, later):
    parse("--spr", "--spr_beta", "0.3")
    later(hooked((ModelArguments,)), tmp_path)
    assert State.config.spr and State.config.spr_beta == 0.3
    assert State.namespace is globals()


@pytest.mark.parametrize("later", LATER, ids=lambda later: later.__name__)
def test_the_command_line_counts_whichever_parser_reads_the_rest(hooked, monkeypatch, tmp_path, later):
    monkeypatch.setattr(
        State, "words", ["--output", "x", "--spr", "--spr_beta", "0.3", "--spr_prompts", "plain", "crop"]
    )
    later(hooked((ModelArguments,)), tmp_path)
    assert State.config.spr and State.config.spr_beta == 0.3 and State.config.spr_prompts == ["plain", "crop"]


def test_remaining_strings_read_by_a_second_parser(hooked):
    (model, rest) = hooked((ModelArguments,)).parse_args_into_dataclasses(
        ["--name", "m", "--spr", "--path", "p"], return_remaining_strings=True
    )
    (data,) = hooked((DataArguments,)).parse_args_into_dataclasses(rest)
    assert (model.name, data.path, State.config.spr) == ("m", "p", True)


def test_a_file_under_the_command_line_under_a_list(hooked, monkeypatch):
    """The more particular is heard: what a file says is a default of the command line, and a list is what the
    script makes of it."""
    monkeypatch.setattr(State, "words", ["--spr", "--spr_beta", "0.3"])
    parser = hooked((ModelArguments,))
    parser.parse_dict({"name": "x", "spr_beta": 0.1, "spr_lora_r": 4})
    assert (State.config.spr, State.config.spr_beta, State.config.spr_lora_r) == (True, 0.3, 4)
    parser.parse_args_into_dataclasses(["--spr_beta", "0.2"])
    assert (State.config.spr_beta, State.config.spr_lora_r) == (0.2, 4), (
        "what the file said else still counts"
    )
    parser.parse_args_into_dataclasses(["--spr_regions", "7"])
    assert (State.config.spr_beta, State.config.spr_regions) == (0.2, 7)


@pytest.mark.parametrize("how", ["list", "words"])
def test_spr_false_is_heard_from_any_side(hooked, monkeypatch, how):
    monkeypatch.setattr(State, "words", ["--spr", "False"] if how == "words" else ["--spr"])
    hooked((ModelArguments,)).parse_args_into_dataclasses(["--spr", "False"] if how == "list" else [])
    assert not State.config.spr


@pytest.mark.parametrize("flag", [["--spr_only"], ["--spr_doctor", "folder"]])
def test_what_needs_the_stage_contradicts_spr_false(parse, capsys, flag):
    with pytest.raises(SystemExit):
        parse(*flag, "--spr", "False")
    assert f"{flag[0]} with --spr False" in capsys.readouterr().err


def test_the_doctor_alone_asks_for_spr(parse, capsys):
    """Without it the host would train."""
    with pytest.raises(SystemExit):
        parse("--spr_doctor", "folder")
    assert "--spr_doctor does nothing without --spr" in capsys.readouterr().err


def test_a_line_about_a_value_shows_no_password(parse, capsys):
    with pytest.raises(SystemExit):
        parse("--spr", "--spr_regions", "http://me:plantedpw@host/v1")
    assert "plantedpw" not in capsys.readouterr().err


def test_no_words_of_ours_is_no_spr(parse):
    parse()
    assert not State.config.spr and State.touched


@pytest.mark.parametrize("given", [{"spr_bata": 1}, {"spr": True, "spr_Beta": 1}])
def test_an_unknown_name_in_a_dict_is_named_though_extra_keys_are_allowed(hooked, capsys, given):
    with pytest.raises(SystemExit):
        hooked((ModelArguments,)).parse_dict({"name": "x", **given}, allow_extra_keys=True)
    assert "unknown flag" in capsys.readouterr().err


def test_python_s_own_parser_reads_our_flags_as_transformers_does(hooked, parse):
    """`State.words` are read by argparse, before or without any parser of transformers."""
    from spr_plugin.command_line import given
    from spr_plugin.config import SPRConfig

    words = (
        "--spr --spr_beta 0.3 --spr_lora_r 4 --no_spr_keep_best --spr_prompts plain crop --spr_clip c".split()
    )
    words += "--spr_loss_weights 1 .5 --spr_rounds=2".split()
    parse(*words)
    assert vars(SPRConfig(**given(["--lr", "1", *words]))) == vars(State.config)
    assert given(["train.py", "--lr", "1"]) == {}
    assert given(["--spr-lora-r", "4"]) == {"spr_lora_r": 4}, (
        "transformers 4.37 knows no dashes, younger ones do"
    )


# --- TRL ------------------------------------------------------------------------------------------


@pytest.fixture
def trl_parser(clean_state):
    """A hooked TrlParser."""
    if importlib.util.find_spec("trl") is None:
        pytest.skip("this environment has no TRL: nothing of it to hook")
    from trl import TrlParser

    parser = type("Parser", (TrlParser,), {})
    flags.hook_parser(parser)
    flags.check_file(parser)
    return parser


def test_trl_s_parser_with_a_yaml_file(trl_parser, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "name: from_file\nspr_beta: 0.1\nspr_lora_r: 4\nspr_prompts: [plain, crop]\n"
    )
    (model,) = trl_parser([ModelArguments]).parse_args_and_config(
        ["--config", str(tmp_path / "c.yaml"), "--spr", "--spr_lora_r", "8"]
    )
    assert model.name == "from_file"
    assert (State.config.spr, State.config.spr_beta, State.config.spr_lora_r) == (True, 0.1, 8)
    assert State.config.spr_prompts == ["plain", "crop"]
    trl_parser([ModelArguments]).parse_args_and_config(["--name", "x"])
    assert State.config.spr and State.config.spr_beta == 0.1


def test_spr_may_stand_in_the_file(trl_parser, tmp_path):
    (tmp_path / "c.yaml").write_text("spr: true\n")
    trl_parser([ModelArguments]).parse_args_and_config(
        ["--config", str(tmp_path / "c.yaml"), "--spr_beta", "0.2"]
    )
    assert State.config.spr and State.config.spr_beta == 0.2


def test_a_misspelt_flag_in_the_file_is_named(trl_parser, tmp_path, capsys):
    """TRL's own scripts pass over what they do not know."""
    (tmp_path / "c.yaml").write_text("spr_bata: 0.1\n")
    with pytest.raises(SystemExit):
        trl_parser([ModelArguments]).parse_args_and_config(
            ["--config", str(tmp_path / "c.yaml"), "--spr"], fail_with_unknown_args=False
        )
    assert "--spr_bata: unknown flag; did you mean spr_beta?" in capsys.readouterr().err


# --- flags of the host ----------------------------------------------------------------------------


def test_renamed_flags_are_rewritten_where_only_the_new_name_exists(capsys):
    args = ["--evaluation_strategy", "no", "--warmup_ratio=0.03", "--lr", "1"]
    assert flags.rewrite_renamed(args, {"--eval_strategy", "--warmup_steps", "--lr"}) == [
        "--eval_strategy",
        "no",
        "--warmup_steps=0.03",
        "--lr",
        "1",
    ]
    assert len(capsys.readouterr().err.splitlines()) == 1
    old = {"--evaluation_strategy", "--warmup_ratio", "--warmup_steps"}
    assert flags.rewrite_renamed(args, old) == args
    assert capsys.readouterr().err == ""


def test_flags_that_transformers_has_given_up_are_passed_over(capsys, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    args = [
        "--logging_dir",
        "curves",
        "--overwrite_output_dir",
        "--lr",
        "1",
        "--save_safetensors=False",
        "--spr",
    ]
    assert flags.without_dropped(args, {"--lr", "--spr"}) == ["--lr", "1", "--spr"]
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == "curves"
    (line,) = capsys.readouterr().err.splitlines()
    assert all(name in line for name in flags.DROPPED_FLAGS)
    assert flags.without_dropped(args, {*flags.DROPPED_FLAGS, "--lr", "--spr"}) == args
    assert flags.without_dropped(["--overwrite_output_dir", "True", "x"], set()) == ["x"]
    assert flags.without_dropped(["--lr", "1"], {"--lr"}) == ["--lr", "1"]


def test_flash_attention_that_is_not_installed(parser, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in ("flash_attn", "kernels") else find(name, *rest),
    )

    def train(attn_implementation=None):  # LLaVA's train_mem.py calls it so
        return parser.parse_args_into_dataclasses(["--spr"])

    with pytest.raises(SystemExit) as stop:
        train("flash_attention_2")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "flash_attn is not installed" in error
    train("sdpa")


# --- one check of a value, whoever reads it ---------------------------------------------------------------


VALUES = {"spr_regions": "1e3", "spr_learning_rate": "5e-7", "spr_epochs": "2", "spr_keep_best": "no"}


@pytest.mark.parametrize("read", [by_list, by_dict, by_json, by_yaml])
def test_a_word_means_the_same_by_every_way_in(hooked, tmp_path, read):
    parser = hooked((ModelArguments,))
    settings = {"spr": True, "name": "x", **VALUES}
    if read is by_list:
        parser.parse_args_into_dataclasses([f"--{name}={value}" for name, value in settings.items()])
    elif read is by_dict:
        parser.parse_dict(settings)
    else:
        (tmp_path / "flags").write_text(json.dumps(settings))  # JSON is YAML
        (parser.parse_json_file if read is by_json else parser.parse_yaml_file)(str(tmp_path / "flags"))
    config = State.config
    assert (config.spr_regions, config.spr_learning_rate, config.spr_epochs) == (1000, 5e-7, 2.0)
    assert config.spr_keep_best is False


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("spr_batch_size", 4.5, "whole number"),
        ("spr_seed", "abc", "whole number"),
        ("spr_seed", 1e20, "below 2 to the 63"),
        ("spr_beta", "yes", "no number"),
        ("spr_epochs", float("inf"), "finite"),
    ],
)
def test_and_is_refused_by_every_way_in(hooked, capsys, name, value, says):
    for given in ([f"--{name}", str(value)], {name: value, "name": "x"}):
        parser = hooked((ModelArguments,))
        with pytest.raises(SystemExit) as stop:
            if isinstance(given, dict):
                parser.parse_dict({"spr": True, **given})
            else:
                parser.parse_args_into_dataclasses(["--spr", *given])
        line = capsys.readouterr().err
        assert stop.value.code == 2 and line.count("\n") == 1 and f"--{name}" in line and says in line
