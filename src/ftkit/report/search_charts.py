"""The charts of a search: validation against each option, and the expected best against the number of tries."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

import altair as alt

from ftkit.ablation.summary import RowSummary
from ftkit.ablation.sweep import Choice, only_numbers
from ftkit.report.charts import TICKS, Chart, data, row_colors
from ftkit.report.document import Figure
from ftkit.results.tuning_curve import TuningCurve, tuning_curve

_BUDGET = 20  # tries, or as many as there were
_NAMED = (1, 5, 20)


def search_figures(rows: Sequence[RowSummary]) -> Iterator[Figure]:
    """Draw what a search found, all rows in one plot."""
    tuned = _choices(rows)
    for path in dict.fromkeys(path for choice in tuned.values() for path in choice.setting):
        if records := _records(tuned, path):
            caption = "Line and dot: mean over the seeds; bar: lowest to highest seed; filled: chosen."
            option = path.rpartition(".")[2]
            yield Figure(f"search-{option}", f"Validation against {option}", _against(records, path), caption)
    if curves := budgets(rows):
        caption = (
            "Band: 95%, exact and simultaneous for all budgets, if the tries were drawn at random from the settings "
            "(Kolmogorov-Smirnov). Failed tries and rows with pruned tries are left out."
        )
        yield Figure("budget", "Expected best validation result against tries", _budget(curves, tuned), caption)


def budgets(rows: Sequence[RowSummary]) -> dict[str, TuningCurve]:
    """Return the tuning curves of rows with two tries or more, none of them stopped early, by number and name."""
    tuned = _choices(rows)
    most = max((len(choice.tries) for choice in tuned.values()), default=0)
    known = {name: (choice, [fmean(values) for _, values in choice.results]) for name, choice in tuned.items()}
    return {
        name: tuning_curve(values, max(most, _BUDGET), choice.mode, _ends(choice, values))
        for name, (choice, values) in known.items()
        if len(values) > 1 and not choice.pruned
    }


def budget_sentences(rows: Sequence[RowSummary]) -> list[str]:
    """Say which row is expected to be the best on validation with 1, 5 and 20 tries."""
    curves, choices = budgets(rows), list(_choices(rows).values())
    if len(curves) < 2 or len({(choice.monitor, choice.mode) for choice in choices}) > 1:
        return []
    best = min if choices[0].mode == "min" else max
    parts = []
    for tries in _NAMED:
        expected = {name: curve.mean[tries - 1] for name, curve in curves.items()}
        name = best(expected, key=expected.__getitem__)
        parts.append(f"with {tries} row {name} ({expected[name]:.4g})")
    return [f"Expected to be the best on validation by {choices[0].monitor}: {', '.join(parts)} tries."]


def _choices(rows: Sequence[RowSummary]) -> dict[str, Choice]:
    return {f"{row.number} {row.name}": row.choice for row in rows if row.choice is not None}


def _ends(choice: Choice, values: Sequence[float]) -> tuple[float, float]:
    """Return what bounds the results: 0 and 1 of a share; of a loss, what was seen."""
    low, high = min(values), max(values)
    return (0.0, 1.0) if choice.mode == "max" and low >= 0 and high <= 1 else (low, high)


def _records(tuned: Mapping[str, Choice], path: str) -> list[dict[str, Any]]:
    """Return one record a try whose value of the option is a number; none unless a row has two different ones."""
    records = [
        {
            "name": name,
            "x": setting[path],
            "value": fmean(values),
            "low": min(values),
            "high": max(values),
            "chosen": setting == choice.setting,
            "setting": ", ".join(f"{option}: {value}" for option, value in setting.items()),
        }
        for name, choice in tuned.items()
        for setting, values in choice.results
        if only_numbers([setting.get(path)])
    ]
    return records if len({record["x"] for record in records}) > 1 else []


def spans_decades(values: Sequence[float]) -> bool:
    """Return whether numbers are drawn on a logarithmic axis: positive, the largest ten times the smallest or more."""
    return bool(values) and min(values) > 0 and max(values) >= 10 * min(values)


def _against(records: Sequence[Mapping[str, Any]], path: str) -> Chart:
    kind: Literal["log", "linear"] = "log" if spans_decades([record["x"] for record in records]) else "linear"
    base = alt.Chart(data(records)).encode(
        x=alt.X("x:Q", title=path.rpartition(".")[2], scale=alt.Scale(type=kind, zero=False)),
        color=row_colors([record["name"] for record in records]),
        tooltip=["name:N", "setting:N", alt.Tooltip("value:Q", format=".4g")],
    )
    up = alt.Y("value:Q", title="validation", scale=alt.Scale(zero=False))
    # With several options there are several tries at one value, which no line connects.
    one = len({(record["name"], record["x"]) for record in records}) == len(records)
    layers = [base.mark_line(strokeWidth=1.5).encode(y=up)] if one else []
    layers.append(base.mark_rule(opacity=0.4).encode(y=alt.Y("low:Q", scale=alt.Scale(zero=False)), y2="high:Q"))
    layers.append(base.mark_point(size=60, opacity=1).encode(y=up))
    layers.append(base.mark_circle(size=70, opacity=1).encode(y=up).transform_filter("datum.chosen"))
    return alt.layer(*layers).properties(width="container", height=260)


def _budget(curves: Mapping[str, TuningCurve], tuned: Mapping[str, Choice]) -> Chart:
    records = [
        {"name": name, "tries": place + 1, "value": value, "low": low, "high": high}
        for name, curve in curves.items()
        for place, (value, low, high) in enumerate(zip(*(one.tolist() for one in curve), strict=True))
    ]
    picked = alt.selection_point(fields=["name"], bind="legend")
    monitor = next(iter(tuned.values())).monitor
    base = alt.Chart(data(records)).encode(
        x=alt.X("tries:Q", title="tries", axis=TICKS),
        color=row_colors(list(curves)),
        tooltip=["name:N", "tries:Q", *(alt.Tooltip(f"{end}:Q", format=".4g") for end in ("value", "low", "high"))],
    )
    scale = alt.Scale(zero=False)
    band = base.mark_area().encode(
        y=alt.Y("low:Q", scale=scale), y2="high:Q", opacity=alt.condition(picked, alt.value(0.12), alt.value(0.0))
    )
    line = base.mark_line(strokeWidth=2).encode(
        y=alt.Y("value:Q", title=f"expected best {monitor}", scale=scale),
        opacity=alt.condition(picked, alt.value(1), alt.value(0.08)),
    )
    return alt.layer(band, line).add_params(picked).properties(width="container", height=260)
