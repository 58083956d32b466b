"""Runs the study of plan.py through the real commands, one resumable unit after the other, and writes the
tables.

    python examples/tiny_world/reproduce/run.py [full|scaled|main|quick|tune|demo|method] [--out DIR]

A unit is one trained and measured model. What it found goes to results/, its manifest included: it is not run
again, and where that was found under another configuration the run stops. OUT holds data, checkpoints and
samples; a unit that was cut off goes on from there.
"""

import argparse
import functools
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # scripts, no packages
import analysis  # noqa: E402
import figures  # noqa: E402
import grpo  # noqa: E402
import paired  # noqa: E402
import plan  # noqa: E402
import result_files  # noqa: E402
import tables  # noqa: E402
import world_data  # noqa: E402
from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.eval_tasks.metrics import DETAILS  # noqa: E402
from spr_plugin.eval_tasks.run import evaluate  # noqa: E402
from spr_plugin.eval_tasks.saved_results import read_run  # noqa: E402
from spr_plugin.files import read_json, write_json  # noqa: E402
from spr_plugin.progress import say  # noqa: E402
from spr_plugin.tools.demo import WORLD, environment, train_command  # noqa: E402

RESULTS = tables.RESULTS
SECONDS = "seconds.json"  # of a training command that ran in one sitting


