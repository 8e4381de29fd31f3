"""The model card of a run: what it is, how well it does with intervals, what it was made from, how to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml  # type: ignore[import-untyped]

from ftkit.results.preferences import interval_of_counts


@dataclass(frozen=True)
class CardFacts:
    """What a card tells besides the figures of the run.

    Args:
        repo: The repository's name on the hub.
        task: The hub's word for the task, such as ``text-classification``.
        base: The base model's name; None if it is a folder that others do not have.
        revision: The revision or commit of the base.
        contents: What the repository holds, in words.
        library: The hub's word for what loads it: ``ftkit``, ``peft`` or ``transformers``.
        tags: Further tags.
        license: The hub's word for the licence; None says nothing.
        metric: What is counted as right, in words.
    """

    repo: str
    task: str
    base: str | None
    revision: str | None
    contents: str
    library: str
    tags: tuple[str, ...] = ()
    license: str | None = None
    metric: str = "accuracy"


def model_card(facts: CardFacts, result: Mapping[str, Any], configured: bool) -> str:
    """Write the card.

    Args:
        facts: What to tell.
        result: What the run recorded in its ``result.json``.
        configured: Whether the repository holds the run's ``config.yaml``.

    Returns:
        Markdown with the hub's YAML header.
    """
    body = [
        f"# {facts.repo.rpartition('/')[2]}",
        "",
        f"A model for {facts.task.replace('-', ' ')}, fine-tuned with ftkit {result['versions'].get('ftkit', '')}.",
        f"This repository holds {facts.contents}.",
        _base(facts),
        "",
        "## Results",
        *_results(facts, result),
        "",
        "## Data",
        *_data(result.get("data") or {}),
        "",
        "## How it was made",
        *_making(result, configured),
        "",
        "## Use",
        *_use(facts),
    ]
    return f"---\n{yaml.safe_dump(_header(facts, result), sort_keys=False)}---\n\n" + "\n".join(body) + "\n"


def _use(facts: CardFacts) -> list[str]:
    """How to run the model: served by ftkit, which serves texts only, or loaded by transformers."""
    if facts.task != "image-text-to-text":
        commands = [f"$ hf download {facts.repo} --local-dir model", "$ ftkit serve model"]
        return ["```console", *commands, "```"]
    peft = " and peft, which puts the adapters on the base model" if facts.library == "peft" else ""
    return [
        f"It needs transformers{peft}.",
        "```python",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        f'processor = AutoProcessor.from_pretrained("{facts.repo}")',
        f'model = AutoModelForImageTextToText.from_pretrained("{facts.repo}")',
        "```",
    ]


def _header(facts: CardFacts, result: Mapping[str, Any]) -> dict[str, Any]:
    """The card's YAML header, with the figures in the hub's own form (``model-index``)."""
    header: dict[str, Any] = {"license": facts.license} if facts.license else {}
    header |= {"library_name": facts.library, "pipeline_tag": facts.task, "tags": ["ftkit", *facts.tags]}
    if facts.base and "/" in facts.base:
        header["base_model"] = facts.base
    source = str((result.get("data") or {}).get("source", "not recorded"))
    results = [
        {
            "task": {"type": facts.task},
            "dataset": {"name": source, "type": "custom", "split": split},
            "metrics": [{"type": "accuracy", "name": facts.metric, "value": figures["accuracy"]}],
        }
        for split, figures in result.get("splits", {}).items()
        if "accuracy" in figures
    ]
    if results:
        header["model-index"] = [{"name": facts.repo.rpartition("/")[2], "results": results}]
    return header


def _base(facts: CardFacts) -> str:
    if facts.base is None:
        return "Its base model was a folder on the author's machine and is not on the hub."
    return f"Base model: `{facts.base}`" + (f" at `{facts.revision}`." if facts.revision else ".")


def _results(facts: CardFacts, result: Mapping[str, Any]) -> list[str]:
    rows = []
    for split, figures in result.get("splits", {}).items():
        if "correct" in figures:
            low, high = interval_of_counts(figures["n"], figures["correct"], figures.get("ties"))
            share = (figures["correct"] + figures.get("ties", 0) / 2) / figures["n"]
            rows.append(f"| {split} | {figures['n']:,} | {share:.2%} | {low:.2%} to {high:.2%} |")
    if not rows:
        return ["It was not evaluated."]
    return [f"| split | n | {facts.metric} | 95% interval |", "|---|---|---|---|", *rows]


def _data(data: Mapping[str, Any]) -> list[str]:
    lines = [f"- source: {data.get('source', 'not recorded')}", f"- SHA-256: `{data.get('sha256', 'not recorded')}`"]
    if sizes := data.get("sizes"):
        lines.append("- examples: " + ", ".join(f"{count:,} {split}" for split, count in sizes.items()))
    return lines


def _making(result: Mapping[str, Any], configured: bool) -> list[str]:
    lines = []
    if configured:
        lines += ["```console", "$ ftkit fit --config config.yaml", "$ ftkit test --config config.yaml", "```", ""]
    parameters, hardware = result.get("parameters", {}), result.get("hardware", {})
    if parameters:
        lines.append(f"- {parameters['trainable']:,} of {parameters['total']:,} parameters were trained")
    if "steps" in result:
        seconds = result.get("seconds", {}).get("fit", 0)
        lines.append(f"- {result['steps']:,} steps in {seconds:,.0f} s on {hardware.get('gpu') or hardware.get('cpu')}")
    lines.append(f"- seed: {result.get('seed')}")
    lines.append("- versions: " + ", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    return lines
