"""``ftkit plan``: minutes, memory and price of trainings on a device that need not be there."""

import json as json_format
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ftkit.ablation.folder import AblationFolder, row_configs
from ftkit.ablation.search import Search
from ftkit.commands.ablation import parse_seeds
from ftkit.errors import InputError, at_least
from ftkit.library_output import check_before_imports, quiet_lightning
from ftkit.plan.against import Measured
from ftkit.plan.sweep import SweepPlanner
from ftkit.report.document import Table, table_lines

_MANY = 100_000  # no data set here has a batch of so many examples


def plan_command(
    source: Path,
    device: str = "here",
    overlay: list[Path] | None = None,
    rows: str | None = None,
    procedure: Literal["ftkit", "published"] = "ftkit",
    price: float | None = None,
    search: Path | None = None,
    seeds: str | None = None,
    against: Path | None = None,
    json: bool = False,
) -> str:
    """Plan trainings: minutes, memory and price, without the weights and without the device.

    Args:
        source: An ablation folder, or a config file.
        device: a100, h100, h200, l4, t4, rtx4090, cpu, or a file like theirs; here is the CPU at hand, which is
            measured first.
        overlay: Config files applied between the base and each row; repeat it for several.
        rows: The rows of a folder, such as 1-5,10; all of them if not given.
        procedure: ftkit's own, or that of the published GPT-2 table.
        price: What an hour of the device costs.
        search: A file of settings to try for each row, as of `ftkit ablation run`. By default search.yaml in a folder,
            if it exists and --against is not given.
        seeds: The seeds to run each row or setting with, such as 1,2,3.
        against: What benchmarks/gpu_check.sh measured on the device, to be shown beside the plan.
        json: Print JSON.

    Returns:
        The table: a line for each row, and the sum.
    """
    if price is not None:
        at_least(0, price=price)
    if against is not None and (search is not None or procedure != "ftkit"):
        problem, fix = "what was measured is one run of ftkit's own procedure", "leave out --search and --procedure"
        raise InputError(problem, field="against", got=against, fix=fix)
    beside = None if against is None else Measured.read(against)
    configs = row_configs(source, overlay or [], rows)
    planner = SweepPlanner(device, None if beside is not None else _search(source, search))
    times = 1 if seeds is None else len(parse_seeds(seeds))
    check_before_imports(dict.fromkeys(file for files in configs.values() for file in files))
    from ftkit.plan.plan import summary

    quiet_lightning()
    setting = () if beside is None else beside.setting
    found, described = planner.plan(configs, times, procedure=procedure, setting=setting)
    if beside is not None:
        found = [beside.beside(row) for row in found]
    plan = summary(found, described, price)
    if json:
        return json_format.dumps(plan, indent=2) + "\n"
    measured = [] if beside is None else [f"measured on {beside.device}"]
    return "\n".join([*_lines(found, beside is not None), _sum(plan), *measured]) + "\n"


def _search(source: Path, given: Path | None) -> Search | None:
    if source.is_file():
        if given is not None:
            raise InputError("a config file is not searched", field="search", got=given, fix="name an ablation folder")
        return None
    return Search.find(AblationFolder.load(source), given)


_PLANNED = {
    "trained": "{trainable:,}",
    "minutes": "{minutes:.2f}",
    "peak GB": "{peak_gb:.2f}",
    "weights": "{weights_gb:.2f}",
    "gradients": "{gradients_gb:.2f}",
    "optimizer": "{optimizer_gb:.2f}",
    "activations": "{activations_gb:.2f}",
    "fits": "{yes_or_no}",
    "largest batch": "{batch}",
}
_BESIDE = {
    "minutes": "{minutes:.2f}",
    "measured": "{measured_minutes:.2f}",
    "ratio": "{minutes_ratio:.2f}",
    "peak GB": "{peak_gb:.2f}",
    "measured GB": "{measured_peak_gb:.2f}",
    "memory ratio": "{peak_ratio:.2f}",
    "positions/s": "{positions_per_second:,.0f}",
    "of peak": "{share_of_peak:.1%}",
}


def _lines(rows: list[dict[str, Any]], beside: bool) -> list[str]:
    """Return the table, and below it the rows that have no place in it."""
    columns, needed = (_BESIDE, "measured_minutes") if beside else (_PLANNED, "minutes")
    shown = [[row["row"], *_cells(row, columns.values())] for row in rows if needed in row]
    left_out = [f"{row['row']}: {_left_out(row)}" for row in rows if needed not in row]
    table = Table(["row", *columns], shown, frozenset(range(1, len(columns) + 1)))
    return [*(table_lines(table) if shown else []), *left_out]


def _cells(row: dict[str, Any], forms: Iterable[str]) -> list[str]:
    batch = f"{row['largest_batch']:,}" if row["largest_batch"] < _MANY else f">{_MANY:,}"
    return [form.format(**row, yes_or_no="yes" if row["fits"] else "no", batch=batch) for form in forms]


def _left_out(row: dict[str, Any]) -> str:
    return f"not planned: {row['not_planned']}" if "not_planned" in row else "not measured"


def _sum(plan: dict[str, Any]) -> str:
    planned = [row for row in plan["rows"] if "runs" in row]
    runs = sum(row["runs"] for row in planned)
    priced = f", price {_amount(plan['price'])}" if "price" in plan else ""
    times = "each run once" if runs == len(planned) else f"{runs:,} runs"
    rows = f"{len(planned)} of {len(plan['rows'])} rows, {times}"
    return f"about {_amount(plan['minutes'])} minutes on {plan['device']}{priced}: {rows}"


def _amount(value: float) -> str:
    """Return a number with a decimal place, or with two digits where that would be 0.0."""
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"
