"""The evaluation as one self-contained page: the report in words and tables, and plots; no script, no network."""

from __future__ import annotations

from html import escape
from math import nan

import numpy as np

from ftkit.report.binary_report import Evaluation, sections, verdicts, warned
from ftkit.report.plots import COLORS, STYLE, Frame, bars, count_table, line, plot, points
from ftkit.report.sections import Section
from ftkit.results.assessment import BinaryReport
from ftkit.results.figures import figure_values
from ftkit.results.prevalence import at_prevalence, prevalence_intervals
from ftkit.results.threshold import Threshold, operating_cells

PAGE_STYLE = """
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 1180px; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 34px 0 8px; }
h3 { font-size: 15px; margin: 0 0 6px; overflow-wrap: anywhere; }
.cards { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); }
.card, figure { background: var(--shade); border-radius: 10px; margin: 0; padding: 14px 16px; }
.plots { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); }
figcaption { color: var(--soft); font-size: 13px; }
.big { font-size: 26px; font-weight: 650; } .soft { color: var(--soft); }
.counts { font-family: ui-monospace, monospace; font-size: 13px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13.5px; }
th, td { border-bottom: 1px solid var(--grid); padding: 5px 12px 5px 0; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; } ul { margin: 6px 0 10px; padding-left: 20px; }
li { overflow-wrap: anywhere; }
"""


def to_html(evaluation: Evaluation) -> str:
    """The page.

    Args:
        evaluation: What was found.

    Returns:
        A whole HTML document that needs nothing else.
    """
    first = evaluation.reports[0]
    cards = "".join(_card(report, name) for name, report in zip(evaluation.names, evaluation.reports, strict=True))
    plots = "".join(_plots(evaluation))
    warnings = "".join(map(section_html, warned(evaluation)))
    usual, *rest = [section_html(section) for section in sections(evaluation)]
    body = (
        f"<h1>Evaluation</h1><p class='soft'>Positive: <b>{escape(first.positive)}</b>, negative: "
        f"<b>{escape(first.negative)}</b>. Every interval covers {evaluation.level:.0%}.</p>"
        f"{warnings}<div class='cards'>{cards}</div>{usual}<h2>Plots</h2><div class='plots'>{plots}</div>"
        f"{''.join(rest)}"
    )
    return page("Evaluation", body)


def page(title: str, body: str, style: str = "") -> str:
    """A whole document around a body, with the style of the plots; ``style`` is laid over it."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><link rel="icon" href="data:,"><style>{STYLE}{PAGE_STYLE}{style}</style></head>\n'
        f"<body>{body}</body></html>\n"
    )


def html_table(table: list[list[str]]) -> str:
    """A table whose first row names the columns."""
    head, *rows = table
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def section_html(section: Section) -> str:
    """A section with its heading."""
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in section.sentences)
    listed = f"<ul>{sentences}</ul>" if sentences else ""
    return f"<h2>{escape(section.title)}</h2>{listed}{html_table(section.table) if section.table else ''}"


def _card(report: BinaryReport, name: str) -> str:
    accuracy, balanced = report.figures["accuracy"], report.figures["balanced_accuracy"]
    low, high = report.intervals.get("accuracy", (nan, nan))
    return (
        f"<div class='card'><h3>{escape(name)}</h3><div class='big'>{accuracy.text(3)}</div>"
        f"<div class='soft'>accuracy on {report.counts.n:,} examples ({low:.3f} to {high:.3f}); balanced accuracy "
        f"{escape(balanced.text(3))}</div><p>{escape(verdicts(report)[0])}</p></div>"
    )


def _plots(evaluation: Evaluation) -> list[str]:
    reports, names = evaluation.reports, evaluation.names
    drawn = [
        figure(_confusion(report, name), "Rows are the labels; the share is of the row.")
        for name, report in zip(names, reports, strict=True)
    ]
    scored = [(name, report) for name, report in zip(names, reports, strict=True) if report.curve is not None]
    both = [pair for pair in scored if pair[1].counts.positives and pair[1].counts.negatives]
    if both:
        drawn.append(figure(_roc(both), "The dot is what the file answers; the dashed line is guessing."))
        drawn.append(figure(_precision_recall(both), "The dashed line is the prevalence: precision without skill."))
    if scored:
        drawn.append(figure(_calibration(scored), "Above the dashed line the probability is too low, below too high."))
    for name, report in both:
        drawn.append(figure(_thresholds(name, report, evaluation.threshold), "What every threshold would give."))
    shiftable = [(n, r) for n, r in zip(names, reports, strict=True) if r.counts.positives and r.counts.negatives]
    if shiftable:
        caption = (
            "If recall and specificity of the file's answers stay and only the mix changes; dashed: the "
            f"{evaluation.level:.0%} interval."
        )
        drawn.append(figure(_prevalence(shiftable, evaluation.level), caption))
    return drawn


def figure(svg: str, caption: str) -> str:
    """A plot with a line below it."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _confusion(report: BinaryReport, name: str) -> str:
    c = report.counts
    rows = [[c.tp, c.fn], [c.fp, c.tn]]
    columns = [f"answered {report.positive}", f"answered {report.negative}"]
    if c.unparsed:
        rows = [[*rows[0], c.unparsed_positive], [*rows[1], c.unparsed_negative]]
        columns.append("neither")
    return count_table(rows, [f"is {report.positive}", f"is {report.negative}"], columns, name)


