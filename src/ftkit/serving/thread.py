"""The one thread that runs the model, and the bounded queue before it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ftkit.errors import EnvironmentFault, InputError
from ftkit.serving.jobs import Job

log = logging.getLogger("ftkit.serving")


class Engine(Protocol):
    """A model as the thread drives it."""

    @property
    def jobs(self) -> Sequence[Job]:
        """The jobs in work."""

    @property
    def room(self) -> int:
        """How many more jobs it takes now."""

    def admit(self, jobs: Any) -> None:
        """Take new jobs."""

    def step(self) -> None:
        """Do a part of the work and deliver what is ready; must not take long."""


class QueueFull(EnvironmentFault):
    """So many requests wait that another would wait too long."""


class ModelDied(EnvironmentFault):
    """The model's thread ended by an error; the server has to be started again."""


class ModelThread:
    """Runs an engine in a thread of its own.

    Args:
        engine: The model.
        max_waiting: The most jobs that wait for their turn.
    """

    def __init__(self, engine: Engine, max_waiting: int) -> None:
        self.engine, self.max_waiting = engine, max_waiting
        self.error: str | None = None
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether jobs get done."""
        return self._thread.is_alive() and self.error is None

    @property
    def running(self) -> int:
        """Number of jobs in work."""
        return len(self.engine.jobs)

    @property
    def waiting(self) -> int:
        """Number of jobs that wait for their turn."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs, all or none.

        Raises:
            InputError: They are more than ever may wait.
            QueueFull: Too many jobs wait.
            ModelDied: The thread has ended.
        """
        with self._changed:
            if not self.alive:
                raise ModelDied(f"the model's thread has ended ({self.error})", fix="start the server again")
            if len(jobs) > self.max_waiting:
                problem = f"{len(jobs)} answers were asked for at once, and no more than {self.max_waiting} may wait"
                raise InputError(problem, fix="ask for fewer in one request")
            for job in [job for job in self._waiting if job.cancelled]:
                self._waiting.remove(job)
            if len(self._waiting) + len(jobs) > self.max_waiting:
                raise QueueFull(f"{len(self._waiting)} requests wait, {self.max_waiting} may", fix="try again soon")
            self._waiting.extend(jobs)
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Let the thread end: what nobody wants any more is dropped, what is still wanted is finished in time.

        Args:
            seconds: How long to wait. A thread that hangs does not keep the process from ending.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        admitted: list[Job] = []
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self.engine.jobs or self._closing)
                    if self._closing and not self._waiting and not self.engine.jobs:
                        return
                    ready = min(self.engine.room, len(self._waiting))
                    admitted = [self._waiting.popleft() for _ in range(ready)]
                if wanted := [job for job in admitted if not job.cancelled]:
                    self.engine.admit(wanted)
                if self.engine.jobs:
                    self.engine.step()
        except Exception as error:
            # Its message may quote a prompt, so only its kind and place are told.
            self.error = described(error)
            log.exception("the model's thread has ended: %s", self.error, exc_info=False)
            with self._changed:
                for job in (*admitted, *self.engine.jobs, *self._waiting):
                    job.deliver(ModelDied(f"the model's thread has ended ({self.error})", fix="start the server again"))
                self._waiting.clear()


def described(error: BaseException) -> str:
    """Kind and place of an exception without its message, which may quote what a user wrote."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" at {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
    return f"{type(error).__name__}{where}"
