"""The label of the nearest training example; of several that are equally near, that of their majority."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import pairwise_distances_chunked

# How far equal distances are apart, as a share of the largest one: in a small Euclidean distance large numbers cancel.
_ROUNDING = 1e-6


class NearestExample(ClassifierMixin, BaseEstimator):
    """Predict the label of the nearest training example, whatever the order in which the examples were given.

    Of several that are equally near, each has a vote: the label that most of them have is taken, and of labels that
    equally many have, the first one. So a text without any known word gets the most frequent label.

    Args:
        metric: The distance, by its name in ``sklearn.metrics.pairwise_distances``.

    Example:
        >>> model = NearestExample("euclidean").fit([[0.0], [1.0], [1.0], [1.0]], ["a", "b", "c", "c"])
        >>> model.predict([[0.2], [0.9]]).tolist(), model.predict_proba([[0.9]]).round(2).tolist()
        (['a', 'c'], [[0.0, 0.33, 0.67]])
    """

    def __init__(self, metric: str = "cosine") -> None:
        self.metric = metric

    def fit(self, features: Any, y: Any) -> Self:
        """Keep the features of the training examples, (N, F), and their labels, (N,)."""
        self.classes_, label = np.unique(y, return_inverse=True)
        self.examples_, self.votes_ = features, np.eye(len(self.classes_))[label]
        return self

    def predict_proba(self, features: Any) -> np.ndarray:
        """Return which part of the nearest examples has each label, float64 (B, C)."""

        def shares(distances: np.ndarray, start: int) -> np.ndarray:
            nearest, farthest = (end(axis=1, keepdims=True) for end in (distances.min, distances.max))
            near = distances <= nearest + _ROUNDING * farthest  # (B, N)
            return near @ self.votes_ / near.sum(axis=1, keepdims=True)

        found = pairwise_distances_chunked(features, self.examples_, reduce_func=shares, metric=self.metric)
        return np.concatenate(list(found))

    def predict(self, features: Any) -> np.ndarray:
        """Return the labels (B,)."""
        return self.classes_[self.predict_proba(features).argmax(axis=1)]
