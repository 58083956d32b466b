"""A plugin for the hosts' tests: at the end of the stage, log-probs of its pairs by the live model go to
``OUTPUT_DIR/spr/live_log_probs.json``.
"""

from dataclasses import asdict

from spr_plugin import follow
from spr_plugin.dpo.pairs import batch_of
from spr_plugin.dpo.rows import answers
from spr_plugin.files import write_json
from spr_plugin.hookspecs import hookimpl
from spr_plugin.pairing import PreferencePair
from spr_plugin.training import ranks
from spr_plugin.training.engine import generating

PAIRS = 3


def log_probs(host, pairs: list[PreferencePair]) -> list[list[list[float]]]:
    """For each pair the log-probs of its tokens, chosen and rejected, by the stage's own code."""
    inputs = batch_of(host, pairs)
    both = answers(host, host.trainer.model, inputs["batch"], inputs["unshared"], joined=False)
    rows = [row[scored].tolist() for row, scored in zip(both.token_log_probs, both.scored)]
    return [rows[index :: len(pairs)] for index in range(len(pairs))]


write_exit = follow.write_exit


def write_exit_and_log_probs(run, path):
    write_exit(run, path)
    pairs = [
        PreferencePair.from_record(record)
        for record in run.log("pairs").read().values()
        if "skip" not in record
    ][:PAIRS]
    with generating(run.host):
        live = log_probs(run.host, pairs)
    entry = {
        record["pair"]: [record["chosen"], record["rejected"]]
        for record in run.log("reference").read().values()
    }
    records = [
        {"pair": asdict(pair), "live": both, "entry": entry.get(pair.id)} for pair, both in zip(pairs, live)
    ]
    if ranks.rank() == 0:
        write_json(
            path.with_name("live_log_probs.json"),
            {"tower": str(run.host.llava.get_vision_tower().dtype), "pairs": records},
        )


@hookimpl
def spr_host(trainer, namespace, config):
    """No host of ours: asked for one, a run is under way, and its exit gets the log-probs; to import this
    file changes nothing.
    """
    follow.write_exit = write_exit_and_log_probs
    return None
