"""What SpatialThinker's words mean, for whoever looks at a run."""

MEANINGS = {
    "format": "Whether the answer observes, draws the scene, thinks and answers, in this order.",
    "count": "How near the number of its objects and of its relations is to the true graph's.",
    "answer": "Whether its answer is the right option.",
    "scene": "How well its boxes and names fit the true graph's, of a right answer alone.",
    "S": "0.1 · format + 0.2 · count + 0.5 · answer + 0.2 · scene of a right answer; higher is better.",
    "wrong_answer": "The answer is wrong, and `right_only` lets right ones alone be chosen.",
    "no_box_survived": "No box of the answer's scene fits one of the true graph.",
    "too_few_boxes_kept": "The repaired scene keeps less than --spr_min_kept of its objects.",
    "bad_graph": "The record of the picture's graph is none.",
    "bad_object": "The object has no id, or no box of four numbers.",
    "bad_relation": "The relation names no two objects, or is not in words.",
    "unknown_id": "The relation is of an object that the graph does not list.",
    "bad_row": "The row has no question, options, answer or scene.",
    "no_question": "The picture's graph is too plain for any of the questions.",
}
