"""A published statement about rows of an ablation: ``claim.yaml`` in its folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ftkit.config_files import read_config
from ftkit.errors import InputError

CLAIM_FILE = "claim.yaml"  # in an ablation folder


@dataclass(frozen=True)
class Claim:
    """A statement about the best values of an option that a search found, or about test accuracy."""

    claim: str  # the statement in words
    rows: Sequence[int]  # the numbers of the rows that it is about
    against: int  # the number of the row that each of them is set against
    source: str = ""  # who published it
    # The option, as a full path, whose best value in each of the rows is so many times that in ``against``; without it
    # each of the rows is better on test than ``against``.
    ratio_of: str | None = None
    between: Sequence[float] | None = None  # the least and the largest ratio that the statement allows

    @classmethod
    def read(cls, path: Path, there: Collection[int]) -> Claim | None:
        """Read ``claim.yaml`` about rows of the numbers ``there``; without the file nothing is claimed.

        Raises:
            InputError: A key is missing, unknown or wrong; it is named.
        """
        if not path.exists():
            return None
        given = read_config(path)
        names = [one.name for one in fields(cls)]
        for name in ("claim", "rows", "against", *given):
            if name not in given or name not in names:
                problem = "is missing" if name in names else "no such key"
                raise InputError(problem, file=path, field=str(name), fix=f"the keys are {', '.join(names)}")
        found, numbers = cls(**given), [*there]
        rows = found.rows if isinstance(found.rows, list) else []
        for name, is_right, fix in (
            ("claim", isinstance(found.claim, str), "write the statement"),
            ("rows", rows and all(row in numbers for row in rows), "list rows of this ablation, as [2]"),
            ("against", found.against in numbers and found.against not in rows, "name another row of this ablation"),
            ("ratio_of", isinstance(found.ratio_of, str | None), "write the full path of an option"),
            ("between", found.is_bounded, "write [LOWEST, HIGHEST], the lower first, with ratio_of alone"),
        ):
            if not is_right:
                raise InputError("cannot be used", file=path, field=name, got=given.get(name), fix=fix)
        return found

    @property
    def is_bounded(self) -> bool:
        """Return whether there are two ends for a ratio, or neither."""
        if self.between is None or self.ratio_of is None:
            return self.between is None and self.ratio_of is None
        given = self.between if isinstance(self.between, list) and len(self.between) == 2 else [0, 0]
        return all(isinstance(end, int | float) for end in given) and 0 < given[0] < given[1]
