"""Check a module and a batch before hours are spent on them; the tests assert the same invariants.

Each check looks at a :class:`Probe` and returns a :class:`Finding` that says what it saw.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ftkit.models.losses import IGNORE_INDEX
from ftkit.training.checkpoint import trainable_parameters
from ftkit.training.probe import Probe

CLOSE = 1e-4  # relative; other sums run in another order
_RATE = 1e-2  # of the step that is tried, for a schedule may begin at 0
FIXES = {  # by the name of a check: how to go on where it fails
    "supervised": "look at the examples with `ftkit data show`; an answer may be empty, or cut off by the context",
    "images": "check the images that the data name, and data.image_options",
    "end token": "look at the examples with `ftkit data show`; the chat template should end each answer",
    "batch = single": "let the network compute no statistics over a batch, and mask the padding",
    "padding": "mask the padding in attention, and pool no padding",
    "causality": "check the attention mask that the network gets",
    "gradients": "freeze what the loss does not use, and detach nothing that is trained",
    "accumulation": "let the loss of a batch be the mean over its examples or supervised tokens",
    "frozen": "give the optimizer exactly the parameters with requires_grad, in configure_optimizers",
    "save and reload": "let the checkpoint hold everything that is trained, and load it unchanged",
}


@dataclass(frozen=True)
class Finding:
    """Hold the outcome of a check: whether it holds, or None where it does not apply; and what was seen, or why not."""

    name: str
    passed: bool | None
    seen: str


def supervised(subject: Probe) -> Finding:
    """Check that every example has supervised tokens, or a label that counts."""
    if not subject.generative:
        labels = subject.batch["label"]
        counts = {int(label): int((labels == label).sum()) for label in labels.unique()}
        ignored = getattr(subject.module, "ignore_index", None)
        used = sum(count for label, count in counts.items() if label != ignored)
        return Finding("supervised", used > 0, f"labels {counts}: {used} of {subject.size} examples are supervised")
    labels = subject.inputs["labels"]
    supervised = (labels != IGNORE_INDEX).sum(1).tolist()
    seen = f"{sum(supervised)} of {labels.numel()} tokens supervised, {min(supervised)} or more in each example"
    return Finding("supervised", min(supervised) > 0, seen)


def images_counted(subject: Probe) -> Finding:
    """Check that each text has as many image tokens as the model makes vectors of its images."""
    places, pixels = subject.image_places(), subject.inputs.get("pixel_values")
    if pixels is None and not any(places or []):
        return Finding("images", None, "the batch has none")
    if places is None:
        return Finding("images", None, "the model has no image token")
    if pixels is None or not pixels.any():
        return Finding("images", False, f"no image for {places} image tokens an example")
    try:
        made = subject.image_vectors() * (2 if subject.pairs else 1)  # chosen and rejected answers share their images
    except ValueError as error:
        return Finding("images", False, str(error))
    return Finding("images", places == made, f"images of {made} vectors for {places} image tokens an example")


def end_supervised(subject: Probe) -> Finding:
    """Check that the end token of each answer is supervised."""
    if not subject.generative:
        return Finding("end token", None, "a classifier writes no text")
    config = getattr(subject.module.net, "generation_config", None)
    known = getattr(config, "eos_token_id", None)
    ends = {subject.module.tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])} - {None}
    tokenizer, labels = subject.module.tokenizer, subject.inputs["labels"]
    answers = [row[row != IGNORE_INDEX].tolist() for row in labels]
    ends |= set(tokenizer.all_special_ids)
    # A template may end a turn with a token of its own and a line end behind it.
    ended = sum(not ends.isdisjoint(answer[-2:]) for answer in answers)
    texts = sorted({repr(tokenizer.decode(answer[-1:])) for answer in answers if answer})
    seen = f"{ended} of {len(answers)} examples end in an end token; last supervised tokens: {', '.join(texts)}"
    return Finding("end token", ended == len(answers), seen)


def batch_equals_single(subject: Probe) -> Finding:
    """Check that an example's output does not depend on the others in its batch."""
    if not subject.separable:
        return Finding("batch = single", None, "examples of this batch share tensors")
    whole = subject.outputs(subject.batch)
    alone = torch.cat([subject.outputs(subject.examples([example])) for example in range(subject.size)])
    return _same("batch = single", alone, whole, f"{subject.size} examples together and one by one")


