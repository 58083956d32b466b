from .model import FERRETLlamaForCausalLM  # noqa: F401
