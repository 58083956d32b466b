"""The method as the paper words it, in flags: for tests of one part of it."""

PAPER = {
    "spr_greedy": False,
    "spr_repair": "coordinates",
    "spr_match": "iou",
    "spr_reject_vague": False,
    "spr_add_missed": False,
}