class Study:
    """One plan at work: `out` for what can be made again, `results` for what was found."""

    def __init__(self, chosen: plan.Plan, out: Path, results: Path = RESULTS):
        self.plan, self.out = chosen, out
        self.results, self.work = results / chosen.folder, out / (chosen.folder or chosen.asked.split)

    def run(self) -> None:
        """All units of the plan."""
        for name, seed in self.plan.units:
            trained = functools.partial(self.trained, name, seed)
            self.result(
                self.file(name, seed), self.manifest(name, seed), lambda trained=trained: trained() / "llava"
            )
            base, manifest = self.base(name, seed)
            own = self.plan.variants[name].own_base
            untrained = (
                (lambda trained=trained: trained() / "llava/spr/base") if own else lambda: WORLD / "llava"
            )
            self.result(base, manifest, untrained)
            if name == plan.MAIN and not self.plan.folder:
                self.why(seed)

    def check(self) -> None:
        """UserError for a result that is not of this plan: of another configuration, or of no variant."""
        known = {
            self.file(name, seed): self.manifest(name, seed)
            for name, variant in self.plan.variants.items()
            for seed in variant.seeds
        }
        known |= dict(self.base(name, variant.seeds[0]) for name, variant in self.plan.variants.items())
        known |= {
            self.why_file(seed): self.manifest(self.plan.lender, seed)
            for seed in self.plan.variants[self.plan.lender].seeds
        }
        for file in sorted([*self.results.glob("*.json"), *self.results.glob(f"{figures.WHY}/*.json")]):
            if file not in known:
                raise UserError(f"reproduce: {file} is of no variant of plan.py; remove it")
            result_files.found(file, known[file])

    def result(self, file: Path, manifest: dict, checkpoint: Callable[[], Path]) -> None:
        """Measure one model, unless `file` holds what was found."""
        if not result_files.found(file, manifest):
            start, model = time.monotonic(), checkpoint()
            facts = {"stage": result_files.evidence(model / "spr")} if (model / "spr").exists() else {}
            notes = {
                "GRPO": read_json(model / grpo.FOUND),
                "training seconds": read_json(model.parent / SECONDS),
            }
            facts |= {name: note for name, note in notes.items() if note is not None}
            # What was asked is the same for all: a base alone keeps its areas.
            areas = {plan.REC} if manifest["variant"].startswith(paired.BASE) else set()
            samples = self.measured(model, manifest["tasks"], self.work / file.stem / "eval", areas)
            result_files.write_result(
                file, {**manifest, **facts, "seconds": round(time.monotonic() - start)}, samples
            )

    def why(self, seed: int) -> None:
        """Evidence behind the main result, from the folder of its unit; where that is gone, it is said, and
        the tables name the seed.
        """
        file, manifest, unit = (
            self.why_file(seed),
            self.manifest(self.plan.lender, seed),
            self.work / f"{result_files.slug(self.plan.lender)}-{seed}",
        )
        if result_files.found(file, manifest):
            return
        if (
            not result_files.found(unit / "manifest.json", manifest)
            or not (unit / "llava" / "config.json").exists()
        ):
            say(
                f"reproduce: no analysis of {file.stem}, since {unit} is gone; remove"
                f" {self.file(self.plan.lender, seed)} to run that unit anew"
            )
            return
        start, results = (
            time.monotonic(),
            tuple(
                read_json(known)
                for known in (self.base(self.plan.lender, seed)[0], self.file(self.plan.lender, seed))
            ),
        )
        asked = {**self.plan.asked._asdict(), "count": plan.ASKED["count"]}
        data, evaluation = (
            world_data.training_data(self.out, manifest["world"]),
            world_data.evaluation_data(self.out, self.plan.asked),
        )
        rows = analysis.why(unit / "llava", WORLD / "llava", results, data, evaluation, asked)
        write_json(file, {**manifest, "seconds": round(time.monotonic() - start), **rows})

    def why_file(self, seed: int) -> Path:
        return self.results / figures.WHY / f"{result_files.slug(self.plan.lender)}-{seed}.json"

    def file(self, name: str, seed: int) -> Path:
        return self.results / f"{result_files.slug(name)}-{seed}.json"

    def base(self, name: str, seed: int) -> tuple[Path, dict]:
        """File and manifest of what a variant is compared with."""
        if not self.plan.variants[name].own_base:
            return self.results / f"{paired.BASE}.json", {
                "variant": paired.BASE,
                **self.asked(self.plan.lender),
            }
        title = f"{paired.BASE} of {name}"
        return self.results / f"{result_files.slug(title)}.json", {
            **self.manifest(name, seed),
            "variant": title,
        }

    def asked(self, name: str) -> dict:
        return {
            "split": self.plan.asked.split,
            "asked": self.plan.asked.numbers(),
            "tasks": self.plan.variants[name].tasks,
            "weights": world_data.weights_hash(WORLD),
        }

    def manifest(self, name: str, seed: int) -> dict:
        """All that a unit's result depends on."""
        world = {**plan.SCENES, "seed": seed, **self.plan.variants[name].world}
        budget = {"budget of": self.flags(self.plan.lender, seed)} if self.plan.variants[name].grpo else {}
        return {
            "variant": name,
            "seed": seed,
            "flags": self.flags(name, seed),
            **budget,
            "world": world,
            **self.asked(name),
        }

    def flags(self, name: str, seed: int) -> str:
        variant = self.plan.variants[name]
        common = f"--seed {seed}" if variant.grpo else f"{self.plan.common} --spr_seed {seed}"
        return " ".join(f"{common} {variant.flags}".split())

    def trained(self, name: str, seed: int) -> Path:
        """The folder of one unit, its model trained: ``llava/`` in it is what the command saved."""
        folder, manifest = self.work / f"{result_files.slug(name)}-{seed}", self.manifest(name, seed)
        began = result_files.found(folder / "manifest.json", manifest)
        if (folder / "llava" / "config.json").exists():
            return folder
        data = world_data.training_data(self.out, manifest["world"])
        world_data.refuse_shared(
            data / "images", world_data.evaluation_data(self.out, self.plan.asked) / "images"
        )
        command = self.command(name, seed, data, folder / "llava")
        write_json(folder / "manifest.json", manifest)
        start = time.monotonic()
        say(
            f"reproduce: {folder.name} {'was cut off and goes on' if began else 'begins'}\n "
            f" {shlex.join(command)}"
        )
        if subprocess.run(command, env=environment()).returncode:
            raise UserError(f"reproduce: {folder.name} failed; the same command goes on from {folder}")
        if not began:
            write_json(folder / SECONDS, round(time.monotonic() - start))
        return folder

    def command(self, name: str, seed: int, data: Path, out: Path) -> list[str]:
        """What trains a unit's model, and saves it in `out`."""
        variant, flags = self.plan.variants[name], self.flags(name, seed)
        if variant.own_answers:
            return train_command(data, out, flags)
        lent = self.trained(variant.answers_of or self.plan.lender, seed) / "llava" / "spr"
        return (
            grpo.command(data, lent, out, flags)
            if variant.grpo
            else train_command(data, out, f"{flags} --spr_candidates {lent}")
        )

    def measured(self, checkpoint: Path, tasks: str, folder: Path, areas: Collection[str] = ()) -> dict:
        """Task → what :func:`condensed` makes of its samples; `areas`: tasks that keep those."""
        say(f"reproduce: lmms-eval --tasks {tasks} on {checkpoint}")
        evaluate(
            checkpoint,
            world_data.evaluation_data(self.out, self.plan.asked),
            folder,
            tasks=tasks,
            device="cpu",
        )
        return {
            task: result_files.condensed((record[DETAILS] for record in records.values()), task in areas)
            for task, records in read_run(folder).tasks.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", nargs="?", default="full", choices=plan.PLANS)
    parser.add_argument(
        "--out", type=Path, default=Path("reproduction"), help="folder of data, checkpoints and samples"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="folder of what was found; another than the committed one measures anew, its tables go to OUT",
    )
    parser.add_argument(
        "--tables", action="store_true", help="write the tables of what is there, run nothing"
    )
    arguments = parser.parse_args()
    try:
        for chosen in plan.OF_FOLDERS:
            Study(plan.PLANS[chosen], arguments.out, arguments.results).check()
        if not arguments.tables:
            Study(plan.PLANS[arguments.plan], arguments.out, arguments.results).run()
        print(tables.write(arguments.results, tables.DOCS if arguments.results == RESULTS else arguments.out))
    except UserError as error:
        print(f"spr: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
