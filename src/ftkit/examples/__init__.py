"""Training examples of text and image-text models: reading them, and which of their tokens are learnt."""
