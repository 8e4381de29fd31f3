"""What each row asks, answered in words that are computed from its figures."""

import math
from collections.abc import Mapping, Sequence

from ftkit.ablation.analysis import Analysis
from ftkit.ablation.run_answers import Confusion
from ftkit.ablation.summary import RowSummary, seeds_text
from ftkit.report.document import Table
from ftkit.results.comparison import Comparison
from ftkit.results.statistics import rounded_p


def answers(analysis: Analysis, confusions: Mapping[int, Confusion]) -> Mapping[int, str]:
    """Return the answer to the question of every row, by its number."""
    return {row.number: " ".join(_sentences(analysis, row, confusions.get(row.number))) for row in analysis.rows}


def _sentences(analysis: Analysis, row: RowSummary, confusion: Confusion | None) -> list[str]:
    if row.test is None and row.metrics:
        logged = ", ".join(f"{name} {value:.4g}" for name, value in row.metrics.items())
        return [f"Its test logged {logged}; it returned no predictions, so it is not compared."]
    if row.test is None:
        return [f"Open: {'; '.join(row.notes) or row.status}."]
    sentences = [_accuracy(row, confusion)]
    if row.number == analysis.reference.number:
        sentences.insert(0, "The reference.")
    elif row.comparison is not None:
        sentences.append(compared(row, analysis.reference, row.comparison))
        if row.comparison.ahead is not None and len(row.comparison.seeds) > 1 and row.comparison.converged:
            ahead = f"{row.comparison.ahead:.0%} of cases"
            sentences.append(f"With a new seed and as many new test examples it would be ahead in {ahead}.")
    elif not row.baseline:
        sentences.append(f"It cannot be compared with row {analysis.reference.number} on the same examples.")
    others = {other.number: other for other in analysis.rows}
    sentences += [compared(row, others[number], comparison) for number, comparison in row.named.items()]
    if row.notes:
        complete = row.status in ("done", "external", "not converged")
        sentences.append(f"{'Mind' if complete else 'Incomplete'}: {'; '.join(row.notes)}.")
    return sentences


def recalls(found: Sequence[tuple[RowSummary, Confusion]]) -> Table | None:
    """Return the recall of each of three and more classes in percent, all seeds together, a column for each row."""
    if not found:
        return None
    first, confusion = found[0]
    cells = [
        [label, f"{sum(counts) // len(first.seeds):,}", *(_recall(other, label) for _, other in found)]
        for label, counts in zip(confusion.labels, confusion.counts, strict=True)
    ]
    head = ["class", "n", *(f"{row.number} {row.name}, %" for row, _ in found)]
    return Table(head, cells, frozenset(range(1, len(head))))


def _recall(confusion: Confusion, label: str) -> str:
    """The recall of a class, in percent; nothing where no example has it."""
    if label not in confusion.labels:
        return ""
    place = confusion.labels.index(label)
    total = sum(confusion.counts[place])
    return f"{100 * confusion.counts[place][place] / total:.1f}" if total else ""


def compared(row: RowSummary, other: RowSummary, comparison: Comparison) -> str:
    """Say how a row compares with another one, in a sentence."""
    name, n = f"row {other.number} ({other.name})", comparison.n
    if not comparison.disagreements:
        return f"It gets the same {n:,} test examples right and wrong as {name}."
    seeds = comparison.seeds
    digits = max(1, math.ceil(math.log10(n * len(seeds))) - 2)  # one answer more or less shows
    low, high = (f"{end * 100:+.{digits}f}" for end in comparison.interval)
    points = f"{abs(comparison.difference) * 100:.{digits}f} points"
    fixed = ", the seeds as they are" if len(seeds) > 1 else ""
    common = "" if seeds == row.seeds == other.seeds else f", of the common {seeds_text(seeds)} alone"
    interval = f"(95% interval of the difference {low} to {high}{fixed}{common})"
    if comparison.significant:
        verb = "gains" if comparison.difference > 0 else "costs"
        return f"Against {name} it {verb} {points} {interval}: significant after Holm, {_p(comparison.p_holm)}."
    if not comparison.converged:
        which = " and ".join(f"row {one.number}" for one in (row, other) if not one.converged)
        seen = f"{points} {'more' if comparison.difference > 0 else 'less'}" if comparison.difference else "as much"
        return f"Against {name} it gets {seen} {interval}, which proves nothing: {which} did not converge."
    direction = "more" if comparison.difference > 0 else "less"
    seen = f"{points} {direction} {interval}" if comparison.difference else f"no difference {interval}"
    sentence = f"No significant difference from {name} with {n:,} examples: {seen}, {_p(comparison.p_holm)} after Holm."
    if comparison.hopeless:
        return f"{sentence} The two differ on {comparison.disagreements}, too few for any test to be significant."
    if math.isnan(comparison.detectable):
        return sentence
    least = f"{comparison.detectable * 100:.1f} points"
    return f"{sentence} Power is 80% for a true difference of {least}."


def _accuracy(row: RowSummary, confusion: Confusion | None) -> str:
    assert row.test is not None
    assert row.interval is not None
    low, high = row.interval
    seeds = f", {len(row.seeds)} seeds" if len(row.seeds) > 1 else ""
    sentence = (
        f"{row.test * 100:.1f}% of {row.n:,} test examples are right "
        f"(95% interval {low * 100:.1f} to {high * 100:.1f}{seeds})"
    )
    if confusion is not None and not confusion.baseline.beaten:
        baseline = confusion.baseline
        return f"{sentence}, not significantly better than {baseline.name} ({baseline.accuracy * 100:.1f}%)."
    return f"{sentence}."


def _p(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {rounded_p(p)}"
