from .ferret_llama import FERRETConfig, FERRETLlamaForCausalLM  # noqa: F401
