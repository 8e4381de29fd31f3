"""The language task: text-only causal models, tuned on answers to prompts."""
