"""Is the model still answering? A look at a few held-out regions during training.

DPO can push the log-probs of chosen down and make descriptions lose their boxes while loss and preference accuracy look fine. So every few
steps the live model describes some regions that it does not train on, greedily, and what it writes is measured.
"""

import contextlib
import io
from dataclasses import asdict, dataclass
from pathlib import Path

from spr_plugin import ranks, weights
from spr_plugin.decoding import decode
from spr_plugin.engine import generating
from spr_plugin.errors import UserError
from spr_plugin.files import read_json, write_json
from spr_plugin.host import Host
from spr_plugin.recipes.spr.prompts import prompts_for
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.runs.log import line_of, record_of
from spr_plugin.sampling import readable
from spr_plugin.recipes.spr.scoring import ground_truth, localization_score

ENOUGH = 4  # fewer answers say nothing about a collapse


@dataclass(frozen=True)
class Reading:
    """Means over the probed regions: share of answers with a readable box, boxes an answer, S_loc against the annotations."""

    parsable: float
    boxes: float
    s_loc: float


def held_out(queries: list[RegionQuery], wanted: int) -> list[RegionQuery]:
    """Regions to watch, and not to train on: ``wanted``, at most a tenth of all, by the lowest ids, which are hashes."""
    return sorted(queries, key=lambda query: query.id)[: min(wanted, len(queries) // 10)]


def measure(texts: list[str], queries: list[RegionQuery], box_format) -> Reading:
    """One answer a query."""
    found = [box_format.parse(text, query.image.width, query.image.height).boxes for text, query in zip(texts, queries)]
    scores = [localization_score(ground_truth(query), [box.pixels() for box in boxes]) for boxes, query in zip(found, queries)]
    return Reading(*(sum(values) / len(texts) for values in ([bool(boxes) for boxes in found], [len(boxes) for boxes in found], scores)))


def probe(host: Host, queries: list[RegionQuery], batch: int, max_new_tokens: int) -> Reading:
    """The live model's greedy answers, the ranks taking turns. Under ZeRO-3 each layer is gathered for its turn by the engine's hooks, so
    all ranks decode every batch, token by token together."""
    batches = [queries[i : i + batch] for i in range(0, len(queries), batch)]
    answers = []
    with generating(host) as in_step:
        for turn in range(len(batches)) if in_step else range(ranks.rank(), len(batches), ranks.world()):
            asked = [(place, row) for place, query in enumerate(batches[turn]) for row in _question(host, query)]
            said = decode(host, [row for _, row in asked], [[0]] * len(asked), None, max_new_tokens) if asked else []
            texts = dict(zip((place for place, _ in asked), host.texts([answer for (answer,) in said])))
            answers += [(turn, place, texts.get(place, "")) for place in range(len(batches[turn]))]
    everyone = answers if in_step else sorted(answer for rank in ranks.from_all(answers) for answer in rank)
    return measure([text for _, _, text in everyone], queries, host.box_format)


def _question(host: Host, query: RegionQuery) -> list[dict]:
    """The one row of a region, none where its picture is broken: no answer, before and after."""
    picture = readable(query.image.path, query.image.id)
    return host.questions(picture, [prompts_for(query, host.box_format, ["plain"])[0].text]) if picture else []


class Watch:
    """Readings of one stage in ``directory/probes.jsonl``, and the weights of the best in ``directory/best``."""

    def __init__(self, host: Host, queries: list[RegionQuery], config, directory: Path):
        self.host, self.queries, self.config = host, queries, config
        self.directory = Path(directory)
        self.readings: dict[int, Reading] = {}
        for record in ranks.agreed(self._records):
            step = record.pop("step")  # first: a right-hand side is evaluated before its target
            self.readings[step] = Reading(**record)

    def _records(self) -> list[dict]:
        """Those of an earlier process, as a log's lines, but that the last one of a step counts; what is torn
        or damaged is looked at again."""
        path, records = self.directory / "probes.jsonl", []
        with open(path, "rb") if path.exists() else io.BytesIO() as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    records.append(record_of(line))
        return records

    def forget_after(self, step: int) -> None:
        """A run that goes on from ``step`` sees the later steps again."""
        self.readings = {at: reading for at, reading in self.readings.items() if at <= step}

    def look(self, step: int) -> dict[str, float]:
        """Probe now; the numbers for the log. Raises UserError when the answers have collapsed."""
        if not self.queries:
            return {}
        reading = probe(self.host, self.queries, self.config.spr_sample_batch, self.config.spr_max_new_tokens)
        self.readings[step] = reading
        if ranks.rank() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            with open(self.directory / "probes.jsonl", "ab") as file:
                file.write(line_of({"step": step, **asdict(reading)}))
        if step and self.config.spr_keep_best and not self.collapsed() and reading.s_loc >= self._best_score():
            model = self.host.trainer.model
            weights.save(model, weights.trainable(model), self.directory / "best")
            if ranks.rank() == 0:
                write_json(self.directory / "best.json", {"step": step, "s_loc": reading.s_loc})
        return {f"probe/{name}": value for name, value in asdict(reading).items()}

    def _best_score(self) -> float:
        trained = [reading.s_loc for step, reading in self.readings.items() if step]
        return max(trained)

    def collapsed(self) -> str | None:
        """What fell below ``--spr_collapse`` of its value at the entry."""
        if len(self.queries) < ENOUGH or 0 not in self.readings:
            return None
        before, now = asdict(self.readings[0]), asdict(self.readings[max(self.readings)])
        fallen = [name for name in before if now[name] < self.config.spr_collapse * before[name]]
        return ", ".join(f"{name} {before[name]:.2f} → {now[name]:.2f}" for name in fallen) or None

    def restore_best(self) -> int | None:
        """Load the best probed state; its step, or None where there is none or it is the live one."""
        best = ranks.agreed(lambda: read_json(self.directory / "best.json"))
        if not self.config.spr_keep_best or best is None or best["step"] == max(self.readings):
            return None
        weights.load(self.host.trainer.model, self.directory / "best")
        return best["step"]


def refuse_collapse(what: str, step: int) -> None:
    raise UserError(
        f"the model stops answering at step {step} of the DPO stage ({what} on held-out regions), and no earlier state was kept: lower "
        "--spr_learning_rate, give sft more weight (--spr_loss_type, --spr_loss_weights), or take --spr_keep_best True"
    )
