"""How a report on a prediction file is made."""

from dataclasses import dataclass

from ftkit.results.known_examples import KnownExamples


@dataclass(frozen=True)
class Settings:
    """How a report is made."""

    beta: float = 1.0  # weight of recall over precision in f_beta
    level: float = 0.95  # confidence of the intervals
    seed: int = 0  # seed of the bootstrap
    intervals: bool = True  # whether intervals are computed at all
    known: KnownExamples | None = None  # what is known of the examples besides the answers


DEFAULTS = Settings()
