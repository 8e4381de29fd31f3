"""Write the model card of a run: figures with intervals, data, base model, and how to repeat it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ftkit.results.preferences import interval_of_counts


@dataclass(frozen=True)
class Use:
    """Hold what the example of a model's use fills in, as far as its form needs it.

    Attributes:
        kind: The class of ftkit that loads a classifier in ftkit's own form.
        auto_class: The class of transformers that loads the model, or its base.
        base: The arguments that load the base, as Python text; None where the repository holds the whole model.
        encoder: Whether a classifier is an encoder, whose tokenizer adds special tokens.
        max_length: Largest number of tokens of a text to classify.
        labels: The classes in their order.
        max_new_tokens: Longest answer of a generative model.
        chat: Whether its prompts are written by a chat template.
        virtual: The number of its virtual tokens.
        note: What else a user has to know, in sentences.
    """

    kind: str = ""
    auto_class: str = ""
    base: str | None = None
    encoder: bool = False
    max_length: int = 0
    labels: Sequence[str] = ()
    max_new_tokens: int = 0
    chat: bool = False
    virtual: int = 0
    note: str = ""


@dataclass(frozen=True)
class CardFacts:
    """Hold the content of a model card besides the figures of the run.

    Attributes:
        task: The hub's word for the task, such as ``text-classification``.
        base: The base model's name; None if it is a folder that others do not have.
        revision: The revision or commit of the base.
        contents: What the repository holds, in words.
        library: The hub's word for what loads it: ``ftkit``, ``peft`` or ``transformers``.
        license: The hub's word for the license; None says nothing.
        metric: What is counted as right, in words.
        use: What the example of its use fills in.
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
    use: Use = Use()


def model_card(facts: CardFacts, result: Mapping[str, Any], configured: bool) -> str:
    """Write the card from the template ``assets/model_card.md.j2``.

    Args:
        facts: What to tell.
        result: What the run recorded in its ``result.json``.
        configured: Whether the repository holds the run's ``config.yaml``.

    Returns:
        Markdown with the hub's YAML header, which has the figures in the hub's own form (``model-index``).
    """
    name, data = facts.repo.rpartition("/")[2], result.get("data") or {}
    splits = result.get("splits", {})
    figures = [
        EvalResult(
            facts.task, "custom", data.get("source", "not recorded"), "accuracy", split["accuracy"],
            dataset_split=which, metric_name=facts.metric,
        )
        for which, split in splits.items()
        if "accuracy" in split
    ]  # fmt: skip
    header = ModelCardData(
        base_model=facts.base if facts.base and "/" in facts.base else None,
        eval_results=figures or None,
        library_name=facts.library,
        license=facts.license,
        model_name=name if figures else None,
        pipeline_tag=facts.task,
        tags=["ftkit", *facts.tags],
    )
    told: dict[str, Any] = {"facts": facts, "use": facts.use, "name": name, "result": result, "data": data}
    told["configured"] = configured
    told["evaluated"] = [(which, split["n"], *_share(split)) for which, split in splits.items() if "correct" in split]
    template = resources.files("ftkit").joinpath("assets", "model_card.md.j2").read_text(encoding="utf-8")
    return str(ModelCard.from_template(header, template_str=template, **told))


def _share(split: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return the share of right answers, a tie counting as half, and the ends of its interval."""
    share = (split["correct"] + split.get("ties", 0) / 2) / split["n"]
    return share, *interval_of_counts(split["n"], split["correct"], split.get("ties"))
