"""How reports write figures, p-values, intervals, texts and the names of files."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from ftkit.results.baselines import AgainstMajority
from ftkit.results.intervals import Interval
from ftkit.results.statistics import is_significant, rounded_p

LETTERS = 80  # of a text that are shown


def short(text: str, most: int = LETTERS) -> str:
    """Return a text on one line that can be printed, cut where it is too long to look at."""
    text = text.replace("\n", "\\n").replace("\t", "\\t").encode(errors="backslashreplace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plural(n: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 row`` and ``2 rows``."""
    return f"{n} {noun}{'s' if n > 1 else ''}"


def p_text(p: float) -> str:
    """Return a p-value in words.

    Example:
        >>> p_text(0.5847), p_text(0.0), p_text(1.0)
        ('p = 0.58', 'p < 1e-300', 'p = 1')
    """
    return "p < 1e-300" if p < 1e-300 else f"p = {rounded_p(p)}"


def significance(difference: float, p: float) -> str:
    """Return ``significantly better`` or ``significantly worse``, or else ``not significant``.

    Example:
        >>> significance(0.1, 0.01), significance(-0.1, 0.01), significance(0.1, 0.06)
        ('significantly better', 'significantly worse', 'not significant')
    """
    return f"significantly {'better' if difference > 0 else 'worse'}" if is_significant(p) else "not significant"


def majority_verdict(found: AgainstMajority) -> str:
    """Say how a model differs from always answering with the most frequent label, which ``that`` stands for."""
    if not is_significant(found.p_majority):
        return "is not significantly different from that"
    return f"is {significance(found.better - found.worse, found.p_majority)} than that"


def interval_text(interval: Interval | None, digits: int | None) -> str:
    """Return an interval as it stands behind a figure of so many decimals; nothing for None."""
    return "" if interval is None else f" ({' to '.join(number_text(end, digits) for end in interval)})"


def number_text(value: float, digits: int | None) -> str:
    """Return a figure with so many decimals, None for all that it has."""
    return repr(value) if digits is None else f"{value:.{digits}f}"


def short_names(names: Sequence[str]) -> list[str]:
    """Return file names without the folders, and without the file's own name, that all of them share.

    Example:
        >>> short_names(["runs/a/test.tsv", "runs/b/test.tsv"]), short_names(["runs/a/test.tsv"])
        (['a', 'b'], ['test.tsv'])
        >>> short_names(["runs/test.tsv", "runs/a/test.tsv"])
        ['test.tsv', 'a/test.tsv']
    """
    paths = [Path(name).parts for name in names]
    if len(set(paths)) < 2:
        return [path[-1] for path in paths]
    start = _shared(paths)
    rest = [path[start:] for path in paths]
    end = min(_shared([path[::-1] for path in rest]), min(map(len, rest)) - 1)  # something is left of each
    return [str(Path(*path[start : len(path) - end])) for path in paths]


def _shared(paths: Sequence[tuple[str, ...]]) -> int:
    """How many of the first parts all paths have in common."""
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))
