"""Read ``result.json``: what one run scored and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import FormatError, InputError
from ftkit.run_folder import SPLITS, refuse_other_format


@dataclass(frozen=True)
class Split:
    """Counts of a split: ``n`` examples, ``correct`` answers and, of preference pairs, ``ties``."""

    n: int
    correct: int
    ties: int | None = None

    @property
    def accuracy(self) -> float:
        """Return the fraction of correct answers, a tie counting as half."""
        return (self.correct + (self.ties or 0) / 2) / self.n


@dataclass(frozen=True)
class Result:
    """One run's figures."""

    splits: Mapping[str, Split]  # the counts by split; test is there if the test left predictions
    metrics: Mapping[str, float]  # what the test logged, by name; at least one, or the counts of test
    # Training and testing time together, without frozen_seconds: the same whatever earlier runs left.
    seconds: float | None
    # Time for what frozen layers make of the data, which the first run computes and others only read.
    frozen_seconds: float
    peak_memory_mb: float | None  # the highest memory use, if it was measured
    trainable: int | None  # the number of trainable parameters, if it was counted
    checkpoint_mb: float | None  # the size of the checkpoint, if there is one
    device: str  # what it ran on, such as cpu or cuda:0
    machine: str  # what it ran on, more exactly; costs compare only on the same
    data_source: str  # the data, in words
    data_sha256: str | None  # the hash of the data
    base: Mapping[str, Any]  # what the base model was made from
    raw: Mapping[str, Any]  # the whole file
    baseline: bool = False  # whether nothing was trained by gradients

    @classmethod
    def read(cls, path: Path, tested: bool = True) -> Result:
        """Read a ``result.json`` and check that it is complete.

        Raises:
            InputError: The file is missing, cut or of another format, or says nothing of the test split.
        """
        try:
            raw = json.loads(path.read_bytes())
            refuse_other_format(raw.get("format"), path)
            counts, logged = raw.get("splits") or {}, (raw.get("metrics") or {}).get("test") or {}
            splits: dict[str, Split] = {name: _split(counts[name]) for name in SPLITS if name in counts}
            metrics = {name: float(value) for name, value in logged.items() if value is not None}
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", file=path) from None
        except FormatError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"not a complete result: {type(error).__name__} {error}", file=path) from None
        if tested and "test" not in splits and not metrics:
            problem = "not a complete result: the test left neither predictions nor metrics"
            raise InputError(problem, file=path, fix="let test_step log figures, or return id, label and prediction")
        for name, split in splits.items():
            if min(split.correct, split.ties or 0) < 0 or not 0 < split.n >= split.correct + (split.ties or 0):
                raise InputError("impossible counts", file=path, field=f"splits.{name}", got=raw["splits"][name])
        data, hardware = raw.get("data") or {}, raw.get("hardware") or {}
        device = str(raw.get("device", "an unknown device"))
        times = [float(value) for value in (raw.get("seconds") or {}).values() if value is not None]
        frozen = sum(map(float, (raw.get("seconds_frozen") or {}).values()))
        return cls(
            splits=splits,
            metrics=metrics,
            seconds=sum(times) - frozen if times else None,
            frozen_seconds=frozen,
            peak_memory_mb=raw.get("peak_memory_mb"),
            trainable=(raw.get("parameters") or {}).get("trainable"),
            checkpoint_mb=raw.get("checkpoint_mb"),
            device=device,
            machine=_machine(device, hardware),
            data_source=str(data.get("source", "unnamed data")),
            data_sha256=data.get("sha256"),
            base=raw.get("base") or {},
            raw=raw,
            baseline=raw.get("baseline") is True,
        )


def _split(counts: Mapping[str, Any]) -> Split:
    ties = counts.get("ties")
    return Split(int(counts["n"]), int(counts["correct"]), None if ties is None else int(ties))


def _machine(device: str, hardware: Mapping[str, Any]) -> str:
    chip = hardware.get("cpu" if device == "cpu" else "gpu") or "unknown"
    threads = hardware.get("threads") if device == "cpu" else None
    return f"{device}: {chip}" + (f", {threads} thread{'s' if threads > 1 else ''}" if threads else "")
