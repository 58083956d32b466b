class DPOTrainer:
    """Never used here, always imported."""
