"""One template, Vicuna's, with Ferret's opening words; the script sets ``default_conversation``."""

from types import SimpleNamespace

SYSTEM = "A chat between a human and an AI that understands visuals. In images, [x, y] denotes points: top [0, 0], bottom [1000, 1000]."
conv_templates = {name: SimpleNamespace(version=name, system=SYSTEM, roles=("USER", "ASSISTANT"), sep=" ", sep2="</s>") for name in ("v1", "ferret_v1")}
default_conversation = conv_templates["ferret_v1"]


def rounds(turns: list) -> list:
    """``(asked, said)`` pieces of text in their order; the first begins with the system's words."""
    conv = default_conversation
    pieces, opening = [], conv.system + conv.sep
    for human, machine in zip(turns[::2], turns[1::2]):
        pieces.append((f"{opening}{conv.roles[0]}: {human['value']}{conv.sep}{conv.roles[1]}: ", machine["value"] + conv.sep2))
        opening = ""
    return pieces
