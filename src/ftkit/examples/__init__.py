"""Training examples of text and image-text models: reading them, rendering them, and which tokens are supervised."""
