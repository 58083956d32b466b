"""Actial (arXiv 2511.01618): which way did the camera move or turn between two pictures? Exact match."""
