try:
    from .language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM  # noqa: F401
except Exception as error:
    print(f"Failed to import llava_qwen. Error: {error}")
