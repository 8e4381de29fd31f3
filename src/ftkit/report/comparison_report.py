"""What paired comparisons say, as a section of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ftkit.report.sections import Section, interval_text, p_text
from ftkit.results.comparison import Comparison
from ftkit.results.statistics import is_significant, rounded_p

HEADS = ("shared", "only it right", "only the other right", "p (McNemar)", "p (Holm)")


def compared(
    comparisons: Sequence[Comparison],
    names: Mapping[str, str],
    titles: Mapping[str, str],
    digits: int | None,
    heads: tuple[str, str, str, str, str] = HEADS,
) -> Section:
    """The table of all comparisons with one reference, and each verdict in a sentence.

    Args:
        comparisons: At least one, all with the same reference.
        names: How the report calls each file.
        titles: How it calls each figure.
        digits: Decimals, None for all.
        heads: The table's titles of the shared examples, of those that went better and worse, and of both p-values.
    """
    against = comparisons[0].against
    figures = [name for name in titles if any(name in one.differences for one in comparisons)]
    table = [["file", *heads[:3], *(f"{titles[name]} difference" for name in figures), *heads[3:]]]
    sentences = []
    for one in comparisons:
        name = names[one.name]
        counts = map(str, (one.n, one.only_model, one.only_reference))
        differences = (_difference(one, figure, digits) for figure in figures)
        table.append([name, *counts, *differences, rounded_p(one.p), rounded_p(one.p_holm)])
        sentences.append(f"{name}: {_verdict(one)}")
        for (count, first), where in ((one.missing, "in it"), (one.missing_in_model, f"in {against}")):
            if count:
                sentences.append(f"{name}: {count} ids are only {where}, for example {', '.join(first)}; left out.")
    return Section(f"Compared with {against}, on the same examples", sentences, table)


def _verdict(one: Comparison) -> str:
    if is_significant(one.p_holm):
        return f"{'better' if one.only_model > one.only_reference else 'worse'} beyond chance ({p_text(one.p_holm)})."
    if not one.reach.possible:
        total = one.only_model + one.only_reference
        return f"the two differ on {total} of {one.n} examples; fewer than {one.reach.needed} can never be significant."
    detectable = "" if math.isnan(one.detectable) else (
        f" A difference of {one.detectable:.1%} or more would be found with 80% power."
    )  # fmt: skip
    return f"no difference beyond chance ({p_text(one.p_holm)}).{detectable}"


def _difference(one: Comparison, name: str, digits: int | None) -> str:
    value = one.differences.get(name)
    if value is None:
        return "not in both"
    if math.isnan(value):
        return "undefined"
    shown = repr(value) if digits is None else f"{value:+.{digits}f}"
    return shown + interval_text(one.intervals.get(name), digits)
