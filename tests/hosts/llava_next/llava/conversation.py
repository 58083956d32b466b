from types import SimpleNamespace

conv_templates = {"qwen_1_5": SimpleNamespace(version="qwen", roles=("<|im_start|>user", "<|im_start|>assistant"))}
default_conversation = conv_templates["qwen_1_5"]
