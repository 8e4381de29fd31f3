"""``ftkit plan``: minutes, memory and price of trainings on a device that need not be there."""

import json as json_format
from pathlib import Path
from typing import Any, Literal

from ftkit.ablation.folder import row_configs
from ftkit.errors import at_least
from ftkit.library_output import check_before_imports, quiet_lightning
from ftkit.plan.device import Device


def plan_command(
    source: Path,
    device: str = "here",
    overlay: list[Path] | None = None,
    rows: str | None = None,
    procedure: Literal["ftkit", "published"] = "ftkit",
    price: float | None = None,
    json: bool = False,
) -> str:
    """Plan trainings: minutes, memory and price, without the weights and without the device.

    Args:
        source: An ablation folder, or a config file.
        device: a100, h100, h200, l4, t4, rtx4090, cpu, or a file like theirs; the CPU at hand is measured first if not
            given.
        overlay: Config files laid between the base and each row.
        rows: The rows of a folder, such as 1-5,10; all of them if not given.
        procedure: ftkit's own, or that of the published GPT-2 table.
        price: What an hour of the device costs.
        json: Print JSON.

    Returns:
        The table: a line for each row, and the sum.
    """
    if price is not None:
        at_least(0, price=price)
    known = None if device == "here" else Device.load(device)
    configs = row_configs(source, overlay or [], rows)
    check_before_imports(dict.fromkeys(file for files in configs.values() for file in files))
    from ftkit.plan.here import measured
    from ftkit.plan.plan import plan_rows

    quiet_lightning()
    described = known or measured()
    found = plan_rows(configs, described, procedure)
    total = sum(row.get("minutes", 0.0) for row in found)
    summary: dict[str, Any] = {"device": described.name, "minutes": total}
    if price is not None:
        summary["price"] = total / 60 * price
    if json:
        return json_format.dumps({**summary, "rows": found}, indent=2) + "\n"
    return "\n".join([_HEAD, *map(_line, found), _sum(summary, found)]) + "\n"


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


def _sum(summary: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    planned = f"{sum('minutes' in row for row in rows)} of {len(rows)} rows, each run once"
    priced = f", price {summary['price']:.2f}" if "price" in summary else ""
    return f"about {summary['minutes']:.1f} minutes on {summary['device']}{priced}: {planned}"
