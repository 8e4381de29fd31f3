"""Plan the published procedure of the GPT-2 table: its own network, no cached outputs, evaluations while it trains.

Source: rasbt/LLMs-from-scratch, ``ch06/02_bonus_additional-experiments``.
"""

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.plan.steps import Costs, Step, between, length, positions
from ftkit.plan.torch_internals import fake_tensors
from ftkit.plan.trace import total, traced

_EVERY = 50  # steps between two evaluations, which begin with the first step
_BATCHES = 5  # of train and of val, in an evaluation and once more behind each epoch


class _Norm(nn.Module):
    """A layer norm of single operators."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor) -> Tensor:
        mean, variance = hidden.mean(-1, keepdim=True), hidden.var(-1, keepdim=True, unbiased=False)
        return self.scale * ((hidden - mean) / torch.sqrt(variance + 1e-5)) + self.shift


class _Lora(nn.Module):
    """A linear layer with an adapter beside it."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        self.a = nn.Parameter(torch.zeros(linear.in_features, rank))
        self.b = nn.Parameter(torch.zeros(rank, linear.out_features))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.linear(hidden) + 16.0 * (hidden @ self.a @ self.b)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, context: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.before, self.behind = _Norm(width), _Norm(width)
        self.register_buffer("mask", torch.ones(context, context).triu(1))

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.out(self._attended(self.before(hidden)))
        inner = self.up(self.behind(hidden))
        gelu = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * torch.pow(inner, 3))))
        return hidden + self.down(gelu)

    def _attended(self, hidden: Tensor) -> Tensor:
        size, width, _ = hidden.shape
        parts = (layer(hidden) for layer in (self.key, self.query, self.value))
        key, query, value = (part.view(size, width, self.heads, -1).transpose(1, 2) for part in parts)
        scores = query @ key.transpose(2, 3)  # (B, heads, T, T)
        if self.causal:
            scores.masked_fill_(self.mask.bool()[:width, :width], -torch.inf)  # type: ignore[operator]
        weights = torch.softmax(scores / key.shape[-1] ** 0.5, dim=-1)
        return (weights @ value).transpose(1, 2).reshape(size, width, -1)


class PublishedGPT(nn.Module):
    """The published script's GPT-2 with a head of two classes.

    Args:
        model: The row's module, whose shape and trainable parameters it gets.
    """

    def __init__(self, model: GPT2Classifier) -> None:
        super().__init__()
        config: Any = model.load_config()
        width, context = config.n_embd, config.n_positions
        self.tokens, self.positions = nn.Embedding(config.vocab_size, width), nn.Embedding(context, width)
        blocks = (_Block(width, config.n_head, context, model.causal_mask) for _ in range(config.n_layer))
        self.blocks, self.norm, self.head = nn.ModuleList(blocks), _Norm(width), nn.Linear(width, 2)
        self.mean = model.pooling.startswith("mean")
        self._choose(model)

    def _choose(self, model: GPT2Classifier) -> None:
        last = {"last_layer": 0, "last_block": 1, "last_two_blocks": 2}.get(str(model.trainable), len(self.blocks))
        self.requires_grad_(model.trainable == "all")
        if model.trainable == "lora":
            for part in [module for module in self.modules() if not isinstance(module, _Lora)]:
                for name, child in part.named_children():
                    if isinstance(child, nn.Linear):
                        setattr(part, name, _Lora(child, model.lora_rank))
        elif last:
            for part in (*self.blocks[len(self.blocks) - last :], self.norm):
                part.requires_grad_(True)
        self.head.requires_grad_(True)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return logits (B, 2) of token ids (B, T) int64; every position goes through every block and the head."""
        hidden = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        for block in self.blocks:
            hidden = block(hidden)
        logits = self.head(self.norm(hidden))
        return logits.mean(1) if self.mean else logits[:, -1]


def plan_published(model: GPT2Classifier, data: Any, trainer: Any) -> Costs:
    """Return what the published procedure costs for a row, see :func:`ftkit.plan.classifier.plan_classifier`."""
    data.prepare_data()
    data.prepare(model.load_tokenizer(), model.context_length, model.reads_padding, model.sees_padding)
    train, val = (_widths(loader) for loader in (data.train_dataloader(), data.val_dataloader()))
    epochs, updates = length(trainer, train.total())
    evaluations = math.ceil(epochs * train.total() / _EVERY) + int(epochs)
    with fake_tensors():
        net = PublishedGPT(model)

        def step(size: int, width: int, training: bool) -> Step:
            ids, labels = torch.zeros(size, width, dtype=torch.int64), torch.zeros(size, dtype=torch.int64)
            return traced(net, lambda: F.cross_entropy(net(ids), labels), trainer, training)

        trained = [(times * epochs, one) for times, one in between(train, lambda size, width: step(size, width, True))]
        steps, seen = list(trained), epochs * positions(train)
        for split in (train, val):
            evaluated, often = between(split, lambda size, width: step(size, width, False)), _BATCHES * evaluations
            steps += [(times / split.total() * often, one) for times, one in evaluated]
            seen += positions(split) / split.total() * often
    rest: dict[str, Any] = {"steps": steps, "updates": updates, "batch": max(train)[0], "positions": seen}
    return total(net, torch.optim.AdamW, (one for _, one in trained), **rest)


def _widths(loader: Any) -> Counter[tuple[int, int]]:
    return Counter(tuple(batch["input_ids"].shape) for batch in loader)
