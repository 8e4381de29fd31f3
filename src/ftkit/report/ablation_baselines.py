"""Say whether fine-tuning beats what needs none: trained rows against the best baseline, with what they cost."""

from collections.abc import Iterator

from ftkit.ablation.analysis import Analysis
from ftkit.ablation.summary import RowSummary
from ftkit.report.words import plural
from ftkit.results.statistics import ALPHA


def baseline_lines(analysis: Analysis, timing: bool = True) -> Iterator[str]:
    """Yield the lines about the best baseline and about the rows that differ from it; none without baselines."""
    best, over = analysis.best_baseline, analysis.over_baseline
    if best is None or best.val is None or best.test is None:
        return
    timing = timing and len(analysis.machines) == 1
    cost = f", {best.seconds:,.1f} s" if timing and best.seconds is not None else ""
    count = sum(row.baseline and row.test is not None for row in analysis.rows)
    yield (
        f"Best of {plural(count, 'baseline')} on validation: row {best.number} ({best.name}), "
        f"validation {best.val:.2%}, test {best.test:.2%}{cost}."
    )
    compared = [row for row in analysis.rows if row.number in over]
    if not compared:
        return
    better, worse = (
        [row for row in compared if over[row.number].significant and sign * over[row.number].difference > 0]
        for sign in (1, -1)
    )
    n = len(compared)
    yield (
        f"{len(better) or 'None'} of {plural(n, 'trained variant')} {'beats' if 1 in (len(better), n) else 'beat'} it "
        f"significantly (exact test on the same examples, p < {ALPHA} after Holm's correction for "
        f"{plural(n, 'comparison')}){_listed(analysis, better, timing)}."
    )
    if worse:
        verb = "is" if len(worse) == 1 else "are"
        yield f"{len(worse)} {verb} significantly worse than it{_listed(analysis, worse, timing)}."


def _listed(analysis: Analysis, rows: list[RowSummary], timing: bool) -> str:
    """Return rows with their differences from the best baseline in points and their costs, the largest first."""
    best, over = analysis.best_baseline, analysis.over_baseline
    parts = []
    for row in sorted(rows, key=lambda row: -abs(over[row.number].difference)):
        low, high = (100 * end for end in over[row.number].interval)
        part = (
            f"row {row.number} ({row.name}) {100 * over[row.number].difference:+.1f} points ({low:+.1f} to {high:+.1f})"
        )
        if timing and row.seconds is not None:
            times = row.seconds / best.seconds if best is not None and best.seconds else None
            part += f" for {row.seconds:,.1f} s" + (f", {times:,.3g} times its time" if times else "")
        parts.append(part)
    return f": {'; '.join(parts)}" if parts else ""
