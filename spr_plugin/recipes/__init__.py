"""What is asked about pictures and what a good answer is, one folder or file a recipe."""
