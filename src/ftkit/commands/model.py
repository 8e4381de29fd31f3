"""``ftkit model show``: architecture, memory needs and prompt format of a model."""


def model_show(model: str, revision: str | None = None, rank: int = 8) -> str:
    """Show a model's architecture, memory needs and prompt format, without loading its weights.

    Args:
        model: A hub id, a folder in transformers format, a GGUF file, or demo (demo-small, demo-medium, demo-large,
            demo-xl).
        revision: Hub revision.
        rank: Rank of the LoRA adapters in the estimates.

    Returns:
        Architecture and checkpoint, parameters by part, memory, license, prompt format and LoRA targets.
    """
    from ftkit.errors import at_least

    at_least(1, rank=rank)
    from ftkit.models.facts import model_facts, tokenizer_of
    from ftkit.models.report import to_text

    return to_text(model_facts(model, revision), tokenizer_of(model, revision), rank)
