"""BinaryEvaluator: the full yes/no report as a metric inside a LightningModule."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from ftkit.errors import InputError
from ftkit.results.assessment import BinaryReport, assess
from ftkit.results.metrics import UNPARSED
from ftkit.results.settings import Settings

_STATES = {
    "target": torch.int8,
    "answer": torch.int8,
    "probability": torch.float64,  # NaN where none was given
    "identity": torch.int64,
}


class BinaryEvaluator(Metric):
    """Counts, figures and score figures of yes/no answers, gathered over batches and over processes.

    ``compute`` returns scalars for ``self.log_dict``; an undefined figure is NaN, and :meth:`report` says why. Give
    ``ids`` and every example counts once, also where a distributed sampler repeats some to fill the last batch.

    Args:
        positive: Name of the positive class.
        negative: Name of the other class.
        threshold: A probability of at least this is a positive answer. (For torchmetrics it must be above.) Null takes
            the answers where they are given beside the probabilities, and 0.5 where they are not.
        beta: Weight of recall in ``f_beta``.
        prefix: Put in front of every name, for example ``val/``.

    Example:
        >>> evaluator = BinaryEvaluator(positive="spam", negative="ham", prefix="val/")
        >>> evaluator.update(torch.tensor([0.9, 0.2, 0.6]), torch.tensor([1, 0, 0]))
        >>> figures = evaluator.compute()
        >>> int(figures["val/tp"]), int(figures["val/fp"]), round(float(figures["val/accuracy"]), 4)
        (1, 1, 0.6667)
        >>> evaluator.reset()
        >>> evaluator.update(["spam", "I cannot say"], ["spam", "spam"])
        >>> str(evaluator.report().counts), evaluator.report().figures["specificity"].text()
        ('Tp=1 Tn=0 Fp=0 Fn=0 unparsed=1', 'undefined (no negatives)')
    """

    full_state_update = False
    is_differentiable = False
    target: list[Tensor]
    answer: list[Tensor]
    probability: list[Tensor]
    identity: list[Tensor]
    scored: Tensor
    identified: Tensor

    def __init__(
        self,
        positive: str = "yes",
        negative: str = "no",
        threshold: float | None = None,
        beta: float = 1.0,
        prefix: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if positive == negative:
            raise InputError("the two classes need different names", field="positive", got=positive)
        self.positive, self.negative = positive, negative
        self.threshold, self.beta, self.prefix = threshold, beta, prefix
        for name in _STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.add_state("scored", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("identified", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self,
        preds: Tensor | Sequence[str],
        target: Tensor | Sequence[str],
        ids: Tensor | Sequence[str] | None = None,
        answers: Tensor | Sequence[str] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            preds: float ``(B,)``: P(positive) in [0, 1], not logits; or the answers themselves, as int ``(B,)`` (1
                positive, 0 negative, -1 neither) or as strings.
            target: int or bool ``(B,)``: 1 for a positive, 0 for a negative; or class names.
            ids: int ``(B,)`` or strings: which examples these are.
            answers: With probabilities in ``preds``: the answers, as above. A threshold that was given replaces them.

        Raises:
            InputError: A probability is NaN or outside [0, 1], a label is neither class, or the lengths differ.
        """
        labels = self._codes(target)
        if (labels == UNPARSED).any():
            raise InputError("a label is neither class", field="target", fix=f"use {self.positive} and {self.negative}")
        if isinstance(preds, Tensor) and preds.is_floating_point():
            _check_probabilities(preds)
            scores = in_double(preds.detach()).flatten()
            if answers is None or self.threshold is not None:
                codes = (scores >= (0.5 if self.threshold is None else self.threshold)).to(torch.int8)
            else:
                codes = self._codes(answers)
        else:
            scores, codes = None, self._codes(preds)
        identity = None if ids is None else _identities(ids).to(self.device)
        for name, column in (("preds", codes), ("preds", scores), ("ids", identity)):
            if column is not None and len(column) != len(labels):
                raise InputError(f"{len(labels)} labels but {len(column)} {name}", field=name)
        n = len(labels)
        self.target.append(labels.to(self.device))
        self.answer.append(codes.to(self.device))
        self.probability.append((in_double(labels * float("nan")) if scores is None else scores).to(self.device))
        self.identity.append(torch.zeros(n, dtype=torch.int64, device=self.device) if identity is None else identity)
        self.scored += 0 if scores is None else n
        self.identified += 0 if identity is None else n

    def compute(self) -> dict[str, Tensor]:
        """Return all counts and figures as scalar tensors, NaN where undefined."""
        report = self._report(intervals=False)
        counts = {name: float(count) for name, count in vars(report.counts).items()}
        figures = {name: float("nan") if f.value is None else f.value for name, f in report.figures.items()}
        return {
            f"{self.prefix}{name}": torch.tensor(value, dtype=torch.float32, device=self.device)
            for name, value in (counts | figures).items()
        }

    def report(self, name: str = "") -> BinaryReport:
        """Return the full report, with reasons, intervals and baselines, over all processes.

        Args:
            name: What is reported.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            return self._report(name)

    def clone(self, prefix: str | None = None) -> BinaryEvaluator:
        """Return a copy, possibly with another prefix, for another stage or data loader."""
        copy = deepcopy(self)
        copy.prefix = self.prefix if prefix is None else prefix
        return copy

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather all processes' examples, also when some process has none."""
        # A process with an empty list would take no part in the gathering, and the others would wait or crash.
        for name, dtype in _STATES.items():
            if isinstance(state := getattr(self, name), list) and not state:
                state.append(torch.empty(0, dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    def _report(self, name: str = "", intervals: bool = True) -> BinaryReport:
        target, answer, score, identity = (_numpy(getattr(self, state), dtype) for state, dtype in _STATES.items())
        for what, count in (("scores", int(self.scored)), ("ids", int(self.identified))):
            if count not in (0, len(target)):
                raise InputError(f"some batches came with {what} and some without", field=what)
        if self.identified:
            _, first, inverse = np.unique(identity, return_index=True, return_inverse=True)
            if (target != target[first][inverse]).any():
                raise InputError("two examples with the same id have different labels", field="ids")
            target, answer, score = target[first], answer[first], score[first]
        return assess(
            target,
            answer,
            self.positive,
            self.negative,
            name,
            score if self.scored else None,
            "probability" if self.scored else "",
            Settings(beta=self.beta, intervals=intervals),
        )

    def _codes(self, values: Tensor | Sequence[str]) -> Tensor:
        if isinstance(values, Tensor):
            codes = values.detach().flatten()
            if codes.is_floating_point() or not ((codes >= UNPARSED) & (codes <= 1)).all():
                raise InputError("must be 1, 0 or -1, or class names", field="target", got=values.tolist())
            return codes.to(torch.int8)
        table = {self.positive: 1, self.negative: 0}
        return torch.tensor([table.get(value, UNPARSED) for value in values], dtype=torch.int8)


def in_double(values: Tensor) -> Tensor:
    """Convert to float64, or to float32 on Apple's GPUs, which have nothing wider."""
    return values.float() if values.device.type == "mps" else values.double()


def _check_probabilities(preds: Tensor) -> None:
    # torchmetrics would take values outside [0, 1] as logits, and a NaN for a confident answer.
    bad = ~((preds >= 0) & (preds <= 1))
    if bad.any():
        got, fix = float(preds[bad][0]), "apply softmax or sigmoid to logits first"
        raise InputError("not a probability in [0, 1]", field="preds", got=got, fix=fix)


def _identities(ids: Tensor | Sequence[str]) -> Tensor:
    if isinstance(ids, Tensor):
        return ids.detach().flatten().to(torch.int64)
    digests = [hashlib.blake2b(str(one).encode(), digest_size=8).digest() for one in ids]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64)


def _numpy(state: list[Tensor] | Tensor, dtype: torch.dtype) -> np.ndarray:
    parts = state if isinstance(state, list) else [state]
    return torch.cat([torch.empty(0, dtype=dtype), *(part.cpu() for part in parts)]).numpy()
