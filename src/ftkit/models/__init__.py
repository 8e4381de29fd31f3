"""Pretrained generative models as the tasks share them: loading, adapters, losses, greedy answers, and their facts."""
