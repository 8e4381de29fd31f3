"""How a run through Lightning ends: signals and library errors as ftkit's exit codes and messages."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ftkit.errors import EnvironmentFault, ExitCode, FtkitError, InputError


@contextmanager
def termination_told(alone: bool = False) -> Iterator[None]:
    """Give a termination its exit code: Lightning stops at a safe point and exits as if all were done.

    Args:
        alone: This is the only process, so it can end wherever it is; a training listens itself, see
            :class:`ftkit.training.interrupt.SafeStop`.

    Raises:
        SystemExit: The process was told to end by SIGTERM.
    """
    listens = alone and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if listens else None
    try:
        yield
    except SIGTERMException as stop:
        raise SystemExit(ExitCode.TERMINATED) from stop
    finally:
        if listens:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: Any) -> NoReturn:
    raise SystemExit(ExitCode.TERMINATED)


@contextmanager
def misfits_told(checkpoint: str | None) -> Iterator[None]:
    """Say what does not fit when a module without checks of its own loads a checkpoint of another model.

    Args:
        checkpoint: The file, if one is named.

    Raises:
        InputError: Names or shapes differ.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        details = [line.strip().rstrip(". ") for line in str(error).splitlines()[1:]]
        listing = "; ".join(details[:5]) + ("; …" if len(details) > 5 else "")
        raise InputError(
            f"the checkpoint does not fit the model: {listing}",
            file=checkpoint,
            fix="use the options that the checkpoint was made with",
        ) from error


@contextmanager
def refusals_told() -> Iterator[None]:
    """Say what Lightning refuses once it knows the module and the data, such as an interval beyond the last batch.

    Raises:
        FtkitError: Its own refusal, see :func:`trainer_fault`; a module's or data module's error passes as it is.
    """
    try:
        yield
    except (MisconfigurationException, ValueError) as error:
        if isinstance(error, FtkitError) or not _raised_by_lightning(error):
            raise
        raise trainer_fault(error) from error


def _raised_by_lightning(error: BaseException) -> bool:
    """Whether it was raised by Lightning while it was at work for ftkit, not for a call of a module of one's own."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    callers = [module for module in modules if module.partition(".")[0] not in ("lightning", "torch", "contextlib")]
    return modules[-1].startswith("lightning.") and callers[-1].startswith("ftkit.")


def trainer_fault(error: Exception) -> FtkitError:
    """What Lightning's trainer refuses: something that the machine lacks, or a wrong option."""
    said = " ".join(str(error).split())
    if "No supported" in said or "not available" in said:
        return EnvironmentFault(said, field="trainer.accelerator", fix="for a CPU: --trainer.accelerator cpu")
    if "bf16" in said.lower():
        return EnvironmentFault(said, field="trainer.precision", fix="use --trainer.precision 32-true")
    return InputError(said, field="trainer")
