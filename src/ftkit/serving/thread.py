"""The thread that runs the model, and its bounded queue."""

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any, Protocol

from ftkit.errors import InputError
from ftkit.serving.jobs import Job
from ftkit.serving.replies import ApiError

log = logging.getLogger("ftkit.serving")


class Engine(Protocol):
    """Describe a model as the thread runs it."""

    @property
    def jobs(self) -> Sequence[Job]:
        """Return the running jobs, those that are joining among them; other threads ask at any time."""

    @property
    def room(self) -> int:
        """Return the number of jobs that may join now."""

    def admit(self, jobs: Any) -> None:
        """Take new jobs."""

    def step(self) -> None:
        """Do a part of the work and deliver results; must not take long."""


class ModelThread:
    """Run an engine in a thread of its own, with at most ``max_waiting`` jobs in the queue."""

    def __init__(self, engine: Engine, max_waiting: int) -> None:
        self.engine, self.max_waiting = engine, max_waiting
        self.error: str | None = None
        self._stepped = time.monotonic()
        self._waiting: deque[Job] = deque()
        self._admitted: list[Job] = []  # out of the queue, and maybe not yet among the engine's
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    @property
    def alive(self) -> bool:
        """Return whether the thread runs jobs."""
        return self._thread.is_alive() and self.error is None

    @property
    def running(self) -> int:
        """Return the number of running jobs."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Return the number of jobs in the queue."""
        return sum(not job.cancelled for job in tuple(self._waiting))

    @property
    def oldest_seconds(self) -> float:
        """Return the age of the oldest job, waiting or running; 0 if there is none."""
        jobs = [job for job in (*tuple(self._waiting), *self._running) if not job.cancelled]
        return max((time.monotonic() - job.since for job in jobs), default=0.0)

    @property
    def last_step_seconds(self) -> float:
        """Return the time since the model began its last step; above that of one step only where it has no work."""
        return time.monotonic() - self._stepped

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs, all or none.

        Raises:
            InputError: They are more than the queue can hold.
            ApiError: The queue has no room for them, or the thread has ended.
        """
        with self._changed:
            if not self.alive:
                raise self._died
            if self._closing:
                raise self._stopped
            if len(jobs) > self.max_waiting:
                problem = f"{len(jobs)} answers were requested at once, but the queue holds {self.max_waiting}"
                raise InputError(problem, fix="request fewer at a time")
            for job in [job for job in self._waiting if job.cancelled]:
                self._waiting.remove(job)
            if len(self._waiting) + len(jobs) > self.max_waiting:
                problem = f"the queue is full ({len(self._waiting)} of {self.max_waiting}); try again soon"
                raise ApiError(503, problem, code="queue_full", headers={"Retry-After": "1"})
            self._waiting.extend(jobs)
            self._changed.notify()

    def begin(self, jobs: Sequence[Job]) -> None:
        """Let the model begin with jobs in the queue that were not ready before."""
        with self._changed:
            for job in jobs:
                job.ready = True
            self._changed.notify()

    def stop(self) -> None:
        """End all jobs with an error, and take no more."""
        with self._changed:
            self._closing = True
            for job in (*self._running, *self._waiting):
                job.deliver(self._stopped)
                job.cancelled = True
            self._waiting.clear()
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Stop the thread: cancelled jobs are dropped, the others get so many seconds to finish.

        A thread that hangs does not keep the process from ending.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)

    @property
    def _stopped(self) -> ApiError:
        return ApiError(503, "the server is shutting down", code="shutting_down")

    @property
    def _ready(self) -> list[Job]:
        return [job for job in self._waiting if job.ready or job.cancelled]

    @property
    def _running(self) -> Collection[Job]:
        """Return the jobs that have left the queue and are not done, each once."""
        return dict.fromkeys((*self._admitted, *self.engine.jobs)).keys()

    @property
    def _died(self) -> ApiError:
        return ApiError(503, f"the model's thread has ended ({self.error}); restart the server", code="model_died")

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._ready or self.engine.jobs or self._closing)
                    self._stepped = time.monotonic()
                    if self._closing and not self._ready and not self.engine.jobs:
                        return
                    self._admitted = self._ready[: self.engine.room]
                    for job in self._admitted:
                        self._waiting.remove(job)
                if wanted := [job for job in self._admitted if not job.cancelled]:
                    self.engine.admit(wanted)
                self._admitted = []
                if self.engine.jobs:
                    self.engine.step()
        except Exception as error:
            # Its message may quote a prompt, so only its type and place are reported.
            self.error = described(error)
            log.exception("the model's thread has ended: %s", self.error, exc_info=False)
            with self._changed:
                for job in (*self._running, *self._waiting):
                    job.deliver(self._died)
                self._waiting.clear()


def described(error: BaseException) -> str:
    """Return type and place of an exception without its message, which may quote what a user wrote."""
    where = "".join(f" at {Path(place.filename).name}:{place.lineno}" for place in extract_tb(error.__traceback__, -1))
    return f"{type(error).__name__}{where}"
