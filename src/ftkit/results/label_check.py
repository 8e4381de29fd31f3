"""Labels that may be wrong: examples that nearly all models get wrong though none of them was trained on these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import expit

from ftkit.results.predictions import Predictions
from ftkit.results.scan import MAX_LABELS

NEARLY_ALL = 0.9
_LEAST_RUNS = 3


@dataclass(frozen=True)
class LabelCheck:
    """The examples of a test split, and how several runs answered them."""

    ids: Sequence[str]
    classes: Sequence[str]  # the classes, sorted
    label: np.ndarray  # int64 (n,): the label of each
    likely: np.ndarray  # int64 (n,): the class that the runs are confident of; that of the label where they are of none
    confidence: np.ndarray  # float64 (n,): the mean probability of the label; low where it may be wrong
    answers: np.ndarray  # int64 (runs, n): the answer of each run, -1 for none of the classes

    @cached_property
    def wrong(self) -> np.ndarray:
        """Return the share of runs that get each example wrong: float64 ``(n,)``."""
        return (self.answers != self.label).mean(axis=0)

    @cached_property
    def suspicious(self) -> np.ndarray:
        """Return whether each label may be wrong: nearly all runs answer otherwise, confident of another class."""
        return (self.wrong >= NEARLY_ALL) & (self.likely != self.label)

    @property
    def order(self) -> np.ndarray:
        """Return the places of all examples, int64 ``(n,)``: suspicious labels first, then by how likely a label is."""
        return np.lexsort([self.confidence, ~self.suspicious])

    def rows(self, texts: Mapping[str, str], suspicious: bool = False) -> list[dict[str, Any]]:
        """Return the examples in :attr:`order`, only the suspicious ones if that is asked for."""
        kept = [place for place in self.order.tolist() if self.suspicious[place] or not suspicious]
        return [
            {
                "id": self.ids[place], "label": self.classes[self.label[place]],
                "likely": self.classes[self.likely[place]], "wrong_runs": round(float(self.wrong[place]), 4),
                "label_confidence": round(float(self.confidence[place]), 4),
                "suspicious": bool(self.suspicious[place]), "text": texts.get(self.ids[place]),
            }
            for place in kept
        ]  # fmt: skip


def check_labels(runs: Sequence[Predictions]) -> LabelCheck | None:
    """Find the labels that several runs contradict, by confident learning on the mean of their probabilities.

    A class is one that the runs are confident of where its probability is at least the mean probability of that class
    among the examples labelled so; the most probable such class is the likely one. A run without probabilities counts
    as certain of its answers. The ranking is by the mean probability of the label ("self-confidence").
    None of the runs was trained on these examples. Nothing is found, None, with fewer than 3 of them, with other
    examples, or if the labels are no 2 to 50 classes.

    Source: C. Northcutt, L. Jiang and I. Chuang, Confident learning: estimating uncertainty in dataset labels, J. of
    Artificial Intelligence Research 70 (2021), as in ``cleanlab.filter.find_label_issues`` with the filter
    ``confident_learning``; the mean over models: J. Kuan and J. Mueller, Model-agnostic label quality scoring to detect
    real-world label errors, DataPerf workshop, ICML (2022).
    """
    if len(runs) < _LEAST_RUNS:
        return None
    ids, labels = runs[0].ids, runs[0].labels
    classes, first = sorted({one for one in labels if one is not None}), dict(zip(ids, labels, strict=True))
    if None in labels or not 1 < len(classes) <= MAX_LABELS:
        return None
    if any(dict(zip(run.ids, run.labels, strict=True)) != first for run in runs):
        return None
    code = {name: place for place, name in enumerate(classes)}
    label = np.array([code[one or ""] for one in labels])
    answers, probability = np.zeros((len(runs), len(ids)), np.int64), np.zeros((len(ids), len(classes)))
    for number, run in enumerate(runs):
        at = {one: place for place, one in enumerate(run.ids)}
        order = np.array([at[one] for one in ids])
        answers[number] = np.array([code.get(one or "", -1) for one in run.predictions])[order]
        probability += _probabilities(run, classes, code)[order] / len(runs)
    least = np.array([probability[label == place, place].mean() for place in range(len(classes))])
    confident = np.where(probability >= least, probability, -1.0)
    likely = np.where(confident.max(axis=1) >= 0, confident.argmax(axis=1), label)
    return LabelCheck(ids, classes, label, likely, probability[np.arange(len(ids)), label], answers)


def _probabilities(run: Predictions, classes: Sequence[str], code: Mapping[str, int]) -> np.ndarray:
    """Return the probability of each class, ``(n, k)``; of scores of other classes 1 for the answer."""
    named = run.scored_classes
    found = np.zeros((len(run.ids), len(classes)))
    if run.scores is not None and run.scores.ndim == 1 and len(classes) == 2 and named[0] in code:
        of_class = run.scores if run.score_names[0].startswith("probability:") else expit(run.scores)
        found[:, code[named[0]]], found[:, 1 - code[named[0]]] = of_class, 1 - of_class
    elif run.scores is not None and run.scores.ndim == 2 and set(classes) <= set(named):
        found[:] = run.scores[:, [named.index(name) for name in classes]]
    else:
        for place, answer in enumerate(run.predictions):
            if answer in code:
                found[place, code[str(answer)]] = 1
    return found
