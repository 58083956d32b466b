"""The house has floors: imports go down only, and no room grows too large to be read."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = {"spr_plugin": "spr_plugin", "hooks": "spr_plugin.hooks", "eval_tasks": "spr_plugin.eval_tasks"}
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


def imported(file: Path) -> set[str]:
    """Modules of ours that a file imports as it is loaded; what a function imports later is no floor
    below.
    """
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spr_plugin"):
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                found.add(inner if inner in FILES else node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name in FILES}
    return found


def package(module: str) -> str:
    """A folder of modules counts as one room; a module that stands alone is one itself."""
    return ".".join(module.split(".")[:2])


def test_no_circle_among_modules():
    TopologicalSorter({name: imported(file) - {name} for name, file in FILES.items()}).prepare()


def test_no_circle_among_packages():
    below = {}
    for name, file in FILES.items():
        others = {package(other) for other in imported(file)} - {package(name)}
        below.setdefault(package(name), set()).update(others)
    TopologicalSorter(below).prepare()


@pytest.mark.parametrize("name", FILES)
def test_a_module_and_its_functions_can_be_read(name):
    text = FILES[name].read_text()
    assert len(text.splitlines()) <= LONGEST_MODULE
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, functions)
    }
    assert {function for function, lines in lengths.items() if lines > LONGEST_FUNCTION} == set()


def test_the_pipeline_knows_no_boxes_and_no_recipe_of_its_own():
    for name in ("spr_plugin.pipeline", "spr_plugin.judging", "spr_plugin.queries", "spr_plugin.dpo.probe"):
        known = imported(FILES[name])
        assert not {module for module in known if ".recipes.spr" in module or module == "spr_plugin.boxes"}, (
            name
        )
    assert not {module for module in imported(FILES["spr_plugin.report.page"]) if ".recipes.spr" in module}
