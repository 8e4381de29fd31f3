"""Comparisons: a folder of configs becomes a table one can trust."""

from ftkit.ablation.executor import Engine
from ftkit.ablation.folder import Ablation, Cell, Row
from ftkit.ablation.runner import Event, Summary, run
from ftkit.ablation.sweep import Sweep, read_sweep

__all__ = ["Ablation", "Cell", "Engine", "Event", "Row", "Summary", "Sweep", "read_sweep", "run"]
