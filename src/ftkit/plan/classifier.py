"""Plan the training of a text classifier: its network is built without numbers, and a step of each shape is traced."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ftkit.classifier.loss import class_loss
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.models.network import SequenceClassifier
from ftkit.models.pooling import reads_padding
from ftkit.models.trainable import frozen_parts
from ftkit.models.transformers_internals import drops_out
from ftkit.plan.cost import FakeTensor, FakeTensorMode, OperatorCosts, Work
from ftkit.plan.steps import Costs, Memory, Step, between, length, update_of


def plan_classifier(model: TextClassifier, data: Any, trainer: Any) -> Costs:
    """Return what a training of a classifier costs, with its evaluations.

    Args:
        model: The module, not built yet; its weights are neither read nor drawn.
        data: The data module, prepared for it.
        trainer: The trainer, not attached; its epochs, steps and accumulated batches count.
    """
    model.weights, model.quantization = "random_transformers", None
    model.encoding = data.encoding
    if model.steps_join:
        data.join_steps(trainer)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, _adaptable():
        net = model.build_network()
    depth, pooled = frozen_depth(net)
    alone = reads_padding(net.pooling, net.causal_mask, net.mask_padding) and not data.encoding.pad_to_max
    if not model.cache_frozen or (alone and data.batch_size > 1):
        depth, pooled = 0, False
    run = partial(_step, net, model, depth, pooled)
    train, val = widths(net, [data.train_dataloader()]), widths(net, [data.val_dataloader()])
    tested = widths(net, _tested(data))
    epochs, updates = length(trainer, train.total())
    evaluated = Counter({shape: val[shape] * int(epochs) + tested[shape] for shape in val | tested})
    shared = {}
    with mode:
        steps = [(times * epochs, step) for times, step in between(train, partial(run, training=True))]
        largest = max((step for _, step in steps), key=lambda step: step.peak)
        steps += between(evaluated, partial(run, training=False))
        if depth:
            key = f"{model.base_name} {depth}{' pooled' if pooled else ''} {max(train)} {net.causal_mask} {net.masks}"
            shared[key] = between(tested, partial(_prefix, net, depth, pooled))
    update, memory = optimized(net, model.optimizer, largest)
    trainable = sum(one.numel() for one in net.parameters() if one.requires_grad)
    total = sum(one.numel() for one in net.parameters())
    return Costs(trainable, total - trainable, memory, steps, updates, update, shared, max(train)[0])


@contextmanager
def _adaptable() -> Iterator[None]:
    """Let peft adapt a network of fake tensors: it moves each adapter and copies layers, which needs their numbers."""
    to = nn.Module.to
    setattr(nn.Module, "to", lambda module, *args, **kwargs: module)  # noqa: B010
    setattr(FakeTensor, "__deepcopy__", _copied)  # noqa: B010
    try:
        yield
    finally:
        setattr(nn.Module, "to", to)  # noqa: B010
        delattr(FakeTensor, "__deepcopy__")


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    copy = tensor.detach().clone()
    memo[id(tensor)] = copy = nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy
    return copy


def frozen_depth(net: SequenceClassifier) -> tuple[int, bool]:
    """Return behind how many blocks outputs are cached, and whether they are pooled behind the final norm."""
    if drops_out(net.backbone) or not net.backbone.splits:
        return 0, False
    parts, blocks = len(frozen_parts(net.backbone)) - 1, len(net.backbone.blocks)
    return max(0, min(parts, blocks)), parts > blocks


def widths(net: SequenceClassifier, loaders: Iterable[Any]) -> Counter[tuple[int, int]]:
    """Count the batches of loaders by examples and by the positions that the network needs."""
    found: Counter[tuple[int, int]] = Counter()
    for loader in loaders:
        for batch in loader:
            ids = batch["input_ids"]
            found[len(ids), int(net.needed(batch["length"], ids.shape[1]).max())] += 1
    return found


def _tested(data: Any) -> list[Any]:
    loaders = data.test_dataloader()
    return loaders if isinstance(loaders, list) else [loaders]


def optimized(net: nn.Module, optimizer: Callable[[Any], Any], largest: Step) -> tuple[Work, Memory]:
    """Return what a step of the optimizer costs, and the memory of a training."""
    learnt = [one for one in net.parameters() if one.requires_grad]
    made = optimizer([nn.Parameter(torch.zeros(1))])
    update, state = update_of(type(made).__name__, [one.numel() for one in learnt], bool(made.defaults.get("fused")))
    gradients = sum(one.numel() * one.itemsize for one in learnt)
    weights = sum(one.numel() * one.itemsize for one in [*net.parameters(), *net.buffers()])
    return update, Memory(weights, gradients, state, max(0, largest.peak - gradients))


def _step(
    net: SequenceClassifier, model: TextClassifier, depth: int, pooled: bool, size: int, width: int, training: bool
) -> Step:
    hidden = net.backbone.hidden_size
    shape = (size, hidden) if pooled else (size, width, hidden)
    features = torch.zeros(shape) if depth else None

    def loss() -> Tensor:
        logits = net(*_inputs(size, width), features, depth)
        return class_loss(logits, torch.zeros(size, dtype=torch.int64), None, model.ignore_index)

    return traced(net, loss, training)


def _prefix(net: SequenceClassifier, depth: int, pooled: bool, size: int, width: int) -> Step:
    def run() -> Tensor:
        ids, length = _inputs(size, width)
        hidden = net.backbone.embed(ids)
        return net.pooled(hidden, length, 0) if pooled else net.run(hidden, length, 0, depth)

    return traced(net, run, training=False)


def _inputs(size: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(size, width, dtype=torch.int64), torch.full((size,), width)


def traced(net: nn.Module, run: Callable[[], Tensor], training: bool) -> Step:
    """Return what a pass through a network costs: forwards, and back from a loss if it trains."""
    net.zero_grad(set_to_none=True)
    with nullcontext() if training else torch.no_grad(), OperatorCosts() as costs:
        found = run()
        if training:
            found.backward()
    net.zero_grad(set_to_none=True)
    return Step(costs.work, costs.peak)
