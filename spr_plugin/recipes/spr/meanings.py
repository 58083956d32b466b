"""What SPR's terms and reasons mean, for whoever looks at a run; the formulas are
:mod:`spr_plugin.recipes.spr.scoring`'s.
"""

MEANINGS = {
    "s_crop": "CLIP's cosine of the region, cut out, and the words without coordinates.",
    "s_local": "The same for the region's part of the whole picture's features.",
    "s_sem": "Mean of s_crop and s_local (s_crop alone with --spr_no_local): do the words fit the region?",
    "s_loc": "For each true box its best IoU with a box of the answer, 0 below 0.5, and the mean of these.",
    "kept": "Share of the boxes written that repair kept.",
    "added": "How many objects that the answer missed were added, with --spr_add_missed.",
    "missed": "How many objects of the region it still misses: no answer names them, or no place was clean.",
    "S": "λ · s_sem + (1 − λ) · s_loc, with the λ of --spr_lambda; higher is better.",
    "empty": "No word is left of the answer without its coordinates.",
    "no_box": "The answer gives no box.",
    "not_finite": "The scorer gave a number that is none.",
    "no_box_survived": "Repair left no box: none matches a true one, by an IoU over 0.5.",
    "too_few_boxes_kept": "Repair kept a smaller share of the boxes than --spr_min_kept: words lost theirs.",
    "cannot_cut": "With --spr_repair item a lost box's words could not be cut out of their sentence; of"
    " languages other than English most cannot, and --spr_repair coordinates lets them stay.",
}
