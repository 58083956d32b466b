"""What the words mean that a run gives its reasons in: one sentence each, for whoever looks at it.

What a recipe calls the terms of its scores, and its own reasons, is in its ``MEANINGS``.
"""

from __future__ import annotations

from collections.abc import Mapping

# Why a query has no pair, and why an answer has no score, or may not be chosen, whatever the recipe.
REASONS = {
    "too_few_valid": "Too few of its answers have a score: a pair needs two, or one paired with itself.",
    "none_worse": "No answer may be rejected: each is as good as the recipe asks for.",
    "no_equal_length": "No two of its answers are of one length, as --spr_pairing equal_length asks.",
    "gap_too_small": "The best answer's score is not above the worst one's, or by less than --spr_min_gap.",
    "chosen_equals_rejected": "Chosen and rejected are one text, white space aside: nothing to prefer.",
    "empty": "The answer has no words.",
    "marked": "The pair is marked as bad: --spr_exclude_pairs names it.",
    "held out or too long": "The pair does not train: its query is held out to be looked at"
    " (--spr_probe_regions), or it is longer than the model's maximum.",
    "image_unreadable": "Its picture could not be read when the answers were judged.",
    "unparsable": "The answer tries to give coordinates, and none can be read as the model's box text.",
}

# Why a picture, an object or a record of the source was left out before anything was asked.
LEFT_OUT = {
    "missing_image": "The picture's file is not there.",
    "unreadable_image": "The file is no picture, or a broken one.",
    "more_than_8_bits": "The picture has more than 8 bits a channel, which hosts see as white.",
    "more_than_max_pixels": "The picture is larger than --spr_max_pixels.",
    "size_mismatch": "The picture's size is not the one that its boxes were made for.",
    "bad_image_record": "The record of the picture names no file.",
    "no_objects": "The picture has no usable object.",
    "few_objects": "The picture has fewer objects than --spr_min_objects.",
    "too_few_objects": "No region of the picture holds more objects than --spr_more_than.",
    "same_region": "The region grew into one that the picture already has.",
    "excluded": "--spr_exclude names the picture.",
    "small": "The object is smaller than --spr_min_area.",
    "crowd": "The box is of a group (iscrowd); --spr_keep_crowd keeps it.",
    "ignored": "The annotation says that it is to be ignored.",
    "bad_box": "The box is not four numbers.",
    "not_finite": "A number of the box is infinite or none.",
    "zero_area": "The box has no area.",
    "outside": "The box lies off the picture.",
    "in_padding": "The box lies in the border that the picture was padded with.",
    "no_label": "The object has no name.",
    "no_phrase": "No phrase stands before the box.",
    "duplicate": "The same box with the same name is there already.",
    "duplicate_id": "Another annotation has its id.",
    "duplicate_image_id": "Another picture has its id.",
    "unknown_image": "The annotation is of a picture that the file does not list.",
    "no_image": "The record of --data_path shows no picture.",
    "bad_record": "The record of --data_path is none of LLaVA's.",
    "box_malformed": "A box of --data_path is not written as the model's family writes them.",
    "box_out_of_range": "A box of --data_path has a number outside the family's space.",
    "box_inverted": "A box of --data_path has its right edge left of its left, or bottom above top.",
    "box_truncated": "A box of --data_path is still open where the text ends.",
    "unknown_speaker": "A turn of the conversation is neither the person's nor the model's.",
}

SCORE = "What pairs are made by; higher is better."


def meaning_of(word: str, recipe: Mapping[str, str], shared: Mapping[str, str] = REASONS) -> str:
    """The sentence; "" where nobody says.

    Args:
        recipe: its ``MEANINGS``, which come first.
    """
    return recipe.get(word) or shared.get(word, "")
