"""A decoder (GPT-2 first) as a text classifier."""
