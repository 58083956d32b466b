"""Is the model still answering? A look at a few held-out queries during training.

DPO can push the log-probs of chosen down and make descriptions lose their boxes while loss and preference
accuracy look fine. So every few steps the live model answers some queries that it does not train on,
greedily, and the recipe measures what it writes.
"""

from pathlib import Path

from spr_plugin.config.dpo import DPOFlags
from spr_plugin.data.pictures import read_all
from spr_plugin.errors import UserError
from spr_plugin.files import read_json, write_json
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.sampling.decoding import decode
from spr_plugin.training import ranks, weights
from spr_plugin.training.engine import generating
from spr_plugin.training.host import Host

Values = dict[str, float]  # what the recipe measures, by name


def number_held_out(queries: int, wanted: int) -> int:
    """How many of so many queries are watched: ``wanted``, at most a tenth."""
    return min(wanted, queries // 10)


def held_out(queries: list[Query], wanted: int, recipe: Recipe) -> list[Query]:
    """Queries to watch, and not to train on: ``wanted``, at most a tenth of all, by the lowest ids, which are
    hashes; where several recipes ask, of each as many as its share of the queries.
    """
    each: dict[str, list[Query]] = {}
    for query in sorted(queries, key=lambda query: query.id):
        each.setdefault(recipe.of(query).name, []).append(query)
    number = number_held_out(len(queries), wanted)
    # By how far into its own recipe's queries each stands.
    by_share = ((index / len(own), query) for own in each.values() for index, query in enumerate(own))
    first = sorted(by_share, key=lambda pair: (pair[0], pair[1].id))[:number]
    return sorted((query for _, query in first), key=lambda query: query.id)


def greedy(host: Host, recipe: Recipe, queries: list[Query], batch: int, max_new_tokens: int) -> list[str]:
    """The live model's greedy answers, the ranks taking turns. Under ZeRO-3 each layer is gathered for its
    turn by the engine's hooks, so all ranks decode every batch, token by token together.
    """
    batches = [queries[i : i + batch] for i in range(0, len(queries), batch)]
    answers = []
    with generating(host) as in_step:
        for turn in range(len(batches)) if in_step else range(ranks.rank(), len(batches), ranks.world()):
            asked = [
                (index, row)
                for index, query in enumerate(batches[turn])
                for row in _question(host, recipe, query)
            ]
            tokens = (
                decode(host, [row for _, row in asked], [[0]] * len(asked), None, max_new_tokens)
                if asked
                else []
            )
            texts = dict(zip((index for index, _ in asked), host.texts([answer for (answer,) in tokens])))
            answers += [(turn, index, texts.get(index, "")) for index in range(len(batches[turn]))]
    # (turn, index) leads each answer: sorting puts the ranks' shares back in the queries' order.
    everyone = answers if in_step else sorted(answer for rank in ranks.from_all(answers) for answer in rank)
    return [text for _, _, text in everyone]


def _question(host: Host, recipe: Recipe, query: Query) -> list[dict]:
    """The one row of a query, none where a picture of it is broken: no answer, before and after."""
    pictures = read_all(query.pictures)
    return host.questions(pictures, [recipe.question(query)]) if pictures else []


class Watch:
    """What one stage sees, and the weights of the best step in ``directory/best``.

    Attributes:
        seen: step → what was measured after it, by an earlier process too; what that left torn or damaged is
            looked at again.
        texts: the answers of the last look.
    """

    def __init__(
        self,
        host: Host,
        recipe: Recipe,
        queries: list[Query],
        config: DPOFlags,
        directory: Path,
        seen: dict[int, Values],
    ):
        self.host, self.recipe, self.queries, self.config = host, recipe, queries, config
        self.directory, self.seen = directory, dict(seen)
        self.texts: list[str] = []

    def forget_after(self, step: int) -> None:
        """A run that goes on from ``step`` sees the later steps again."""
        self.seen = {at: values for at, values in self.seen.items() if at <= step}

    def probe(self, step: int) -> Values:
        """Probe now, and keep the weights where they are the best so far."""
        if not self.queries:
            return {}
        size, length = self.config.spr_sample_batch, self.config.spr_max_new_tokens
        self.texts = greedy(self.host, self.recipe, self.queries, size, length)
        values = self.seen[step] = self.recipe.measure(self.texts, self.queries)
        best = self.recipe.BEST
        # Step 0 is the entry: its weights are none of the stage's.
        highest = max((values[best] for at, values in self.seen.items() if at), default=0.0)
        if step and self.config.spr_keep_best and not self.collapsed() and values[best] >= highest:
            model = self.host.trainer.model
            weights.save(model, weights.trainable(model), self.directory / "best")
            if ranks.rank() == 0:
                write_json(self.directory / "best.json", {"step": step, best: values[best]})
        return values

    def collapsed(self) -> str | None:
        """What fell below ``--spr_collapse`` of its value at the entry."""
        if 0 not in self.seen:
            return None
        before, now = self.seen[0], self.seen[max(self.seen)]
        # What was near 0 at the entry cannot tell a fall from chance.
        told = [name for name, least in self.recipe.watched(self.queries).items() if before[name] >= least]
        fallen = [name for name in told if now[name] < self.config.spr_collapse * before[name]]
        return ", ".join(f"{name} {before[name]:.2f} → {now[name]:.2f}" for name in fallen) or None

    def restore_best(self) -> int | None:
        """Load the best probed state; its step, or None where there is none or it is the live one."""
        best = ranks.from_rank_0(lambda: read_json(self.directory / "best.json"))
        if not self.config.spr_keep_best or best is None or best["step"] == max(self.seen):
            return None
        weights.load(self.host.trainer.model, self.directory / "best")
        return best["step"]


def refuse_collapse(what: str, step: int) -> None:
    raise UserError(
        f"the model stops answering at step {step} of the DPO stage ({what} on held-out queries), and no"
        " earlier state was kept: lower --spr_learning_rate, give sft more weight (--spr_loss_type,"
        " --spr_loss_weights), or take --spr_keep_best True"
    )
