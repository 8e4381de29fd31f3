"""What a model forgets: losses of held-out texts before and after it was tuned."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftkit.errors import InputError
from ftkit.results.statistics import Interval, mean_interval, seed_spread
from ftkit.results.text_files import delimited_rows
from ftkit.storage import atomic_write

_COLUMNS = ["text", "tokens", "before", "after"]


@dataclass(frozen=True)
class Forgetting:
    """The loss of held-out texts, in nats a token, of a base model and of models that were tuned from it."""

    before: float  # of the base model
    after: float  # of the tuned models, averaged over the seeds
    # The 95% interval of the difference, paired by text: for new texts, and with several seeds for new seeds too; None
    # where nothing varies.
    interval: Interval | None
    n: int  # texts
    tokens: int  # that are scored

    @property
    def increase(self) -> float:
        """Return by how much the loss grew."""
        return self.after - self.before


def write_losses(path: Path, tokens: Sequence[int], before: Sequence[float], after: Sequence[float]) -> None:
    """Write the summed losses of each text, in nats, and how many of its tokens are scored.

    Raises:
        EnvironmentFault: The file cannot be written.
    """
    with atomic_write(path) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(zip(range(1, len(tokens) + 1), tokens, before, after, strict=True))


def read_losses(path: Path) -> np.ndarray:
    """Read what :func:`write_losses` wrote.

    Returns:
        Tokens, loss before and loss after of each text that has tokens, float64 ``(3, n)``.

    Raises:
        InputError: The file is damaged.
    """
    rows = list(delimited_rows(path, "\t"))
    try:
        found = np.array([[float(cell) for cell in cells[1:]] for _, cells in rows[1:]])
        found = found[found[:, 0] > 0]
        if rows[0][1] != _COLUMNS or not len(found) or not np.isfinite(found).all():
            raise ValueError
    except (ValueError, IndexError):
        raise InputError("is damaged", file=path, fix="test the run again") from None
    return found.T


def forgetting(runs: Sequence[np.ndarray]) -> Forgetting | None:
    """Sum up the losses of a row's runs, what :func:`read_losses` returned of each seed.

    The mean weighs each token alike. It is a ratio of sums over texts, whose interval is that of its linearization: of
    what each text adds to the difference above its share of the tokens. It is None without runs, or if the seeds were
    measured on different texts.

    Example:
        >>> one = np.array([[10.0, 30.0], [20.0, 60.0], [22.0, 63.0]])
        >>> found = forgetting([one])
        >>> round(found.increase, 4), found.n, found.tokens
        (0.125, 2, 40)
    """
    if not runs or not all(np.array_equal(one[0], runs[0][0]) for one in runs):
        return None
    tokens, before = runs[0][:2]
    differences = np.stack([after - before for _, before, after in runs])  # (seeds, n)
    total, n = tokens.sum(), len(tokens)
    mean = float(differences.mean(0).sum() / total)
    shares, base = mean + (differences - mean * tokens) * n / total, float(before.sum() / total)
    return Forgetting(base, base + mean, _interval(shares), n, int(total))


def _interval(shares: np.ndarray) -> Interval | None:
    if len(shares) == 1 or shares.shape[1] == 1:
        return mean_interval(shares.ravel())[1]
    spread = seed_spread(shares)
    return spread.interval() if spread.standard_error else None
