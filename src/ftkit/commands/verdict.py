"""``ftkit verdict``: whether A is better than B, as an exit code."""

from json import dumps
from pathlib import Path
from typing import Any

from ftkit.errors import InputError
from ftkit.report.verdict import plan as make_plan
from ftkit.report.verdict import verdict


def verdict_command(
    sides: list[Path],
    *,
    json: bool = False,
    plan: bool = False,
    difference: float | None = None,
    disagreement: float | None = None,
    seed_sd: float | None = None,
    power: float = 0.8,
    **options: Any,
) -> None:
    """Say whether A is better than B; exit with 0 for better, 10 not shown, 11 worse, 12 equivalent.

    Args:
        sides: A and B: prediction files, run folders, or rows of an output folder such as OUT/05_lora, which are all
            their finished seeds. With `--plan` they may be left out.
        json: Print JSON.
        plan: Say how many examples or seeds it takes to see a `--difference` instead.
        difference: To plan: the true difference in accuracy.
        disagreement: To plan without sides: the share of examples that only one of the two gets right.
        seed_sd: To plan without sides: the standard deviation of the difference between seeds.
        power: To plan: the probability of finding the difference, if there is one.
        **options: Those of :func:`ftkit.report.verdict.verdict`.

    Raises:
        InputError: A side cannot be used, or the two cannot be compared.
        SystemExit: The verdict is another than better; its code says which.
    """
    sides = sides or []
    if len(sides) != 2 and not (plan and not sides):
        raise InputError("two are compared", field="sides", got=len(sides), fix="give A and B")
    if plan:
        if difference is None or (not sides and disagreement is None and seed_sd is None):
            raise InputError("needs --difference, and two sides, --disagreement or --seed_sd", field="plan")
        a, b = sides or (None, None)
        shared = {name: options[name] for name in ("comparisons", "normalize_labels")}
        needed = make_plan(difference, a, b, disagreement=disagreement, seed_sd=seed_sd, power=power, **shared)
        lines = [f"{name}: {'no number is enough' if value is None else value}" for name, value in needed.items()]
        print(dumps(needed, indent=2) if json else "\n".join(lines))
        return
    found = verdict(sides[0], sides[1], **options)
    print(found.to_json() if json else found)
    if found.exit_code:
        raise SystemExit(found.exit_code)
