"""LLaVA-NeXT brings a TRL of 2024 at its root, where it hides the installed one."""

__version__ = "0.7.11.dev0"
