"""Changes the pure middle of the method, one place at a time, and says which changes no test notices.

    python tests/mutate.py [--all] [MODULE…]     # of TARGETS, without one all of them, into docs/mutation.md

A mutant is one comparison at its boundary or turned round, one operator, one number, or one of min, max, any
and all that is another. Its module is compiled from the changed tree in a forked process, which runs, of the
module's own fast tests, those that call the changed function until one fails: no file is touched, and what
tests import besides is loaded once, before the fork. Of a module with more than SAMPLE mutants so many are
drawn, always the same, unless --all is asked for.
"""

import ast
import copy
import importlib
import importlib.machinery
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLE = 60
# Modules of the method's middle; of the rooms of spr_plugin, but for its name.
MODULES = """boxes pairing recipes.spr.regions recipes.spr.scoring recipes.spr.refinement recipes.spr.names
    formats.items recipes.spr.recipe dpo.loss dpo.plan eval_tasks.metrics eval_tasks.fields formats.attempts
    formats.base formats.bracket formats.listed formats.parsed formats.reading formats.tagged""".split()
# A family's code is shared among the modules of its room, and repair is what it is for.
FAMILIES = [
    *sorted(f"formats/{file.name}" for file in (ROOT / "tests/formats").glob("test_*.py")),
    "recipes/spr/test_refinement.py",
]
# Module → the tests that are asked after those at its own path.
ALSO = {
    "recipes.spr.scoring": ["recipes/spr/test_recipe.py"],
    "recipes.spr.refinement": ["formats/test_attempts.py"],
    **{name: FAMILIES for name in MODULES if name.startswith("formats.")},
}


def tests_of(name: str) -> list[str]:
    """The tests of a module, in the order in which they are asked, each once."""
    *rooms, last = name.split(".")
    return [*dict.fromkeys(["/".join([*rooms, f"test_{last}.py"]), *ALSO.get(name, ())])]


TARGETS = {f"spr_plugin.{name}": tests_of(name) for name in MODULES}
# What is not ours and takes seconds to load: once, before the fork.
BENEATH = ("pytest", "scipy.optimize", "PIL.Image", "transformers.trainer", "peft")
Found = dict[str, tuple[int, list[str]]]  # module → number of its mutants, those that live
PAGE = ROOT / "docs" / "mutation.md"
HEAD = f"""# Mutants

Written by `make mutate`, which changes one comparison, operator or number at a time and runs the changed
module's own fast tests (`tests/mutate.py`; of a module with more than {SAMPLE} mutants so many are drawn). A
mutant that lives is a change that no test notices: a hole, or one that changes nothing but the time it takes.

| module | mutants | die |
|---|---|---|
"""
# Each operator → its boundary and its opposite.
TWINS = {
    getattr(ast, name): [getattr(ast, twin) for twin in twins.split()]
    for name, twins in (
        pair.split(": ")
        for pair in """\
Lt: LtE GtE, LtE: Lt Gt, Gt: GtE LtE, GtE: Gt Lt, Eq: NotEq, NotEq: Eq, In: NotIn, NotIn: In, Is: IsNot, \
IsNot: Is, Add: Sub, Sub: Add, Mult: Div, Div: Mult, FloorDiv: Mult, Mod: Mult, And: Or, Or: And""".split(
            ", "
        )
    )
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}
OPERATORS = {ast.Compare: "ops", ast.BinOp: "op", ast.BoolOp: "op", ast.AugAssign: "op"}
# Parts of a node that say nothing of what is computed.
ASIDE = {"annotation", "returns", "decorator_list", "type_params"}


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of ``node``."""
    if field := OPERATORS.get(type(node)):
        found = getattr(node, field)
        several = isinstance(found, list)
        for place, operator in enumerate(found if several else [found]):
            for twin in TWINS.get(type(operator), ()):
                other = copy.copy(node)
                setattr(other, field, [*found[:place], twin(), *found[place + 1 :]] if several else twin())
                yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield ast.Constant(node.value + (1 if isinstance(node.value, int) else 0.01))
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield ast.Name(NAMES[node.id], node.ctx)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield ast.Attribute(node.value, NAMES[node.attr], node.ctx)


def mutants(tree: ast.Module, file: str) -> Iterator[tuple[int, str, object]]:
    """(line, the change in words, the module's code with it) of each."""

    def walk(node: ast.AST) -> Iterator[tuple[int, str, object]]:
        for field, value in ast.iter_fields(node):
            held = value if isinstance(value, list) else [value]
            for place, child in enumerate(held):
                if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr) or field in ASIDE:
                    continue
                for other in changed(child):
                    put = (
                        held.__setitem__
                        if held is value
                        else lambda _, new, field=field: setattr(node, field, new)
                    )
                    put(place, ast.copy_location(other, child))
                    words = f"{ast.unparse(child)} → {ast.unparse(other)}"
                    yield child.lineno, words, compile(ast.fix_missing_locations(tree), file, "exec")
                    put(place, child)
                yield from walk(child)

    return walk(tree)


class Swapped(importlib.machinery.SourceFileLoader):
    """Loads one module as the code that it is given."""

    code: object

    def get_code(self, fullname: str):
        return self.code


def outermost(tree: ast.Module) -> list[range]:
    """Lines of each function and method that stands in no other. One whose results are kept is none: the
    tests that only meet a kept result do not call it.
    """
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    return [
        range(min(one.lineno for one in (node, *node.decorator_list)), node.end_lineno + 1)
        for body in bodies
        for node in body
        if isinstance(node, functions) and not any("cache" in ast.unparse(one) for one in node.decorator_list)
    ]


