"""Render the facts about a model as text."""

from typing import Any

from jinja2 import TemplateError
from rich.filesize import decimal

from ftkit.models.facts import SAMPLE, ModelFacts
from ftkit.models.memory import Need, inference_needs, training_needs


def to_text(facts: ModelFacts, tokenizer: Any | None, rank: int) -> str:
    """Write the page: architecture, checkpoint, parameters, memory, license, prompt format, linear layers.

    Without a tokenizer nothing is said of prompts; ``rank`` is that of the LoRA in the estimates.
    """
    training = "Memory to train: weights, gradients and AdamW's moments; activations come on top (batch x length)"
    targets = ", ".join(facts.lora_targets[0]) or "nothing: the model has no language head"
    sections = [
        _identity(facts),
        ["Parameters by part", *_parameters(facts)],
        ["Memory to answer", *_needs(inference_needs(facts))],
        [training, *_needs(training_needs(facts, rank))],
        ["License and access", *_license(facts.card)],
        ["Prompt format", *_prompt(tokenizer)],
        ["Adapters", f"  linear layers to adapt: {targets}"],
    ]
    return "\n\n".join(map("\n".join, sections)) + "\n"


def _identity(facts: ModelFacts) -> list[str]:
    config = facts.config
    files = ", ".join(f"{name} ({decimal(size)})" for name, size in facts.weight_files.items())
    shape = f"{config.num_hidden_layers} layers x {config.hidden_size} wide x {config.num_attention_heads} heads"
    return [
        f"{facts.name}",
        f"  architecture (the skeleton):  {facts.architecture[0]}, family {facts.architecture[1]}",
        f"                                {shape}, vocabulary {config.vocab_size:,}, context {facts.context or 'open'}",
        f"  checkpoint (the weights):     {files or 'no weight file here'}",
        f"                                {str(facts.dtype).removeprefix('torch.')}"
        + (f", commit {facts.commit}" if facts.commit else "")
        + (f" once unpacked; tensors in the file: {_counted(facts.packed)}" if facts.packed else ""),
    ]


def _counted(packed: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in packed.items())


def _parameters(facts: ModelFacts) -> list[str]:
    lines = [f"  {part:<14} {count:>15,}  {count / facts.total:6.1%}" for part, count in facts.parameters.items()]
    lines.append(f"  {'total':<14} {facts.total:>15,}")
    if facts.tied:
        lines.append("  the output head shares the weight of the token embeddings; it is counted once")
    return lines


def _needs(needs: list[Need]) -> list[str]:
    return [f"  {need.way:<24} {decimal(need.size):>10}   {need.formula}" for need in needs]


def _license(card: dict[str, Any]) -> list[str]:
    if not card:
        return ["  not known: no model card here"]
    name = card.get("license_name") or card.get("license") or "the card names none"
    gated = any(str(key).startswith("extra_gated") for key in card)
    lines = [f"  license: {name}" + (f" ({card['license_link']})" if card.get("license_link") else "")]
    lines.append(f"  gated: {'yes, its license must be accepted on the hub' if gated else 'the card names no gate'}")
    if card.get("base_model"):
        lines.append(f"  made from: {card['base_model']}")
    return lines


def _prompt(tokenizer: Any | None) -> list[str]:
    if tokenizer is None:
        return ["  no tokenizer here"]
    if tokenizer.chat_template:
        try:
            ids = tokenizer.apply_chat_template(SAMPLE, tokenize=True, return_dict=True)["input_ids"]
        except (TemplateError, TypeError, ValueError) as error:  # the last: none of several is the default
            return [f"  the chat template refuses a question and its answer: {error}"]
        lines = ["  the chat template makes of a question and its answer:"]
    else:
        ids = tokenizer(SAMPLE[0]["content"])["input_ids"]
        lines = ["  no chat template: the model continues plain text, such as"]
    special = {**tokenizer.get_added_vocab(), **dict.fromkeys(tokenizer.all_special_tokens, 0)}
    lines += [f"    {line}" for line in _marked(tokenizer, ids, special)]
    lines.append(f"  {len(ids)} tokens; special ones stand in [brackets] with their number")
    for role in ("bos", "eos", "pad", "unk"):
        token = getattr(tokenizer, f"{role}_token")
        if token is not None:
            lines.append(f"  {role}: {token!r} = {getattr(tokenizer, f'{role}_token_id')}")
    return lines


def _marked(tokenizer: Any, ids: list[int], special: Any) -> list[str]:
    """Write tokens as text, ``|`` between them, special ones as ``[token number]``; a new line after each line end."""
    shown = []
    for number in ids:
        token = tokenizer.convert_ids_to_tokens(number)
        text = tokenizer.decode([number])
        shown.append(f"[{token} {number}]" if token in special else text.replace("\n", "\\n\n"))
    return [line for line in "|".join(shown).split("\n") if line.strip("|")]
