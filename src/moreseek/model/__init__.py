"""One transformer for two families: DeepSeek-V3 (MLA, MoE, MTP) and dense Llama / Qwen."""
