"""Comparisons: a folder of configs becomes a table one can trust."""
