"""Spatial-SSRL (arXiv 2510.27606): five tasks made of a picture's own pixels or depth, and exact match."""
