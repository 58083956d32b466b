from .model import LlavaQwenForCausalLM  # noqa: F401
