"""What the rows of an ablation forgot of held-out texts, in words and figures."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ftkit.ablation.summary import RowSummary


def text_names(rows: Sequence[RowSummary]) -> list[str]:
    """Return the names of the texts that any row was measured on."""
    return list(dict.fromkeys(name for row in rows for name in row.forgetting))


def forgetting_record(row: RowSummary) -> dict[str, Any]:
    """Return the loss of held-out texts and how much it grew, unrounded and flat."""
    return {
        f"{name}_{key}": value
        for name, one in row.forgetting.items()
        for key, value in {
            "loss": one.after,
            "perplexity": math.exp(one.after),
            "forgetting": one.increase,
            "forgetting_low": one.interval and one.interval[0],
            "forgetting_high": one.interval and one.interval[1],
        }.items()
    }


def forgotten(name: str) -> Callable[[RowSummary], str]:
    """Return what shows how much a row forgot of the texts of a name, with the interval."""

    def show(row: RowSummary) -> str:
        if (found := row.forgetting.get(name)) is None:
            return ""
        interval = f" ({found.interval[0]:+.3f} to {found.interval[1]:+.3f})" if found.interval else ""
        return f"{found.increase:+.3f}{interval}"

    return show


def forgetting_notes(rows: Sequence[RowSummary]) -> Iterator[str]:
    """Yield what the column of each set of texts says."""
    for name in text_names(rows):
        measured = [row.forgetting[name] for row in rows if name in row.forgetting]
        bases = " or ".join(dict.fromkeys(f"{one.before:.4g}" for one in measured))
        yield (
            f"{name}: loss of a held-out token in nats, after tuning minus that of the base model ({bases}), with its "
            f"95% interval over texts; {measured[0].n:,} texts, {measured[0].tokens:,} tokens."
        )
