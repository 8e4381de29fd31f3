"""Pretrained generative models as the wings share them: loading, adapters, losses, greedy answers, and their facts."""
