"""What Spatial-SSRL's words mean, for whoever looks at a run."""

from spr_plugin.recipes.by_text import MEANINGS as RIGHT_OR_WRONG

MEANINGS = {
    **RIGHT_OR_WRONG,
    "exact": "Whether the box holds the right answer, letter by letter; `partial`: the share of its places.",
    "format": "Whether the answer reasons between <think> and </think> first, and boxes its answer then.",
    "S": "0.9 · exact + 0.1 · format; higher is better.",
    "small_picture": "A side of the picture has fewer than 32 pixels.",
    "hardly_changed": "The patches of the picture are too much alike for the question.",
    "no_three_depths": "No three regions were found whose depths lie apart.",
    "no_clear_position": "No two regions were found of which one surely lies beside or before the other.",
    "missing_depth": "No file of the picture's depth is there.",
    "unreadable_depth": "The file of the picture's depth cannot be read.",
    "depth_of_another_size": "The picture's depth has another size than the picture.",
    "png_not_of_16_bits": "The PNG of that name in the folder of depths has not 16 bits: it is no depth.",
    "ordinal_depth": "MegaDepth knows of this picture only what lies before what.",
    "flat_depth": "All of the picture is equally far away, or nothing of its depth is known.",
    "answer_does_not_hold": "A slip of ours: the answer, applied, does not restore the picture.",
}
