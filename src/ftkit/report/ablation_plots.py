"""The plots of an ablation: accuracy by row, accuracy against cost, learning curves, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftkit.ablation.analysis import Analysis
from ftkit.ablation.evidence import Confusion, Curve
from ftkit.ablation.summary import RowSummary
from ftkit.report.plot_labels import labels
from ftkit.report.plots import Frame, count_table, line, plot, points

# A figure in metrics.csv, its short name, its title, and what to multiply it with.
_LEARNED = (
    ("train/loss", "loss", "Training loss", 1.0),
    ("val/accuracy", "validation", "Validation accuracy, %", 100.0),
)
Curves = Sequence[Mapping[str, Curve]]  # of a row, one mapping per seed


def accuracy_plot(analysis: Analysis) -> str:
    """Test accuracy of each row that has one, with its interval and the published figure."""
    rows = [row for row in analysis.rows if row.test is not None]
    published = {row.number: figure for row in rows if (figure := row.published_figure("test")) is not None}
    ends = [100 * end for row in rows for end in row.interval or ()] + list(published.values())
    names = [f"{row.number} {row.name}{'*' if row.comparison and row.comparison.significant else ''}" for row in rows]
    frame = Frame(
        x=_padded(ends, 0, 100),
        y=(-0.6, len(rows) - 0.4),
        width=640,
        height=76 + 24 * len(rows),
        left=max(80, int(16 + 6.6 * max(map(len, names)))),
    )
    marks = []
    if analysis.reference.test is not None:
        marks.append(line(frame, [100 * analysis.reference.test] * 2, list(frame.y), color=None, dashed=True))
    for place, row in enumerate(reversed(rows)):  # the first row is above
        if row.test is None or row.interval is None:
            continue
        marks.append(line(frame, [100 * end for end in row.interval], [place, place]))
        marks.append(points(frame, [100 * row.test], [place], names=[f"{row.label}: {100 * row.test:.2f}%"]))
        if row.number in published:
            marks.append(line(frame, [published[row.number]] * 2, [place - 0.3, place + 0.3], color=1))
    legend = ["ours, 95% interval", "published"] if published else []
    return plot(frame, *marks, title="Test accuracy", x_label="% right", y_names=names[::-1], legend=legend)


def cost_plot(analysis: Analysis) -> str | None:
    """Test accuracy against seconds; None if the rows ran on several machines, or their time is not known."""
    rows = [row for row in analysis.rows if row.test is not None and row.seconds is not None and row.interval]
    if not rows or len(analysis.machines) != 1:
        return None
    seconds = [row.seconds or 0.0 for row in rows]
    ends = [100 * end for row in rows for end in row.interval or ()]
    frame = Frame(x=_padded([0, *seconds], 0), y=_padded(ends, 0, 100), width=420, height=330)
    places = [row.seconds or 0.0 for row in rows], [100 * (row.test or 0.0) for row in rows]
    marks = [labels(frame, *places, [str(row.number) for row in rows])]
    for color, group in enumerate((_off_front(rows, on=False), _off_front(rows, on=True))):
        xs = [row.seconds or 0.0 for row in group]
        ys = [100 * (row.test or 0.0) for row in group]
        errors = [(100 * row.interval[0], 100 * row.interval[1]) for row in group if row.interval]
        marks.append(f'<g class="pale">{points(frame, xs, ys, 2 * color, errors, radius=0)}</g>')
        marks.append(points(frame, xs, ys, 2 * color, names=[row.label for row in group]))
    x_label = "seconds per run" + (", frozen layers apart" if any(row.frozen_seconds for row in rows) else "")
    return plot(frame, *marks, title="Accuracy against time", x_label=x_label, y_label="test, % right")


def curve_plots(name: str, own: Curves, reference: Curves, everyone: Sequence[Curves]) -> dict[str, str]:
    """Loss and validation accuracy of a row while it learned; those of the reference row are grey.

    Args:
        name: What the row is called.
        own: The curves of the row.
        reference: The curves of the reference row; empty for that row itself.
        everyone: The curves of all rows: they decide the axes, so that plots of different rows can be compared.

    Returns:
        Drawings under ``loss`` and ``validation``, as far as the run kept the figures.
    """
    drawn = {}
    for figure, short, title, scale in _LEARNED:
        curves = [curves[figure] for curves in own if figure in curves]
        others = [curves[figure] for curves in reference if figure in curves]
        all_of_it = [cell[figure] for row in everyone for cell in row if figure in cell]
        if not curves:
            continue
        values = [scale * value for curve in all_of_it for value in curve.by_epoch()[1]]
        steps = [step for curve in all_of_it for step in curve.steps]
        top = 100.0 if scale == 100 else None
        frame = Frame(x=(0, max(steps)), y=_padded(values, 0, top), width=330, height=220, left=44, bottom=42)
        marks = [_curve(frame, curve, scale, None) for curve in others]
        marks += [f'<g class="pale">{_raw(frame, curve, scale)}</g>' for curve in curves]
        marks += [_curve(frame, curve, scale, 0) for curve in curves]
        drawn[short] = plot(frame, *marks, title=f"{title}: {name}", x_label="step")
    return drawn


def confusion_plot(name: str, confusion: Confusion) -> str:
    """How the examples of each label were answered."""
    rows = [f"is {label}" for label in confusion.labels]
    columns = [answer if answer not in confusion.labels else f"answered {answer}" for answer in confusion.answers]
    return count_table(confusion.counts, rows, columns, f"Answers: {name}")


def _curve(frame: Frame, curve: Curve, scale: float, color: int | None) -> str:
    steps, means = curve.by_epoch()
    drawn = line(frame, steps, [scale * mean for mean in means], color, dashed=color is None)
    if color is None:
        return drawn
    return drawn + points(frame, steps, [scale * mean for mean in means], color, radius=3)


def _raw(frame: Frame, curve: Curve, scale: float) -> str:
    return line(frame, curve.steps, [scale * value for value in curve.values])


def _off_front(rows: Sequence[RowSummary], on: bool) -> list[RowSummary]:
    return [row for row in rows if bool(row.on_front) is on]


def _padded(values: Sequence[float], least: float, most: float | None = None) -> tuple[float, float]:
    """The limits of an axis: the range of the values with a little room, within what is possible."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 1.0
    return max(least, low - room), high + room if most is None else min(most, high + room)
