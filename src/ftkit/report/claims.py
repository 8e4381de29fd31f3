"""Report in words and figures whether a published statement is confirmed."""

import math
from collections.abc import Iterator
from typing import Any

from ftkit.ablation.analysis import Analysis
from ftkit.ablation.claim_findings import Finding, JudgedClaim


def claimed(judged: JudgedClaim | None, row: int) -> dict[str, Any]:
    """Return what was found of a claim, unrounded and flat; nothing of a row that it is not about."""
    found = [] if judged is None else [one for one in judged.findings if one.row == row]
    if judged is None or not found:
        return {}
    low, high = found[0].interval or (None, None)
    return {
        "claim": judged.outcome,
        "claim_row": found[0].outcome,
        "claim_figure": found[0].figure,
        "claim_low": low,
        "claim_high": None if high == math.inf else high,
        "claim_reason": found[0].reason,
    }


def claim_lines(analysis: Analysis) -> Iterator[str]:
    """Yield the statement with its outcome, and what was found of each of its rows."""
    if (judged := analysis.claim) is None:
        return
    source = f" ({judged.claim.source})" if judged.claim.source else ""
    yield f"Claim: {judged.outcome}: {judged.claim.claim}{source}"
    for one in judged.findings:
        reason = f"; {one.reason}" if one.reason else ""
        yield f"Row {one.row} against row {judged.claim.against}: {one.outcome}{_figure(judged, one)}{reason}."


def _figure(judged: JudgedClaim, one: Finding) -> str:
    if one.figure is None or one.interval is None:
        return ""
    option, share = judged.claim.ratio_of, 100 * (1 - 0.05 / len(judged.findings))
    low, high = one.interval
    if option is None:
        figure, ends = f"{100 * one.figure:+.1f} points", f"{100 * low:+.1f} to {100 * high:+.1f}"
    else:
        figure, ends = f"{option.rpartition('.')[2]} {one.figure:.3g} times", f"{low:.3g} to {high:.3g}"
    return f": {figure} ({share:.4g}% interval {ends})"
