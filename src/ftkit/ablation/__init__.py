"""Comparisons: a folder of configs becomes a table one can trust."""

from ftkit.ablation.executor import Engine
from ftkit.ablation.folder import Ablation, Row, Run
from ftkit.ablation.runner import Event, Summary, run
from ftkit.ablation.sweep import Sweep, read_sweep

__all__ = ["Ablation", "Engine", "Event", "Row", "Run", "Summary", "Sweep", "read_sweep", "run"]
