"""The nearest training example: what is taken of several that are equally near, whatever their order."""

from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import KNeighborsClassifier

from ftkit.baselines.estimator_state import packed, unpacked
from ftkit.baselines.nearest import NearestExample

TRAIN = [
    ("win cash", "spam"), ("win cash", "ham"), ("cash win", "spam"), ("mum home", "ham"), ("free free win", "spam"),
    ("dinner", "ham"), ("dinner", "spam"), ("home", "spam"),
]  # fmt: skip
ASKED = {"win cash": "spam", "dinner": "ham", "unheard of": "spam", "": "spam", "mum": "ham", "free": "spam"}


def asked(train: list[tuple[str, str]], texts: list[str], model: Any) -> tuple[list[str], np.ndarray]:
    features = TfidfVectorizer().fit([text for text, _ in TRAIN])
    model.fit(features.transform([text for text, _ in train]), [label for _, label in train])
    given = features.transform(texts)
    return model.predict(given).tolist(), model.predict_proba(given)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_train_does_not_matter(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(TRAIN))
    found, shares = asked([TRAIN[place] for place in order], list(ASKED), NearestExample())
    assert found == list(ASKED.values())
    spam = [2 / 3, 1 / 2, 5 / 8, 5 / 8, 0, 1]  # of all whose distance is the least
    np.testing.assert_allclose(shares, np.array([[1 - share, share] for share in spam]), atol=1e-12)


def test_without_equals_it_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    known, given, labels = random.random((500, 4)), random.random((300, 4)), random.integers(0, 3, 500)
    for metric in ("cosine", "euclidean"):
        expected = KNeighborsClassifier(1, metric=metric).fit(known, labels).predict(given)
        model = NearestExample(metric).fit(known, labels)
        assert model.predict(given).tolist() == expected.tolist()
        again = unpacked(packed(model))
        assert again.predict(given).tolist() == expected.tolist()


def test_distances_that_differ_by_rounding_are_equal() -> None:
    model = NearestExample("euclidean").fit([[0.3], [0.1 + 0.2], [9.0]], ["b", "a", "c"])
    assert model.predict([[0.0]]).tolist() == ["a"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_examples_are_equally_near_whatever_the_precision(dtype: str) -> None:
    random = np.random.default_rng(1)
    known = random.normal(size=(250, 768)).astype(dtype)
    given = (known + 1e-5 * random.normal(size=known.shape)).astype(dtype)
    order = random.permutation(750)
    model = NearestExample("euclidean").fit(np.repeat(known, 3, axis=0)[order], np.tile(["b", "a", "b"], 250)[order])
    np.testing.assert_allclose(model.predict_proba(given), np.tile([1 / 3, 2 / 3], (250, 1)))