class Calls:
    """A pytest plugin: what each test calls of one file, on lines of its own in ``into``: the test's id and
    the first lines of the functions that ran, those of collection under no id.
    """

    def __init__(self, file: str, into: Path):
        self.file, self.into, self.lines = file, into, set()

    def pytest_configure(self) -> None:
        sys.settrace(self.seen)

    def pytest_runtest_logstart(self) -> None:
        sys.settrace(self.seen)  # a test may have ended it

    def seen(self, frame, *_) -> None:
        """A function begins; its lines are not followed."""
        if frame.f_code.co_filename == self.file:
            self.lines.add(frame.f_code.co_firstlineno)

    def written(self, test: str) -> None:
        with self.into.open("a") as kept:
            kept.write(json.dumps([test, sorted(self.lines)]) + "\n")
        self.lines.clear()

    def pytest_collection_finish(self) -> None:
        self.written("")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.written(nodeid)


class Only:
    """A pytest plugin: of what was collected these tests are run."""

    def __init__(self, tests: set[str]):
        self.tests = tests

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = [item for item in items if item.nodeid in self.tests]


def callers(functions: list[range], calls: list[tuple[str, list[int]]], line: int) -> set[str] | None:
    """Ids of the tests that call the function around ``line``; None, which is all, where it is in none, or
    was called before any test.
    """
    own = next((lines for lines in functions if line in lines), range(0))
    tests = {test for test, first in calls if any(one in own for one in first)}
    return None if not own or "" in tests else tests


def run(module: str, code: object, tests: list[str], limit: float, *plugins: object) -> int:
    """The id of a forked process that ends with 0 where the tests pass with ``code`` as ``module``."""
    if pid := os.fork():
        return pid
    # A mutant may never end: nothing handles the signal, so it kills.
    signal.setitimer(signal.ITIMER_REAL, limit)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    import pytest

    class Finder:
        @staticmethod
        def find_spec(name, path, target=None):
            if name == module:
                spec = importlib.machinery.PathFinder.find_spec(name, path)
                spec.loader = Swapped(name, spec.origin)
                spec.loader.code = code
                return spec

    sys.meta_path.insert(0, Finder)
    options = [
        "-xq",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-m",
        "not slow",
        "--hypothesis-profile",
        "mutants",
    ]
    paths = [str(ROOT / "tests" / test) for test in tests]
    os._exit(int(pytest.main([*options, *paths], plugins=plugins)))


def survivors(module: str, tests: list[str], sample: int | None) -> tuple[int, list[str]]:
    """How many mutants of ``module`` were tried, and those that every test passes."""
    # Nothing of ours is imported before the fork.
    file = str(ROOT.joinpath(*module.split(".")).with_suffix(".py"))
    tree = ast.parse(Path(file).read_text())
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "calls")
        _, status = os.waitpid(run(module, compile(tree, file, "exec"), tests, 600, Calls(file, kept)), 0)
        if status:
            sys.exit(f"{module}: its tests fail without any change: {' '.join(tests)}")
        calls = [json.loads(line) for line in kept.read_text().splitlines()]
    limit, functions = 30 + 5 * (time.monotonic() - start), outermost(tree)
    tried = list(mutants(tree, file))
    if sample and len(tried) > sample:
        tried = sorted(random.Random(module).sample(tried, sample), key=lambda mutant: mutant[0])
    running, alive = {}, []
    for number, (line, words, code) in enumerate([*tried, *[(0, "", None)] * (os.cpu_count() or 1)]):
        if number >= (os.cpu_count() or 1) and running:
            pid, status = os.wait()
            found = running.pop(pid)
            alive += [found] if status == 0 else []
        asked = callers(functions, calls, line)
        if code and asked == set():  # called by no test
            alive.append((line, words))
        elif code:
            only = [] if asked is None else [Only(asked)]
            running[run(module, code, tests, limit, *only)] = line, words
    return len(tried), [f"{line}: `{words}`" for line, words in sorted(alive)]


def page(found: Found) -> str:
    """docs/mutation.md."""
    rows, lists = [], []
    for module, (count, alive) in sorted(found.items(), key=lambda one: [*TARGETS].index(one[0])):
        rows.append(f"| `{module}` | {count} | {count - len(alive)} |\n")
        lists += (
            [f"\n`{module}`, alive by line:\n\n", *(f"- {mutant}\n" for mutant in alive)] if alive else []
        )
    return HEAD + "".join(rows + lists)


def read(text: str) -> Found:
    """What a page says of the modules that are still measured."""
    lists = dict(re.findall(r"^`(\S+)`, alive by line:\n\n((?:- .*\n)+)", text, re.M))
    alive = {module: re.findall(r"^- (.*)", listed, re.M) for module, listed in lists.items()}
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \|", text, re.M)
    return {module: (int(count), alive.get(module, [])) for module, count in rows if module in TARGETS}


def main(words: list[str]) -> None:
    import hypothesis
    import torch

    for name in BENEATH:
        importlib.import_module(name)
    torch.set_num_threads(1)
    hypothesis.settings.register_profile("mutants", max_examples=50, deadline=None, derandomize=True)
    named = [word for word in words if word != "--all"]
    for module in named or TARGETS:
        count, alive = survivors(module, TARGETS[module], None if "--all" in words else SAMPLE)
        print(f"{module}: {count - len(alive)} of {count} mutants die", *alive, sep="\n  ", flush=True)
        PAGE.write_text(page({**read(PAGE.read_text()), module: (count, alive)}))


if __name__ == "__main__":
    main(sys.argv[1:])
