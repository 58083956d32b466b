"""The house has floors: imports go down only, and no room grows too large to be read."""

import ast
import configparser
import dataclasses
import functools
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.config.candidates import CandidatesFlags
from spr_plugin.config.dpo import DPOFlags
from spr_plugin.config.queries import QueriesFlags
from spr_plugin.config.run import RunFlags
from spr_plugin.settings import Settings
from tests.mutate import TARGETS

ROOT = Path(__file__).parents[1]
TREES = {"spr_plugin": "spr_plugin", "hooks": "spr_plugin.hooks", "eval_tasks": "spr_plugin.eval_tasks"}
SCRIPTS = ("benchmarks", "docs", "examples")  # as short as the package's modules
LONGEST_MODULE, LONGEST_FUNCTION = 350, 60  # lines


def _module(tree: str, file: Path) -> str:
    parts = (TREES[tree], *file.relative_to(ROOT / tree).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


FILES = {
    _module(tree, file): file
    for tree in TREES
    for file in (ROOT / tree).rglob("*.py")
    if not {"hooks", "eval_tasks"} & set(file.relative_to(ROOT / tree).parts[:-1])
}


@functools.cache
def tree_of(file: Path) -> ast.Module:
    """Every test reads it, and changes nothing of it."""
    return ast.parse(file.read_text())


@functools.cache
def imported(file: Path, later: bool = False) -> frozenset[str]:
    """Modules of ours that a file imports as it is loaded, or with `later` its functions too, when they are
    called.
    """
    modules, tree = set(), tree_of(file)
    for_types = {
        id(part)
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for part in ast.walk(node)
    }
    for node in (one for one in ast.walk(tree) if id(one) not in for_types) if later else tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spr_plugin"):
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                modules.add(inner if inner in FILES else node.module)
        elif isinstance(node, ast.Import):
            modules |= {name.name for name in node.names if name.name in FILES}
    return frozenset(modules)


def package(module: str) -> str:
    """A folder of modules counts as one room; a module that stands alone is one itself."""
    return ".".join(module.split(".")[:2])


def test_no_circle_among_modules():
    """Nor by what functions import when they are called."""
    TopologicalSorter({name: imported(file, True) - {name} for name, file in FILES.items()}).prepare()


def test_no_circle_among_packages():
    below = {}
    for name, file in FILES.items():
        others = {package(other) for other in imported(file)} - {package(name)}
        below.setdefault(package(name), set()).update(others)
    TopologicalSorter(below).prepare()


READ = [*FILES.values(), *(file for tree in SCRIPTS for file in sorted((ROOT / tree).rglob("*.py")))]


@pytest.mark.parametrize("file", READ, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_and_its_functions_can_be_read(file):
    assert len(file.read_text().splitlines()) <= LONGEST_MODULE
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {
        (node.name, node.lineno): node.end_lineno - node.lineno + 1
        for node in ast.walk(tree_of(file))
        if isinstance(node, functions)
    }
    assert {function for function, lines in lengths.items() if lines > LONGEST_FUNCTION} == set()


def test_the_drawing_of_the_house_names_every_room():
    """``docs/architecture.md``: a line a group of rooms, their names before what they are for."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    lines = page.partition("```text\n")[2].partition("```")[0].splitlines()
    # Rooms stand at the margin or two blanks in; what is farther in lies inside of one.
    columns = [line.strip().partition("  ")[0] for line in lines if not line.startswith("   ")]
    drawn = {name.strip("/").removesuffix(".py") for column in columns for name in column.split()}
    assert drawn - {"docs"} == {package(name).rpartition(".")[2] for name in FILES}


# Names of a dialect that nobody guesses: matches, a position, a message say what a value is.
DIALECT = {"found", "held", "place", "said"}
# What bears one all the same.
SPOKEN = {
    "spr_plugin.runs.growing": {"found"},  # a method: the keys of records in which a text was
    "spr_plugin.runs.log": {"held"},  # a method: the ids that a log holds
    "spr_plugin.runs.moved": {"found", "place"},  # where a picture's file lies, and may lie
}


def bound(tree: ast.Module) -> set[str]:
    """Every name that a module gives to a value, an argument or a function."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or "")
    return names


@pytest.mark.parametrize("name", FILES)
def test_values_are_called_what_they_are(name):
    bare = {one.strip("_") for one in bound(tree_of(FILES[name]))}
    assert bare & DIALECT == SPOKEN.get(name, set())


def test_the_pipeline_knows_no_boxes_and_no_recipe_of_its_own():
    for name in ("spr_plugin.pipeline", "spr_plugin.judging", "spr_plugin.queries", "spr_plugin.dpo.probe"):
        known = imported(FILES[name], True)
        assert not {module for module in known if ".recipes.spr" in module or module == "spr_plugin.boxes"}, (
            name
        )
    assert not {
        module for module in imported(FILES["spr_plugin.report.page"], True) if ".recipes.spr" in module
    }


# Room → the flags that whoever works there is given, and so reads. Judging is given none; of all flags know
# the commands, what opens a run and tells its stages, and plugins' hooks.
READS: dict[str, tuple[type[Settings], ...]] = {
    "queries": (QueriesFlags,),
    "sampling": (CandidatesFlags,),
    "judging": (),
    "dpo": (DPOFlags,),
    "training": (DPOFlags, RunFlags),
}
COMMANDS = {"spr_plugin.sampling.alone"}


@pytest.mark.parametrize("room", READS)
def test_a_stage_knows_its_own_flags_alone(room):
    """It imports no other class of flags, so that mypy refuses others, and no other flag is read there."""
    own = {kind.__name__ for kind in READS[room]}
    flags = {f.name for kind in READS[room] for f in dataclasses.fields(kind)}
    every = {f.name for f in dataclasses.fields(SPRConfig)} - {"spr"}
    of_flags = {kind.__name__ for kind in SPRConfig.__mro__ if issubclass(kind, Settings)} - {"Settings"}
    modules = [name for name in FILES if package(name) == f"spr_plugin.{room}" and name not in COMMANDS]
    for name in modules:
        nodes = [*ast.walk(tree_of(FILES[name]))]
        imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert imported & of_flags <= own and read & every <= flags, name
    assert modules


def test_the_pipeline_hands_each_stage_its_own_flags_alone():
    """``now.config`` is given to nobody as a whole."""
    tree = tree_of(FILES["spr_plugin.pipeline"])
    given = [one for node in ast.walk(tree) if isinstance(node, ast.Call) for one in node.args]
    assert "now.config" not in map(ast.unparse, given)


# Module → the tests that run it, where none lies at its own path: what is one with its neighbours, or runs in
# a host alone.
ELSEWHERE = {
    "__main__": "test_command_line.py",
    "cli": "test_command_line.py tools/test_score_file.py",
    "config.candidates": "config/test_all_flags.py",
    "config.pairs": "config/test_all_flags.py",
    "config.run": "config/test_all_flags.py",
    "config.scores": "config/test_all_flags.py",
    "config.shared": "config/test_all_flags.py",
    "contracts.box_format": "hosts/test_contracts.py",
    "contracts.host": "hosts/test_contracts.py",
    "contracts.images": "hosts/test_contracts.py",
    "contracts.made_up": "hosts/test_contracts.py",
    "follow": "hosts/test_lost_work.py hosts/test_faults.py",
    "formats.tokens": "formats/test_attempts.py",
    "hooks.ferret": "hosts/test_ferret.py",
    "hooks.llava": "hosts/test_llava.py",
    "hooks.llava_model": "sampling/test_decoding.py hosts/test_llava.py",
    "hooks.llava_next": "hosts/test_llava_next.py",
    "hooks.transformers_vlm": "hosts/test_transformers_vlm.py",
    "hooks.vlm_model": "hosts/test_transformers_vlm.py",
    "hookspecs": "test_plugins.py test_docs.py",
    "pipeline": "hosts/test_llava.py dpo/test_rounds.py",
    "recipes.spatial_ssrl.samples": "recipes/spatial_ssrl/test_tasks.py",
    "recipes.spr.models": "hosts/test_contracts.py",
    "tools.reference": "test_docs.py",
}


# Files of those folders that test what several modules do together.
BY_BEHAVIOUR = {"tests/dpo/test_disk.py", "tests/dpo/test_zero.py", "tests/tools/test_score_again.py"}


def own_tests(module: str) -> Path:
    """Where a module's tests lie, if they lie at its own path."""
    *rooms, name = module.removeprefix("spr_plugin.").split(".")
    return ROOT.joinpath("tests", *rooms, f"test_{name}.py")


def test_every_module_has_tests_at_its_own_path_or_is_said_to_be_elsewhere():
    modules = {name for name, file in FILES.items() if file.name != "__init__.py"}
    bare = {name.removeprefix("spr_plugin.") for name in modules if not own_tests(name).exists()}
    assert bare == ELSEWHERE.keys()
    assert {
        file for files in ELSEWHERE.values() for file in files.split() if not (ROOT / "tests" / file).exists()
    } == set()


def test_every_test_file_tests_something_that_is_there():
    """In the folders that mirror the package: a module that moved takes its tests along."""
    packages = {name.rpartition(".")[0].removeprefix("spr_plugin").strip(".") for name in FILES}
    rooms = {package for package in packages if package} - {"contracts"}
    mirrored = {own_tests(name) for name in FILES}
    named = {ROOT / "tests" / file for files in ELSEWHERE.values() for file in files.split()}
    files = {file for room in rooms for file in ROOT.joinpath("tests", *room.split(".")).glob("test_*.py")}
    assert {str(file.relative_to(ROOT)) for file in files - mirrored - named} == BY_BEHAVIOUR


def test_whatever_is_mutated_has_the_tests_that_are_named():
    tests = {test for tests in TARGETS.values() for test in tests}
    assert {module for module in TARGETS if module not in FILES} == set()
    assert {test for test in tests if not (ROOT / "tests" / test).exists()} == set()


def test_a_wheel_holds_every_package():
    """One that setup.cfg forgets is there in a checkout, and nowhere else."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "spr_plugin").rglob("__init__.py")
    }
    assert packages == listed - setup_mapped(setup)


def setup_mapped(setup: configparser.ConfigParser) -> set[str]:
    """The packages that lie elsewhere in the checkout."""
    rows = (line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    return {package for package, folder in rows if package != folder}
