"""SPR itself, the sections 1 to 3 of the paper: regions, prompts, scores, box repair."""