def _roc(scored: list[tuple[str, BinaryReport]]) -> str:
    frame = Frame()
    marks = [line(frame, [0, 1], [0, 1], color=None, dashed=True)]
    for color, (name, report) in enumerate(scored):
        curve = report.curve
        assert curve is not None
        x = np.append(0, curve.fp) / curve.negatives
        y = np.append(0, curve.tp) / curve.positives
        marks.append(line(frame, x.tolist(), y.tolist(), color % COLORS))
        c = report.counts
        marks.append(points(frame, [c.fp / c.negatives], [c.tp / c.positives], color % COLORS, names=[name]))
    legend = [f"{name} {report.figures['auroc'].text(3)}" for name, report in scored]
    return plot(
        frame,
        *marks,
        title=_titled("ROC", "AUROC", "auroc", scored),
        x_label="false-positive rate",
        y_label="recall",
        legend=legend,
    )


def _precision_recall(scored: list[tuple[str, BinaryReport]]) -> str:
    frame = Frame()
    marks = []
    for color, (name, report) in enumerate(scored):
        curve, c = report.curve, report.counts
        assert curve is not None
        marks.append(line(frame, [0, 1], [c.positives / c.n] * 2, color % COLORS, dashed=True))
        precision = curve.tp / (curve.tp + curve.fp)
        marks.append(line(frame, (curve.tp / curve.positives).tolist(), precision.tolist(), color % COLORS))
        if c.tp + c.fp:
            marks.append(points(frame, [c.tp / c.positives], [c.tp / (c.tp + c.fp)], color % COLORS, names=[name]))
    legend = [f"{name} {report.figures['average_precision'].text(3)}" for name, report in scored]
    title = _titled("Precision and recall", "average precision", "average_precision", scored)
    return plot(frame, *marks, title=title, x_label="recall", y_label="precision", legend=legend)


def _calibration(scored: list[tuple[str, BinaryReport]]) -> str:
    frame = Frame()
    marks = [line(frame, [0, 1], [0, 1], color=None, dashed=True)]
    for color, (_, report) in enumerate(scored):
        calibration = report.calibration
        assert calibration is not None
        if len(scored) == 1:
            bins = len(calibration.count)
            centres = [(k + 0.5) / bins for k in range(bins)]
            shares = calibration.count / calibration.count.max()
            marks.append(bars(frame, centres, shares.tolist(), 1 / bins, color, pale=True))
        marks.append(line(frame, calibration.predicted.tolist(), calibration.observed.tolist(), color % COLORS))
        names = [f"{count:,} examples" for count in calibration.count.tolist()]
        marks.append(points(frame, calibration.predicted.tolist(), calibration.observed.tolist(), color, names=names))
    title = _titled("Calibration", "error", "calibration_error", scored)
    legend = [f"{name} {report.figures['calibration_error'].text(3)}" for name, report in scored]
    x_label = f"mean P({scored[0][1].positive}) in the bin"
    return plot(frame, *marks, title=title, x_label=x_label, y_label="share that is so", legend=legend)


def _thresholds(name: str, report: BinaryReport, threshold: Threshold | None) -> str:
    assert report.curve is not None
    values, cells = operating_cells(report.curve)
    finite = values[np.isfinite(values)]
    whole = report.kind == "probability" or not len(finite)  # log-odds may all be infinite
    frame = Frame(x=(0.0, 1.0) if whole else (float(finite.min()), float(finite.max())))
    figures = figure_values(cells)
    shown = ("accuracy", "f_measure", "balanced_accuracy", "specificity", "recall")
    marks = [line(frame, values.tolist(), figures[figure].tolist(), color) for color, figure in enumerate(shown)]
    if threshold is not None:
        marks.append(line(frame, [threshold.value] * 2, [0, 1], color=None, dashed=True))
    legend = [figure.replace("_", " ") for figure in shown]
    kind = report.kind.replace("_", " ")
    return plot(frame, *marks, title=f"Thresholds: {name}", x_label=f"threshold on the {kind}", legend=legend)


def _prevalence(reports: list[tuple[str, BinaryReport]], level: float) -> str:
    frame = Frame()
    shares = [k / 50 for k in range(51)]
    marks = []
    for color, (name, report) in enumerate(reports):
        expected = [point["precision"].value for point in at_prevalence(report.counts, shares)]
        heights = [nan if value is None else value for value in expected]
        marks.append(line(frame, shares, heights, color % COLORS))
        limits = [point.get("precision", (nan, nan)) for point in prevalence_intervals(report.counts, shares, level)]
        marks += [line(frame, shares, list(ends), color % COLORS, dashed=True) for ends in zip(*limits, strict=True)]
        here, precision = report.figures["prevalence"].value, report.figures["precision"].value
        if here is not None and precision is not None:
            marks.append(points(frame, [here], [precision], color % COLORS, names=[f"{name}: here"]))
    return plot(
        frame,
        *marks,
        title="Precision at another prevalence",
        x_label="prevalence",
        y_label="precision",
        legend=[name for name, _ in reports],
    )


def _titled(title: str, figure: str, key: str, scored: list[tuple[str, BinaryReport]]) -> str:
    return f"{title}: {figure} {scored[0][1].figures[key].text(3)}" if len(scored) == 1 else f"{title} ({figure})"
