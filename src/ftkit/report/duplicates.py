"""Show how duplicates in train affect test figures: accuracies without them, and conclusions that depend on them."""

from collections.abc import Iterable, Sequence

from ftkit.report.document import Section, Table
from ftkit.report.words import significance
from ftkit.results.comparison import Comparison
from ftkit.results.known_examples import DuplicatesEffect
from ftkit.results.statistics import rounded_p

Part = tuple[str, DuplicatesEffect, Comparison | None]  # a name, its accuracies, and how it compares


def duplicates_section(parts: Sequence[Part], against: str) -> list[Section]:
    """Return the section on duplicates; none where they are not known, or no example has one in train."""
    if not any(effect.n_in_train for _, effect, _ in parts):
        return []
    effect = max((effect for _, effect, _ in parts), key=lambda effect: effect.n_in_train)
    sentences = [
        f"{effect.n_in_train:,} of {effect.n_in_train + effect.n_rest:,} examples have a duplicate or near-duplicate "
        "in train: a model may remember them.",
        *dependences((name, comparison) for name, _, comparison in parts),
    ]
    head = ["", "with duplicates, %", "n", "without, %", "n"]
    rows = [
        [name, _percent(one.in_train), f"{one.n_in_train:,}", _percent(one.rest), f"{one.n_rest:,}"]
        for name, one, _ in parts
    ]
    if any(comparison is not None for _, _, comparison in parts):
        head += ["difference, points", "p (Holm)", "without, points", "p (Holm)", "interval, clusters", "p (Holm)"]
        rows = [[*row, *_compared(comparison)] for row, (_, _, comparison) in zip(rows, parts, strict=True)]
        sentences.append(
            f"Differences are from {against}. Without: the exact test on the examples without a duplicate in train, of "
            "which fewer find less. Clusters: the exact sign-flip test on all examples, where those that duplicates "
            "connect change sides together."
        )
    return [Section("Duplicates in train", sentences, Table(head, rows, frozenset(range(1, len(head)))))]


def dependences(compared: Iterable[tuple[str, Comparison | None]]) -> list[str]:
    """Say which conclusions depend on duplicates, one sentence each, or that none does; nothing where none is known."""
    known = [(name, one) for name, one in compared if one is not None and one.duplicates is not None]
    found = [f"{name}: {depends(one)}" for name, one in known if one.depends_on_duplicates]
    return found or (["No conclusion depends on duplicates."] if known else [])


def depends(one: Comparison) -> str:
    """Say how a comparison comes out with and without duplicates, where that differs."""
    check = one.duplicates
    assert check is not None
    found = [
        _verdict(one.difference, one.p_holm),
        f"{_verdict(check.difference, check.p_holm)} without duplicates ({check.n:,} examples)",
        f"{_verdict(one.difference, check.clusters_p_holm)} with duplicates as clusters ({check.clusters:,})",
    ]
    return f"the conclusion depends on duplicates: {found[0]}, {found[1]}, {found[2]}."


def _verdict(difference: float, p: float) -> str:
    return f"{significance(difference, p)} (p = {rounded_p(p)})"


def _compared(one: Comparison | None) -> list[str]:
    if one is None or one.duplicates is None:
        return [""] * 6
    check = one.duplicates
    low, high = check.clusters_interval
    return [
        f"{100 * one.difference:+.2f}", rounded_p(one.p_holm),
        f"{100 * check.difference:+.2f}" if check.n else "", rounded_p(check.p_holm),
        f"{100 * low:+.2f} to {100 * high:+.2f}", rounded_p(check.clusters_p_holm),
    ]  # fmt: skip


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
