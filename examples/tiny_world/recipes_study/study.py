"""Runs the study of settings.py: for each recipe a cold start by the host's own trainer, `--spr_recipe`
behind it, and lmms-eval on the recipe's questions and on SPR's own, before and after; then its tables.

    python examples/tiny_world/recipes_study/study.py [tune|full] [--recipes NAME ...] [--out DIR]

A unit is one model. What it found goes to results/ and is not measured again; what OUT holds is not trained
again. `tune` reads validation scenes, `full` held-out ones.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "reproduce"), str(HERE.parent)]  # scripts, no packages
import kept  # noqa: E402
import report  # noqa: E402
import settings  # noqa: E402
import worlds  # noqa: E402

import result_files  # noqa: E402
import world_data  # noqa: E402
from spr_plugin import runs  # noqa: E402
from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.eval_tasks.by_recipe import recipe_of  # noqa: E402
from spr_plugin.eval_tasks.metrics import DETAILS  # noqa: E402
from spr_plugin.eval_tasks.run import evaluate  # noqa: E402
from spr_plugin.eval_tasks.saved_results import read_run, spoken  # noqa: E402
from spr_plugin.loading import read_json_lines  # noqa: E402
from spr_plugin.progress import say  # noqa: E402
from spr_plugin.report.page import summary  # noqa: E402
from spr_plugin.tools.cold_start import write_evaluation  # noqa: E402
from spr_plugin.tools.demo import WORLD, environment, train_command  # noqa: E402

OWN = "spr_tiny_world"  # lmms-eval's name of SPR's own questions


class NoPairs(Exception):
    """The stage had nothing to train on; its run's folder."""


