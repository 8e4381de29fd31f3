"""The errors that a user can do something about, each with the exit code of the command line.

Every message has one form: ``FILE:LINE: FIELD: what is wrong (got X); fix: Y``, as far as the parts are known. The
command line prints it behind ``error: `` without a traceback.
"""

import math
import re
from enum import IntEnum
from pathlib import Path
from typing import Any

_NOT_GIVEN = object()
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{200,}")  # an image as text, of which a message shows the beginning
_BASE64_SHOWN = 60
_SHOWN = 80  # characters of a value


class ExitCode(IntEnum):
    """The exit codes of the ``ftkit`` command; 10 to 12 are answers of ``ftkit verdict``, as is 0, better."""

    DONE = 0
    BUG = 1
    INPUT = 2
    ENVIRONMENT = 3
    TRAINING = 4
    NOT_SHOWN = 10
    WORSE = 11
    EQUIVALENT = 12
    INTERRUPTED = 130
    TERMINATED = 143


class FtkitError(Exception):
    """The base of every error that ftkit raises on purpose.

    Args:
        problem: What is wrong, in words.
        file: The file at fault.
        line: The line in ``file``, counted from 1.
        field: The column, option or key at fault.
        got: The value found. It is shown shortened, by ``repr``.
        fix: What the user can do.

    Example:
        >>> print(InputError("unknown label", file="a.tsv", line=3, field="label", got="Spam", fix="use ham or spam"))
        a.tsv:3: label: unknown label (got 'Spam'); fix: use ham or spam
    """

    exit_code = ExitCode.BUG

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
        got: Any = _NOT_GIVEN,
        fix: str | None = None,
    ) -> None:
        place = "" if file is None else f"{file}:" if line is None else f"{file}:{line}:"
        parts = [place, f"{field}:" if field else "", problem, "" if got is _NOT_GIVEN else f"(got {_short(got)})"]
        message = " ".join(part for part in parts if part)
        message = f"{message}; fix: {fix}" if fix else message
        where = len(place)  # a file's name stays whole
        said = _BASE64.sub(lambda text: f"{text[0][:_BASE64_SHOWN]}…", message[where:])
        super().__init__(message[:where] + said)


class InputError(FtkitError, ValueError):
    """A file, option or value given by the user cannot be used (exit code 2)."""

    exit_code = ExitCode.INPUT


class FormatError(InputError):
    """A file was written by an edition of ftkit whose keys mean something else (exit code 2)."""


class EnvironmentFault(FtkitError, RuntimeError):
    """The machine lacks something: disk, network, access, weights, a lock (exit code 3)."""

    exit_code = ExitCode.ENVIRONMENT


class UnavailableError(EnvironmentFault):
    """Weights or data that are neither on this machine nor to be had now (exit code 3).

    An ablation skips a row that raises this and goes on with the next one.
    """


class TrainingFailed(FtkitError, RuntimeError):
    """Training cannot go on, for example because the loss is not finite (exit code 4)."""

    exit_code = ExitCode.TRAINING


class Pruned(FtkitError):
    """A training of a search was stopped early, for its validation promised too little; the search goes on."""


def at_least(smallest: float, **values: float) -> None:
    """Refuse options, given by name, below a bound, or infinite.

    Raises:
        InputError: A value is smaller, or no finite number; the first one is named.

    Example:
        >>> at_least(1, batch_size=8, num_workers=0)
        Traceback (most recent call last):
        ftkit.errors.InputError: num_workers: must be at least 1 (got 0)
    """
    for field, value in values.items():
        if not value >= smallest:
            raise InputError(f"must be at least {smallest}", field=field, got=value)
        if value == math.inf:
            raise InputError("must be finite", field=field, got=value)


def positive(**values: float) -> None:
    """Refuse options, given by name, that are not above 0, or infinite.

    Raises:
        InputError: A value is 0 or less, or no finite number; the first one is named.

    Example:
        >>> positive(beta=0.0)
        Traceback (most recent call last):
        ftkit.errors.InputError: beta: must be positive and finite (got 0.0)
    """
    for field, value in values.items():
        if not 0 < value < math.inf:
            raise InputError("must be positive and finite", field=field, got=value)


def below_one(**values: float) -> None:
    """Refuse options, given by name, that are no probabilities below 1.

    Raises:
        InputError: A value is negative, 1 or more; the first one is named.

    Example:
        >>> below_one(dropout=0.0, lora_dropout=1.0)
        Traceback (most recent call last):
        ftkit.errors.InputError: lora_dropout: is a probability below 1 (got 1.0)
    """
    for field, value in values.items():
        if not 0 <= value < 1:
            raise InputError("is a probability below 1", field=field, got=value)


def first_line(error: BaseException) -> str:
    r"""Return the first line of what an exception says; its class where it says nothing.

    Example:
        >>> first_line(ValueError("wrong shape\nat ...")), first_line(MemoryError())
        ('wrong shape', 'MemoryError')
    """
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _short(value: Any) -> str:
    text = repr(str(value) if isinstance(value, Path) else value)
    limit = _BASE64_SHOWN if _BASE64.search(text) else _SHOWN
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
