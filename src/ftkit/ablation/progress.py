"""Describe the progress of a sweep: its events, and a summary of its runs at the end."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ftkit.ablation.folder import Run
from ftkit.errors import ExitCode


@dataclass(frozen=True)
class Event:
    """An event of a sweep, for progress displays."""

    # plan and end frame the sweep, stopped ends it early; reused, start, done, pruned, skipped and failed are about a
    # run; notice is a remark.
    kind: Literal["plan", "reused", "start", "done", "pruned", "skipped", "failed", "notice", "stopped", "end"]
    message: str = ""  # the remark, the reason, or the figure
    run: Run | None = None  # the run, if the event is about one
    index: int = 0  # the runs that are behind us
    total: int = 0  # the runs of the sweep
    seconds: float = 0.0  # how long the run took


@dataclass
class Summary:
    """The status of the runs that were asked for; of pruned, skipped and failed ones with reasons."""

    directory: Path
    done: list[Run] = field(default_factory=list)
    reused: list[Run] = field(default_factory=list)
    pruned: dict[Run, str] = field(default_factory=dict)  # stopped early
    skipped: dict[Run, str] = field(default_factory=dict)
    failed: dict[Run, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Return how many runs there are."""
        return sum(map(len, (self.done, self.reused, self.pruned, self.skipped, self.failed)))

    def fail(self, run: Run, reason: str) -> None:
        """Count a run that was stopped early, now or before, as failed."""
        self.reused = [one for one in self.reused if one != run]
        self.pruned.pop(run, None)
        self.failed[run] = reason

    @property
    def exit_code(self) -> ExitCode:
        """Return 4 if a run failed, 3 if all runs were skipped, else 0."""
        if self.failed:
            return ExitCode.TRAINING
        if self.skipped and not self.done and not self.reused:
            return ExitCode.ENVIRONMENT
        return ExitCode.DONE
