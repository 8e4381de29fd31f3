"""``ftkit plan``: minutes, memory and price of trainings on a device that need not be there."""

import json as json_format
from pathlib import Path
from typing import Any, Literal

from ftkit.ablation.folder import AblationFolder, row_configs
from ftkit.ablation.search import Search
from ftkit.commands.ablation import parse_seeds
from ftkit.errors import InputError, at_least
from ftkit.library_output import check_before_imports, quiet_lightning
from ftkit.plan.against import Measured
from ftkit.plan.sweep import SweepPlanner


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
    lines = [_HEAD, *map(_line, found)] if beside is None else [_HEAD_BESIDE, *map(_line_beside, found)]
    measured = [] if beside is None else [f"measured on {beside.device}"]
    return "\n".join([*lines, _sum(plan), *measured]) + "\n"


def _search(source: Path, given: Path | None) -> Search | None:
    if source.is_file():
        if given is not None:
            raise InputError("a config file is not searched", field="search", got=given, fix="name an ablation folder")
        return None
    return Search.find(AblationFolder.load(source), given)


_HEAD = (
    f"{'row':<28} {'trained':>13} {'minutes':>8} {'peak GB':>8} {'weights':>8} {'gradients':>9} {'optimizer':>9} "
    f"{'activations':>11}  fits  largest batch"
)


def _line(row: dict[str, Any]) -> str:
    if "not_planned" in row:
        return f"{row['row']:<28} not planned: {row['not_planned']}"
    parts = f"{row['weights_gb']:>8.2f} {row['gradients_gb']:>9.2f} {row['optimizer_gb']:>9.2f}"
    return (
        f"{row['row']:<28} {row['trainable']:>13,} {row['minutes']:>8.2f} {row['peak_gb']:>8.2f} {parts} "
        f"{row['activations_gb']:>11.2f}  {'yes' if row['fits'] else 'no':<4}  {row['largest_batch']}"
    )


_HEAD_BESIDE = (
    f"{'row':<28} {'minutes':>8} {'measured':>8} {'ratio':>6} {'peak GB':>8} {'measured':>8} {'ratio':>6} "
    f"{'positions/s':>11} {'of peak':>7}"
)


def _line_beside(row: dict[str, Any]) -> str:
    if "measured_minutes" not in row:
        return f"{row['row']:<28} {row.get('not_planned', 'not measured')}"
    return (
        f"{row['row']:<28} {row['minutes']:>8.2f} {row['measured_minutes']:>8.2f} {row['minutes_ratio']:>6.2f} "
        f"{row['peak_gb']:>8.2f} {row['measured_peak_gb']:>8.2f} {row['peak_ratio']:>6.2f} "
        f"{row['positions_per_second']:>11,.0f} {row['share_of_peak']:>7.1%}"
    )


def _sum(plan: dict[str, Any]) -> str:
    planned = [row for row in plan["rows"] if "runs" in row]
    runs = sum(row["runs"] for row in planned)
    priced = f", price {plan['price']:.2f}" if "price" in plan else ""
    times = "each run once" if runs == len(planned) else f"{runs:,} runs"
    rows = f"{len(planned)} of {len(plan['rows'])} rows, {times}"
    return f"about {plan['minutes']:,.1f} minutes on {plan['device']}{priced}: {rows}"
