"""An OpenAI-compatible API over the engine."""
