"""No refinement with refinement's filter, as a plugin: answers stay as they are, and those that the repair of
--spr_repair would have kept from being chosen (--spr_min_kept) are not chosen all the same.

--spr_plugin examples/tiny_world/reproduce/unrepaired.py
"""

import functools

from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.spr import refinement


def unrepaired(repair, text, truth, box_format, width, height, parsed, **names):
    """What `repair` says of an answer, with the answer's own text."""
    done = repair(text, truth, box_format, width, height, parsed, **names)
    return done._replace(text=text, parsed=parsed)


@hookimpl
def spr_repair(config):
    repair = refinement.spr_repair(config)
    return repair and functools.partial(unrepaired, repair)