class Study:
    """One recipe at work: `out` for what can be made again, `results` for what was found."""

    def __init__(self, recipe: str, out: Path, results: Path = report.RESULTS):
        self.recipe, self.studied = recipe, settings.RECIPES[recipe]
        self.out, self.results = out, results

    # --- plans

    def tune(self) -> None:
        """Cold starts and rates, on validation scenes and the recipe's questions alone."""
        for worked in (*self.studied.smaller, self.studied.worked):
            self.result(self.cold_start(worked), "val", lambda worked=worked: self.cold(worked))
        for rate in self.studied.rates:
            self.result(
                self.after(rate, settings.TUNED), "val", lambda rate=rate: self.stage(rate, settings.TUNED)
            )

    def full(self) -> None:
        """The chosen cold start before the stage, and after it with the chosen rate, on held-out scenes."""
        self.result(
            self.cold_start(self.studied.worked), "test", lambda: self.cold(self.studied.worked), own=True
        )
        rate = report.chosen(self.results, self.recipe)
        for seed in settings.SEEDS:
            self.result(self.after(rate, seed), "test", lambda seed=seed: self.stage(rate, seed), own=True)

    def cold_start(self, worked: int) -> dict:
        """What a base is."""
        data = {"worked": worked, "conversations": settings.CONVERSATIONS, "section": self.studied.section}
        return {"variant": kept.BASE, "recipe": self.recipe, **data, "cold": words(settings.COLD)}

    def after(self, rate: str, seed: int) -> dict:
        """What a model that went through the stage is."""
        found = {**self.cold_start(self.studied.worked), "variant": kept.AFTER, "seed": seed, "rate": rate}
        return {**found, "flags": self.flags(rate, seed)}

    def flags(self, rate: str, seed: int) -> str:
        return words(f"{settings.STAGE} {self.studied.flags} --spr_learning_rate {rate} --spr_seed {seed}")

    # --- training

    def cold(self, worked: int) -> Path:
        """The model after the host's own training on worked answers. Its command goes on to the stage as any
        does, with a few questions: what this makes is not looked at.
        """
        name = f"{self.recipe}-cold-{worked}"
        model = self.out / name / "llava"
        if not (model / "spr" / "base" / "config.json").exists():
            data = self.cold_data(worked)
            flags = f"{self.flags(self.studied.rates[0], settings.TUNED)} {settings.COLD} --spr_regions 8"
            self.train(name, self.command(data, model, flags, WORLD / "llava", settings.TUNED), must=False)
        return model / "spr" / "base"

    def stage(self, rate: str, seed: int) -> Path:
        """The model after the stage."""
        name = f"{self.recipe}-{rate}-{seed}"
        model, base = self.out / name / "llava", self.cold(self.studied.worked)
        if not (model / "config.json").exists():
            flags, lent = self.flags(rate, seed), self.out / f"{self.recipe}-{self.studied.rates[0]}-{seed}"
            if seed == settings.TUNED and rate != self.studied.rates[0]:
                flags += f" --spr_candidates {lent / 'llava' / 'spr'}"
            data = self.cold_data(self.studied.worked)
            self.train(name, self.command(data, model, flags, base, seed))
        return model

    def command(self, data: Path, model: Path, flags: str, base: Path, seed: int) -> list[str]:
        """LLaVA's training command with the recipe's flags in place of SPR's."""
        pictures = self.pictures("spr", settings.SCENES["spr"], seed)
        section, name = self.studied.section, f"{model.parent.name}"
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        config, images = worlds.config_of(self.recipe, pictures, "spr", section, folder)
        words = train_command(data, model, flags, WORLD / "llava")
        words[words.index("--model_name_or_path") + 1] = str(base)
        for flag, value in (("annotations", config.spr_annotations), ("image_folder", images)):
            place = words.index(f"--spr_{flag}")
            words[place : place + 2] = [] if value is None else [f"--spr_{flag}", str(value)]
        place = words.index("--spr_clip")
        del words[place : place + 2]
        return [*words, "--spr_recipe", self.recipe, "--spr_recipe_config", str(config.spr_recipe_config)]

    def train(self, name: str, command: list[str], must: bool = True) -> None:
        say(f"recipes: {name}\n  {shlex.join(command)}")
        with open(self.out / name / "log.txt", "a") as log:
            code = subprocess.run(command, env=environment(), stdout=log, stderr=log).returncode
        spr = self.out / name / "llava" / "spr"
        if code and must and spr.exists() and not runs.open(spr).pairs:
            raise NoPairs(spr)
        if code and must:
            raise UserError(f"recipes: {name} failed; see {log.name}; the same command goes on")

    # --- data

    def pictures(self, split: str, count: int, seed: int) -> Path:
        wanted = {"split": split, "count": count, "seed": seed}
        return world_data.written(self.out / f"pictures-{split}-{seed}", worlds.write_pictures_of, wanted)

    def cold_data(self, worked: int) -> Path:
        wanted = {
            "recipe": self.recipe,
            "pictures": str(self.pictures("sft", settings.SCENES["sft"], 0)),
            "split": "sft",
            "section": self.studied.section,
            "worked": worked,
            "talks": settings.CONVERSATIONS,
            "seed": 0,
        }
        return world_data.written(self.out / f"{self.recipe}-data-{worked}", worlds.write_cold_start, wanted)

    def questions(self, split: str) -> Path:
        """The recipe's questions about a split's scenes, and SPR's own."""
        count, seed = settings.SCENES_ASKED[split], settings.ASKED_SEED
        pictures = self.pictures(split, count, seed)
        folder = world_data.written(
            self.out / f"own-{split}", worlds.scenes.write_evaluation, {"split": split, **settings.OWN}
        )
        if not (folder / self.recipe / "val.jsonl").exists():
            (self.out / "settings").mkdir(exist_ok=True)
            config, images = worlds.config_of(
                self.recipe,
                pictures,
                split,
                self.studied.section,
                self.out / "settings",
                spr_regions=settings.QUESTIONS[split],
                spr_seed=seed,
            )
            say(f"recipes: {write_evaluation(config, str(images), str(folder))}")
        return folder

    def blind(self, split: str) -> dict[str, float]:
        """Kind → share of right answers of who says the same to all, the best of such answers."""
        true: dict = {}
        for _, row in read_json_lines(self.questions(split) / self.recipe / "val.jsonl", "questions"):
            true.setdefault(row["kind"], []).append(row["answer"])
        return {kind: most(answers) for kind, answers in sorted(true.items())}

    # --- measuring

    def result(self, what: dict, split: str, model, own: bool = False) -> None:
        """Measure a model unless its file holds what was found."""
        manifest = {**what, "split": split, "asked": {"questions": settings.QUESTIONS[split]}}
        manifest["asked"] |= {"scenes": settings.SCENES_ASKED[split], "own": settings.OWN if own else None}
        file = self.results / kept.file_name(manifest)
        if result_files.found(file, manifest):
            return
        start = time.monotonic()
        try:
            checkpoint = model()
        except NoPairs as error:
            result_files.write_result(file, {**manifest, **stage_facts(error.args[0])}, {})
            return
        facts = stage_facts(checkpoint / "spr") if (checkpoint / "spr").exists() else {}
        folder = self.out / "eval" / file.stem / split
        records = self.measured(checkpoint, f"spr_{self.recipe}", folder / "recipe", split)
        samples = {name: kept.packed(sampled(of_task)) for name, of_task in records.items()}
        (of_recipe,) = records.values()
        facts |= {"commonest": commonest(self.recipe, of_recipe), "blind": self.blind(split)}
        if own:
            asked = self.measured(checkpoint, OWN, folder / "own", split)
            samples |= {name: result_files.condensed(sampled(of_task)) for name, of_task in asked.items()}
        seconds = round(time.monotonic() - start)
        result_files.write_result(file, {**manifest, **facts, "seconds": seconds}, samples)

    def measured(self, checkpoint: Path, task: str, folder: Path, split: str) -> dict:
        """Task → document's id → its record."""
        say(f"recipes: lmms-eval --tasks {task} on {checkpoint}")
        evaluate(checkpoint, self.questions(split), folder, tasks=task, device="cpu")
        return read_run(folder).tasks


