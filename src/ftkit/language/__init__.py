"""The language wing: text-only causal models, tuned on answers to prompts."""
