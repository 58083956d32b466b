"""The host and its live model: what the stages ask of them."""