def sampled(records: Mapping) -> list[Mapping]:
    """What our tasks say of each document."""
    return [record[DETAILS] for record in records.values()]


def commonest(recipe: str, records: Mapping) -> dict[str, float]:
    """Kind → share of the answer that is given most often: a model that cannot tell says the same to all."""
    made, said = recipe_of(recipe, "llava:pad"), {}
    for record in records.values():
        kind = kept.kind_of(record[DETAILS])
        word = made.answer_in(spoken(record)[1] or "") or ""
        said.setdefault(kind, []).append(word)
    return {kind: most(answers) for kind, answers in sorted(said.items())}


def most(answers: list[str]) -> float:
    """Share of the commonest one, by its letter where it has one."""
    counts = Counter(answer.split(" ")[0] for answer in answers)
    return round(max(counts.values()) / counts.total(), 3)


def stage_facts(spr: Path) -> dict:
    """What the stage worked with: its funnel, how many answers it was given, mean terms of each group."""
    run = runs.open(spr)
    shown = summary(run)
    paired = {pair.query for pair in run.pairs}
    skipped = {id: one["skip"] for id, one in run.records("pairs").items() if "skip" in one}
    by_kind: dict = {}
    for query in run.queries.values():
        kind = by_kind.setdefault(query.task, {})
        why = "pair" if query.id in paired else skipped.get(query.id, "none")
        kind[why] = kind.get(why, 0) + 1
    counts = {step["name"]: step["count"] for step in shown["funnel"]}
    return {
        "counts": counts,
        "answers": len(run.records("candidates")),
        "by kind": by_kind,
        "terms": shown["terms"],
    }


def words(text: str) -> str:
    return " ".join(text.split())


def embedded(out: Path, results: Path) -> None:
    """SPR's own questions put to the model that all cold starts begin from."""
    study = Study(next(iter(settings.RECIPES)), out, results)
    manifest = {"variant": kept.EMBEDDED, "split": "test", "asked": {"own": settings.OWN}}
    file = results / kept.file_name(manifest)
    if not result_files.found(file, manifest):
        folder = out / "eval" / file.stem
        asked = study.measured(WORLD / "llava", OWN, folder, "test")
        samples = {name: result_files.condensed(sampled(of_task)) for name, of_task in asked.items()}
        result_files.write_result(file, manifest, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", nargs="?", default="full", choices=("tune", "full"))
    parser.add_argument("--recipes", nargs="+", default=list(settings.RECIPES), choices=settings.RECIPES)
    parser.add_argument("--out", type=Path, default=Path("recipes"), help="folder of data and checkpoints")
    arguments = parser.parse_args()
    try:
        for recipe in arguments.recipes:
            getattr(Study(recipe, arguments.out), arguments.plan)()
        if arguments.plan == "full":
            embedded(arguments.out, report.RESULTS)
        report.write()
    except UserError as error:
        print(f"spr: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
