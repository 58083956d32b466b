"""The model's answers: the plan of batches, the live model or a server, candidates of an earlier run."""
