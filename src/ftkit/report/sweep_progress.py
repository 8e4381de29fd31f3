"""Show a sweep: a bar for the sweep and one for the running row, or plain lines when there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ftkit.ablation.progress import Event

_STYLES = {
    "done": "green",
    "pruned": "dim",
    "skipped": "yellow",
    "failed": "bold red",
    "notice": "cyan",
    "reused": "dim",
    "stopped": "yellow",
}


class SweepProgress:
    r"""Takes the runner's events, and the steps of the running row if the engine tells them.

    Args:
        console: Where to show it; standard error by default. Without a terminal each event becomes a line.

    Example:
        >>> import io
        >>> console = Console(file=io.StringIO())
        >>> with SweepProgress(console) as progress:
        ...     progress(Event("notice", "hello"))
        >>> console.file.getvalue()
        'notice   hello\n'
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._sweep = self._bars.add_task("sweep", total=None)
        self._done = self._made = self._total = 0
        self._began = 0.0  # the first run that is made
        self._row = self._bars.add_task("row", total=None, visible=False)

    def __enter__(self) -> SweepProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if error is not None and not isinstance(error, Exception):  # by Ctrl-C or a termination
            self._line(Event("stopped", f"{self._done} of {self._total} runs are done; run the same command to go on"))

    def __call__(self, event: Event) -> None:
        """Show what the runner did."""
        self._total = event.total or self._total
        self._done += event.kind in ("done", "pruned", "reused")
        self._made += event.kind in ("done", "pruned", "failed")
        if event.kind == "plan":
            self._bars.update(self._sweep, total=event.total)
            self._bars.update(self._row, description="checking the configs", visible=True)
        elif event.kind == "start":
            self._began = self._began or time.monotonic()
            self._bars.reset(self._row, description=f"{event.run}", total=None, visible=True)
            if not self.console.is_terminal:
                self._line(event)
        elif event.kind == "end":
            self._bars.update(self._row, visible=False)
        else:
            self._line(event)
        if event.kind in ("reused", "done", "pruned", "skipped", "failed"):
            self._bars.update(self._sweep, completed=event.index, description=f"sweep{self._left(event)}")

    def step(self, completed: int, total: int) -> None:
        """Show how far the running row is, in training steps."""
        self._bars.update(self._row, completed=completed, total=total)

    def _left(self, event: Event) -> str:
        """Return the time left, if the runs to come take as long as those that were made; empty before the first."""
        if not self._made or event.index == event.total:
            return ""
        seconds = (time.monotonic() - self._began) / self._made * (event.total - event.index)
        units = ((3600, "h", 1), (60, "min", 0), (1, "s", 0))
        size, unit, digits = next(one for one in units if seconds >= 1.5 * one[0] or one[0] == 1)
        return f", about {max(seconds, 1) / size:.{digits}f} {unit} left"

    def _line(self, event: Event) -> None:
        place = f"[{event.index:>{len(str(event.total))}}/{event.total}] " if event.total else ""
        run = f"{event.run}" if event.run and event.kind != "notice" else ""
        took = f" in {event.seconds:.1f} s{self._left(event)}" if event.seconds else ""
        message = f"{run}{': ' if run and event.message else ''}{event.message}{took}"
        style = _STYLES.get(event.kind, "default")
        self.console.print(f"[{style}]{event.kind:<8}[/] {escape(place + message)}", highlight=False, soft_wrap=True)
