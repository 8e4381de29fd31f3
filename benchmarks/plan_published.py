"""Plan the 19 published rows on an A100 beside the published minutes, and ftkit's own procedure on an H100.

python benchmarks/plan_published.py --messages SMSSpamCollection --tokenizer FOLDER

FOLDER holds GPT-2's vocab.json and merges.txt. No weights are read, and no GPU is used.
"""

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from scipy.stats import spearmanr

from ftkit.ablation.folder import row_configs
from ftkit.ablation.published import read_published
from ftkit.library_output import quiet_lightning
from ftkit.plan.device import Device
from ftkit.plan.plan import plan_rows

CH06 = Path(__file__).parents[1] / "configs/ch06"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rows", default="1-19")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    quiet_lightning()
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "real.yaml"
        options = {"source": str(given.messages.absolute())}
        tokenizer = {"tokenizer": str(given.tokenizer.absolute())}
        overlay.write_text(yaml.safe_dump({"data": {"init_args": options}, "model": {"init_args": tokenizer}}))
        name = given.results / f"{datetime.now(UTC):%Y-%m-%d}-plan.md"
        rows = row_configs(CH06, [overlay], given.rows)
        name.write_text(beside_published(plan_rows(rows, Device.load("a100"), "published")))
        with name.open("a") as file:
            file.write(own_procedure(plan_rows(rows, Device.load("h100"))))


def beside_published(rows: list[dict[str, Any]]) -> str:
    """The page's first part: the published procedure on an A100."""
    known = read_published(CH06 / "published.csv", range(1, 27)).rows
    pairs = [(known[int(row["row"][:2])].minutes or 0.0, row["minutes"]) for row in rows]
    lines = ["| row | published, min | planned, min | ratio | peak GB |", "|---|---|---|---|---|"]
    for row, (minutes, planned) in zip(rows, pairs, strict=True):
        figures = f"{minutes:.2f} | {planned:.2f} | {planned / minutes:.2f} | {row['peak_gb']:.1f}"
        lines.append(f"| {row['row']} | {figures} |")
    near = sum(2 / 3 <= planned / minutes <= 1.5 for minutes, planned in pairs)
    correlation = spearmanr(*zip(*pairs, strict=True)).statistic
    lines += ["", f"Rank correlation {correlation:.3f}; {near} of {len(pairs)} rows within a factor of 1.5."]
    command = "`plan_published.py --messages SMSSpamCollection --tokenizer FOLDER`: no weights, no GPU."
    head = ["# Planned beside published minutes: the published procedure on an A100", "", command, ""]
    return "\n".join([*head, *lines, ""])


def own_procedure(rows: list[dict[str, Any]]) -> str:
    """The page's second part: ftkit's procedure on an H100."""
    lines = [
        "",
        "## ftkit's own procedure on an H100",
        "",
        "| row | planned, min | peak GB | fits |",
        "|---|---|---|---|",
    ]
    for row in rows:
        fits = "yes" if row["fits"] else "no"
        lines.append(f"| {row['row']} | {row['minutes']:.2f} | {row['peak_gb']:.1f} | {fits} |")
    return "\n".join([*lines, "", f"All rows: {sum(row['minutes'] for row in rows):.1f} minutes.", ""])


if __name__ == "__main__":
    main()
