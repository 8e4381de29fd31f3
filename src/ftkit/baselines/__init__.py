"""Baselines: classifiers that need no gradient, run and reported like every other variant."""
