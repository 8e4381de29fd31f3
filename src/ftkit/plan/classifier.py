"""Plan the training of a text classifier: its network is built without numbers, and a step of each shape is traced."""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ftkit.classifier.loss import class_loss
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.models.network import SequenceClassifier
from ftkit.models.pooling import reads_padding
from ftkit.models.trainable import frozen_parts
from ftkit.models.transformers_internals import drops_out
from ftkit.plan.packed import pack
from ftkit.plan.steps import Costs, Step, between, length, positions
from ftkit.plan.torch_internals import adaptable, fake_tensors
from ftkit.plan.trace import cast, total, traced


def plan_classifier(model: TextClassifier, data: Any, trainer: Any) -> Costs:
    """Return what a training of a classifier costs, with its evaluations.

    Args:
        model: The module, not built yet; its weights are neither read nor drawn.
        data: The data module.
        trainer: The trainer, not attached; its precision, epochs, steps and accumulated batches count.
    """
    data.prepare_data()
    padding = model.reads_padding, model.sees_padding
    data.prepare(model.load_tokenizer(), model.context_length, *padding, encoder=model.encoder)
    quantization = model.quantization
    model.weights, model.quantization = "random_transformers", None
    model.encoding = data.encoding
    if model.steps_join:
        data.join_steps(trainer)
    mode = fake_tensors()
    with mode, adaptable():
        net = model.build_network()
    with mode:
        cast(net, trainer)
        if quantization is not None:
            pack(net, quantization, net.head)
    depth, pooled = frozen_depth(net)
    alone = reads_padding(net.pooling, net.causal_mask, net.mask_padding) and not data.encoding.pad_to_max
    if not model.cache_frozen or (alone and data.batch_size > 1):
        depth, pooled = 0, False
    run = partial(_step, net, model, trainer, depth, pooled)
    train, val = widths(net, data.train_dataloader()), widths(net, data.val_dataloader())
    tested = {split: widths(net, one) for split, one in zip(data.evaluate_splits, data.test_dataloader(), strict=True)}
    epochs, updates = length(trainer, train.total())
    validated = Counter({shape: times * int(epochs) for shape, times in val.items()})
    evaluated = sum(tested.values(), validated)
    shared = {}
    with mode:
        trained = [(times * epochs, step) for times, step in between(train, partial(run, training=True))]
        steps = trained + between(evaluated, partial(run, training=False))
        if depth:
            made_of = f"{model.base_name} {quantization} {trainer.precision} {net.causal_mask} {net.masks}"
            every = {"train": train, "val": val, **tested}  # each split once, also one that is tested besides
            once = sum(every.values(), Counter[tuple[int, int]]())
            key = f"{made_of} {depth}{' pooled' if pooled else ''} {sorted(once.items())}"  # the data by their lengths
            shared[key] = between(once, partial(_prefix, net, trainer, depth, pooled))
    rest: dict[str, Any] = {"steps": steps, "updates": updates, "shared": shared, "batch": max(train)[0]}
    rest["positions"] = epochs * positions(train) + positions(validated)
    return total(net, model.optimizer, (step for _, step in trained), **rest)


def frozen_depth(net: SequenceClassifier) -> tuple[int, bool]:
    """Return behind how many blocks outputs are cached, and whether they are pooled behind the final norm."""
    if drops_out(net.backbone) or not net.backbone.splits:
        return 0, False
    parts, blocks = len(frozen_parts(net.backbone)) - 1, len(net.backbone.blocks)
    return max(0, min(parts, blocks)), parts > blocks


def widths(net: SequenceClassifier, loader: Iterable[Any]) -> Counter[tuple[int, int]]:
    """Count the batches of a loader by examples and by the positions that the network needs."""
    found: Counter[tuple[int, int]] = Counter()
    for batch in loader:
        ids = batch["input_ids"]
        found[len(ids), int(net.needed(batch["length"], ids.shape[1]).max())] += 1
    return found


def _step(
    net: SequenceClassifier,
    model: TextClassifier,
    trainer: Any,
    depth: int,
    pooled: bool,
    size: int,
    width: int,
    training: bool,
) -> Step:
    hidden = net.backbone.hidden_size
    shape = (size, hidden) if pooled else (size, width, hidden)

    def loss() -> Tensor:
        features = torch.zeros(shape) if depth else None
        logits = net(*_inputs(size, width), features, depth)
        return class_loss(logits, torch.zeros(size, dtype=torch.int64), None, model.ignore_index)

    return traced(net, loss, trainer, training)


def _prefix(net: SequenceClassifier, trainer: Any, depth: int, pooled: bool, size: int, width: int) -> Step:
    def run() -> Tensor:
        ids, length = _inputs(size, width)
        hidden = net.backbone.embed(ids)
        return net.pooled(hidden, length, 0) if pooled else net.run(hidden, length, 0, depth)

    return traced(net, run, trainer, training=False)


def _inputs(size: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(size, width, dtype=torch.int64), torch.full((size,), width)