def padding_inert(subject: Probe, columns: int = 5) -> Finding:
    """Check that more padding changes no output."""
    if getattr(subject.module, "reads_padding", False):
        return Finding("padding", None, "this model reads padding, as it was configured")
    inputs = subject.inputs
    wider = dict(inputs)
    size, width = inputs["input_ids"].shape
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == (size, width):
            wider[name] = torch.nn.functional.pad(value, (0, columns), value=IGNORE_INDEX if name == "labels" else 0)
    batch = {**subject.batch, "inputs": wider} if subject.generative else wider
    if width + columns > subject.context:
        return Finding("padding", None, f"no room for more in a context of {subject.context}")
    return _same("padding", subject.outputs(batch), subject.outputs(subject.batch), f"{columns} columns more")


def causality(subject: Probe) -> Finding:
    """Check that a later token changes nothing before it if and only if the mask is causal."""
    states = subject.hidden_states()
    if states is None:
        return Finding("causality", None, "no hidden states to look at")
    causal = getattr(subject.module, "causal_mask", True)
    ids = subject.inputs["input_ids"]
    lengths = subject.batch["length"] if "length" in subject.batch else subject.inputs["attention_mask"].sum(1)
    place = int(lengths[0]) - 1
    if place < 1:
        return Finding("causality", None, "the first example is too short")
    changed = ids.clone()
    changed[0, place] = (ids[0, place - 1] + 1) % 100
    with torch.no_grad():
        before, after = states(ids)[0], states(changed)[0]
    early, late = (before[:place] - after[:place]).abs().max(), (before[place:] - after[place:]).abs().max()
    leaks = bool(early > 1e-5)
    seen = (
        f"changing token {place} changes hidden states before it by up to {early:.2g}, from it on by up to {late:.2g}; "
        f"causal mask {'on' if causal else 'off'}"
    )
    return Finding("causality", leaks != causal and bool(late > 0), seen)


def gradients_flow(subject: Probe) -> Finding:
    """Check that every trainable parameter gets a gradient; of an adapter that starts at zero in parts, these alone."""
    gradients = subject.gradients([subject.batch])
    starting = [name for name, parameter in trainable_parameters(subject.module).items() if not parameter.any()]
    adapter = {name for name in gradients if ".default" in name}  # peft's name of it
    waiting = adapter.difference(starting) if adapter.intersection(starting) else set()
    watched = {name: value for name, value in gradients.items() if name not in waiting}
    dead = sorted(name for name, value in watched.items() if not value.any())
    kind = "adapter" if waiting else "trainable"
    seen = f"{len(watched) - len(dead)} of {len(watched)} {kind} tensors have one" + (
        f"; not {dead[0]}" if dead else ""
    )
    return Finding("gradients", bool(watched) and not dead, seen)


def accumulation(subject: Probe) -> Finding:
    """Check that micro-batches of one give the gradients of the whole batch."""
    if not subject.separable or subject.size < 2:
        return Finding("accumulation", None, "the batch cannot be divided")
    whole = subject.gradients([subject.batch])
    parts = subject.gradients([subject.examples([example]) for example in range(subject.size)])
    joined = [torch.cat([value.flatten() for value in found.values()]) for found in (parts, whole)]
    return _same("accumulation", joined[0], joined[1], f"gradients of {subject.size} micro-batches and of one batch")


def frozen_stays(subject: Probe) -> Finding:
    """Check that a step, weight decay included, changes trainable parameters only; it is taken on the module itself.

    Its learning rate is that of the check.
    """
    trainable = trainable_parameters(subject.module)
    before = {name: value.detach().clone() for name, value in subject.module.named_parameters()}
    subject.gradients([subject.batch])
    optimizer = subject.module.trainer.optimizers[0]
    for group in optimizer.param_groups:
        group["lr"] = _RATE
    optimizer.step()
    moved = {name for name, value in subject.module.named_parameters() if not torch.equal(value, before[name])}
    wrong = sorted(moved - trainable.keys())
    frozen = len(before) - len(trainable)
    seen = f"{len(moved)} of {len(trainable)} trainable tensors moved, {len(wrong)} of {frozen} frozen ones"
    return Finding("frozen", not wrong and bool(moved), seen + (f"; {wrong[0]}" if wrong else ""))


CHECKS: tuple[Callable[[Probe], Finding], ...] = (
    supervised, images_counted, end_supervised, batch_equals_single, padding_inert, causality, gradients_flow,
    accumulation, frozen_stays,
)  # fmt: skip


def _same(name: str, found: Tensor, expected: Tensor, what: str) -> Finding:
    if found.shape != expected.shape:
        return Finding(name, False, f"{what}: {tuple(found.shape)} values, not {tuple(expected.shape)}")
    far = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    return Finding(name, far < CLOSE, f"{what}: relative difference {far:.2g}")
