"""The report of an ablation as one self-contained page: no script, no network, for screen, phone and paper."""

from __future__ import annotations

from html import escape

from ftkit.ablation.summary import RowSummary
from ftkit.report.ablation_footer import footer
from ftkit.report.ablation_report import Report
from ftkit.report.ablation_table import columns
from ftkit.report.page import html_table, page
from ftkit.report.plots import LIGHT

STYLE = f"""{LIGHT}
:root {{ color-scheme: only light; }}
body {{ font-size: 16px; line-height: 1.55; max-width: 1120px; -webkit-text-size-adjust: 100%; }}
h1 {{ font-size: 28px; line-height: 1.2; }} h2 {{ font-size: 21px; margin: 44px 0 10px; }}
p, li, dd {{ max-width: 46em; }}
.lead {{ color: var(--soft); margin: 6px 0 0; }}
.found {{ border-top: 1px solid var(--grid); padding: 12px 0; display: grid; gap: 2px 24px;
  grid-template-columns: minmax(0, 15em) minmax(0, 1fr); }}
.found p {{ margin: 0; }} .found .ask {{ color: var(--soft); font-size: 14.5px; }}
.figures table {{ font-size: 13px; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.figures th, .figures td {{ padding: 5px 0 5px 11px; text-align: right; }}
.figures .left, .figures .name {{ text-align: left; }}
.figures .name {{ background: var(--paper); left: 0; position: sticky; }}
.figures tr.none td {{ color: var(--soft); }}
.overview {{ align-items: start; display: grid; gap: 14px; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); }}
.overview svg.plot {{ max-width: 760px; }}
.row {{ border-top: 1px solid var(--grid); padding: 18px 0 22px; break-inside: avoid; }}
.row h3 {{ font-size: 17px; }} .row p {{ margin: 4px 0 12px; }}
.small {{ display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(280px, 100%), 1fr)); }}
figure {{ background: none; border: 1px solid var(--grid); padding: 10px 12px; break-inside: avoid; }}
code {{ font: 13.5px ui-monospace, monospace; overflow-wrap: anywhere; }}
.notes {{ font-size: 14px; color: #475063; }} .notes li {{ margin: 3px 0; }}
@media (max-width: 760px) {{ body {{ padding: 16px; }}
  .found, .overview {{ grid-template-columns: minmax(0, 1fr); }} h1 {{ font-size: 24px; }}
  figure {{ overflow-x: auto; }} .overview figure:first-child svg.plot {{ min-width: 480px; }} }}
@media print {{ @page {{ size: A4 landscape; margin: 12mm; }} body {{ max-width: none; padding: 0; font-size: 11pt; }}
  .scroll {{ overflow: visible; }} .figures table {{ font-size: 7.5pt; }} .figures .name {{ position: static; }}
  h2 {{ break-after: avoid; }} .small {{ grid-template-columns: repeat(3, 1fr); }} }}
"""


def to_html(report: Report) -> str:
    """The page.

    Args:
        report: What it says.

    Returns:
        A whole HTML document that needs nothing else.
    """
    name = report.analysis.sweep.name
    body = [
        f"<h1>{escape(name)}</h1><p class='lead'>{escape(report.summary)}</p>",
        f"<h2>What was found</h2>{''.join(_found(report, row) for row in report.done)}" if report.done else "",
        _overview(report),
        f"<h2>All figures</h2>{_table(report)}{_notes(report)}",
        f"<h2>Row by row</h2>{''.join(_row(report, row) for row in report.done)}" if report.done else "",
        _made_with(report),
    ]
    return page(f"{name}: report", "\n".join(body), STYLE)


def _found(report: Report, row: RowSummary) -> str:
    question, answer = escape(row.question), escape(report.answers[row.number])
    return f"<div class='found'>{_heading(row)}<div><p class='ask'>{question}</p><p>{answer}</p></div></div>"


def _overview(report: Report) -> str:
    drawn = ""
    if "accuracy" in report.plots:
        caption = (
            "Dot and line: our accuracy with its 95% interval. Dashed: the reference row. "
            "*: the difference from it is significant."
        )
        if any(row.unjudged for row in report.done):
            caption += " The published figures come from other data or another base model, see below the table."
        drawn += _figure(report.plots["accuracy"], caption)
    if "cost" in report.plots:
        caption = (
            "Green: no other row is at once as accurate, as fast and as small in memory. "
            f"All rows ran on the same machine ({report.analysis.machines[0]})."
        )
        drawn += _figure(report.plots["cost"], caption)
    elif len(report.analysis.machines) > 1:
        drawn += "<p>Cost is not drawn: the rows ran on different machines, so their times do not compare.</p>"
    return f"<h2>Accuracy</h2><div class='overview'>{drawn}</div>" if drawn else ""


def _table(report: Report) -> str:
    shown = columns(report.analysis)
    kinds = ["name" if column.header == "name" else "left" if column.left else "" for column in shown]
    head = "".join(f"<th class='{k}'>{escape(column.header)}</th>" for k, column in zip(kinds, shown, strict=True))
    lines = []
    for row in report.analysis.rows:
        texts = [escape(column.show(row).strip()) for column in shown]
        cells = "".join(f"<td class='{k}'>{text}</td>" for k, text in zip(kinds, texts, strict=True))
        lines.append(f"<tr class='{'none' if row.test is None else ''}'>{cells}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f"<div class='scroll figures'>{table}</div>"


def _notes(report: Report) -> str:
    lines = footer(report.analysis)
    return f"<ul class='notes'>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _row(report: Report, row: RowSummary) -> str:
    captions = {
        "loss": "Mean of each epoch; pale: as logged, cut at the frame.",
        "validation": "At the end of each epoch.",
        "confusion": "Rows are the labels; the share is of the row.",
    }
    drawn = "".join(
        _figure(report.plots[f"{row.number:02}-{name}"], caption + _grey(report, row, name))
        for name, caption in captions.items()
        if f"{row.number:02}-{name}" in report.plots
    )
    return f"<div class='row'>{_heading(row)}<p>{_difference(report, row)}</p><div class='small'>{drawn}</div></div>"


def _heading(row: RowSummary) -> str:
    return f"<h3>{row.number}&ensp;{escape(row.name)}</h3>"


def _grey(report: Report, row: RowSummary, name: str) -> str:
    reference = report.analysis.reference
    return "" if name == "confusion" or row.number == reference.number else f" Grey: row {reference.number}."


def _difference(report: Report, row: RowSummary) -> str:
    if row.differs is None:
        return "The reference." if row.number == report.analysis.reference.number else ""
    settings = "; ".join(f"{name.removeprefix('config.')}: {words}" for name, words in row.differs.items())
    shown = f"<code>{escape(settings)}</code>" if settings else "nothing"
    return f"Differs from row {report.analysis.reference.number} in exactly: {shown}."


def _made_with(report: Report) -> str:
    if not report.made_with:
        return ""
    table = [["", ""], *([name, values] for name, values in report.made_with.items())]
    return f"<h2>Made with</h2>{html_table(table)}"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
