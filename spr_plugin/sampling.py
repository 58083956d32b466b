"""Stage 1, second half: the live model answers every region query several times.

The batch plan is made from all queries in canonical order and each batch is seeded by what it holds, so that a run that died gives
the same answers when it goes on (same plan, machine and dtype), on any number of ranks.
"""

import contextlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from spr_plugin import ranks, weights
from spr_plugin.annotations import open_image
from spr_plugin.config import SPRConfig, digest
from spr_plugin.errors import UserError
from spr_plugin.host import Host
from spr_plugin.progress import progress
from spr_plugin.prompts import Prompt, prompts_for, restate
from spr_plugin.regions import RegionQuery
from spr_plugin.store import Log


@dataclass(frozen=True)
class Candidate:
    """One answer of the model to one region query.

    ``raw`` is what the model said to the prompt of ``kind``; ``text`` is the same with boxes in full-image coordinates (the plain
    query's). ``index`` numbers the samples of one prompt.
    """

    id: str
    region: str
    kind: str
    index: int
    raw: str
    text: str


def batch_plan(queries: list[RegionQuery], box_format, config: SPRConfig) -> list[list[tuple[RegionQuery, Prompt]]]:
    """All prompts of all queries in batches of one prompt kind, in an order that depends on nothing but the queries."""
    batches = []
    for kind in config.spr_prompts:
        asked = [(query, prompt) for query in queries for prompt in prompts_for(query, box_format, [kind])]
        batches += [asked[i : i + config.spr_sample_batch] for i in range(0, len(asked), config.spr_sample_batch)]
    return batches


def candidate_ids(query: RegionQuery, prompt: Prompt, samples: int) -> list[str]:
    return [digest([query.id, prompt.kind, index]) for index in range(samples)]


def sample(host: Host, queries: list[RegionQuery], config: SPRConfig, log: Log) -> None:
    """Fill ``log`` with a Candidate record for each (query, prompt, sample); what it already holds is not asked again."""
    held = ranks.agreed(lambda: set(log.read()))
    plan = batch_plan(queries, host.box_format, config)
    wanted = [batch for batch in plan if not held >= _ids_of(batch, config)]
    if not wanted:
        return
    left_out = {"n": 0}
    with generating(host):
        turns = ranks.rounds(wanted)
        bar = progress(turns, len(turns), "sampling", lambda: f"skipped {left_out['n']}", show=ranks.rank() == 0)
        for batch, mine in bar:
            records = answer_batch(host, batch, config)
            if mine:
                log.append(*records)
                left_out["n"] += len(batch) * config.spr_samples - len(records)
    ranks.barrier()


def _ids_of(batch, config) -> set[str]:
    return {id for query, prompt in batch for id in candidate_ids(query, prompt, config.spr_samples)}


def answer_batch(host: Host, batch: list[tuple[RegionQuery, Prompt]], config: SPRConfig) -> list[dict]:
    """Candidate records of one batch. A picture that cannot be opened gives records without text, so it is counted, not asked again."""
    torch.manual_seed(int(digest([config.spr_seed, sorted(_ids_of(batch, config))]), 16) % 2**63)
    with tempfile.TemporaryDirectory() as crops:
        pictures = [_picture(query, prompt, crops) for query, prompt in batch]
        shown = [(path, prompt.text) for path, (_, prompt) in zip(pictures, batch) if path]
        answers = iter(_ask(host, shown, config) if shown else ())
    records = []
    for path, (query, prompt) in zip(pictures, batch):
        for index, id in enumerate(candidate_ids(query, prompt, config.spr_samples)):
            raw = next(answers) if path else ""
            text = restate(raw, prompt, query, host.box_format)
            records.append(asdict(Candidate(id, query.id, prompt.kind, index, raw, text)))
    return records


def _ask(host, shown, config):
    return host.generate(
        shown,
        num_return_sequences=config.spr_samples,
        do_sample=True,
        temperature=config.spr_temperature,
        top_p=config.spr_top_p,
        top_k=0,
        max_new_tokens=config.spr_max_new_tokens,
    )


def _picture(query: RegionQuery, prompt: Prompt, folder: str) -> str | None:
    """Path of the picture that the prompt shows: the image itself, or its crop written to ``folder``; None if it cannot be opened."""
    try:
        image = open_image(query.image.path, query.image.id)
    except UserError:
        return None
    if prompt.crop is None:
        return query.image.path
    path = Path(folder) / f"{query.id}.png"
    image.crop(prompt.crop).save(path)
    return str(path)


@contextlib.contextmanager
def generating(host: Host):
    """The live model ready to answer: on its device, in eval mode, whole under ZeRO-3, under the host's autocast, without gradients."""
    trainer = host.trainer
    model = trainer.model
    was_training = model.training
    model.eval()
    with torch.no_grad(), weights.gathered(model.parameters()), trainer.compute_loss_context_manager():
        yield
    model.train(was_training)
