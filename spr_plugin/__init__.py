"""SPR (Spatial Preference Rewarding, ICCV 2025) for the multimodal-LLM trainer you already have."""
