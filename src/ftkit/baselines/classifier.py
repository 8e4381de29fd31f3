"""Any scikit-learn estimator over texts: bags of words, TF-IDF, and what is fitted on them."""

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline
from torch import Tensor

from ftkit.baselines.estimator_state import packed, unpacked
from ftkit.baselines.module import Baseline
from ftkit.errors import InputError, first_line
from ftkit.training.evaluation_metrics import Metrics

_AT_ONCE = 256  # examples


class BaselineClassifier(Baseline):
    """A scikit-learn estimator over features of texts, by default logistic regression over TF-IDF of words.

    It is fitted on the train split in one go; ``search`` chooses settings on the validation split. Checkpoints hold the
    fitted estimators without code.

    Args:
        features: Makes features of texts, such as ``sklearn.feature_extraction.text.TfidfVectorizer``, the default.
        estimator: Is fitted on them, such as ``sklearn.svm.LinearSVC``; by default logistic regression.
        search: Values to try of settings, by scikit-learn's names such as ``estimator__C`` or
            ``features__ngram_range``: of all combinations the one with the best validation accuracy is taken, the first
            of equal ones.
        seed: For each ``random_state`` that is not set; null takes the seed that ``seed_everything`` set.
        metrics: What is logged besides loss and accuracy, see
            :class:`ftkit.training.evaluation_metrics.MeasuredModule`.

    Raises:
        InputError: A setting of ``search`` does not exist, or the estimator is no classifier.

    Example:
        >>> from sklearn.naive_bayes import MultinomialNB
        >>> model = BaselineClassifier(estimator=MultinomialNB(), search={"estimator__alpha": [1.0, 0.1]})
        >>> list(model.candidates())[1]
        {'estimator__alpha': 0.1}
    """

    def __init__(
        self,
        features: BaseEstimator | None = None,
        estimator: BaseEstimator | None = None,
        search: dict[str, list[Any]] | None = None,
        seed: int | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(seed, metrics)
        steps = {"features": features or self.default_features(), "estimator": estimator or self.default_estimator()}
        self.pipeline, self.search = Pipeline(list(steps.items())), search or {}
        random = {name: value for name, value in self.pipeline.get_params().items() if name.endswith("random_state")}
        self.pipeline.set_params(**{name: self.seed % 2**32 for name, value in random.items() if value is None})
        if not is_classifier(self.pipeline):
            got = type(self.pipeline["estimator"]).__name__
            raise InputError("tells no classes apart", field="estimator", got=got, fix="use a classifier")
        if unknown := self.search.keys() - self.pipeline.get_params().keys():
            fix = "write estimator__NAME or features__NAME, such as estimator__C"
            raise InputError("no such setting", field="search", got=min(unknown), fix=fix)
        if wrong := [name for name, values in self.search.items() if not values or isinstance(values, str)]:
            raise InputError("needs a list of values", field=f"search.{wrong[0]}", got=self.search[wrong[0]])

    def default_features(self) -> BaseEstimator:
        """Return what makes features if nothing is named."""
        return TfidfVectorizer()

    def default_estimator(self) -> BaseEstimator:
        """Return what is fitted if nothing is named."""
        return LogisticRegression(max_iter=1000)

    def candidates(self) -> Iterator[dict[str, Any]]:
        """Yield the combinations of settings to try."""
        yield from ParameterGrid({name: list(map(_plain, values)) for name, values in self.search.items()})

    def inputs(self, batch: dict[str, Any]) -> Any:
        """Return what the features of a batch are made from: its texts."""
        return batch["text"]

    def fit(self, train: Any, val: Any) -> None:
        """Fit every candidate on train and keep the one that is right most often on val.

        Raises:
            InputError: There is something to choose and no validation data; or scikit-learn refuses a setting.
        """
        if self.search and not len(val):
            fix = "give some, or leave search out"
            raise InputError("needs validation data to choose on, and there is none", field="search", fix=fix)
        known, best, tried = self._all(train), -1.0, []
        held_out = self._all(val) if self.search else ([], [])
        made: dict[bytes, tuple[BaseEstimator, Any, Any]] = {}
        for settings in self.candidates():
            candidate, accuracy = self._fitted(settings, known, held_out, made)
            tried.append({"settings": settings, "val_accuracy": accuracy})
            if accuracy > best:
                best, chosen, fitted = accuracy, settings, candidate
        self.pipeline = fitted
        if self.search:
            self.found = {"settings": chosen, "val_accuracy": best, "tried": tried}
            rank_zero_info(f"Chosen on validation, of {len(tried)}: {chosen} (accuracy {best:.4g})")

    def _fitted(self, settings: dict[str, Any], known: Any, held_out: Any, made: dict) -> tuple[Pipeline, float]:
        """Return a candidate that is fitted on train, and its accuracy on val; ``made`` keeps features for others."""
        candidate = clone(self.pipeline)
        try:
            candidate.set_params(**settings)
            features, estimator = candidate["features"], candidate["estimator"]
            with warnings.catch_warnings():
                warnings.simplefilter("once", ConvergenceWarning)
                if (key := pickle.dumps(features)) not in made:
                    of_train = features.fit_transform(*known)
                    made[key] = features, of_train, features.transform(held_out[0]) if self.search else None
                features, of_train, of_val = made[key]
                estimator.fit(of_train, known[1])
            accuracy = float(estimator.score(of_val, held_out[1])) if self.search else 0.0
            return Pipeline([("features", features), ("estimator", estimator)]), accuracy
        except (ValueError, TypeError) as error:
            said = f"scikit-learn refuses it: {first_line(error)}"
            got = settings or type(self.pipeline["estimator"]).__name__
            raise InputError(said, field="model", got=got) from None

    def predict(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return the predicted classes, int64 (B,), and probabilities (B, C) if the estimator has some."""
        features, estimator = self.pipeline[:-1].transform(self.inputs(batch)), self.pipeline[-1]
        prediction = torch.from_numpy(estimator.predict(features).astype(np.int64))
        if not hasattr(estimator, "predict_proba"):
            return prediction, None
        probability = torch.zeros(len(prediction), len(self.class_names), dtype=torch.float64)
        probability[:, estimator.classes_] = torch.from_numpy(estimator.predict_proba(features)).double()
        return prediction, probability

    def state(self) -> dict[str, Any]:
        """Return the fitted estimators as bytes, and what was chosen."""
        return {"pipeline": packed(self.pipeline), "found": self.found}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over fitted estimators."""
        self.pipeline, self.found = unpacked(state["pipeline"]), state["found"]

    def _all(self, dataset: Any) -> tuple[Any, np.ndarray]:
        """Return the inputs and the classes of a whole split."""
        places = range(0, len(dataset), _AT_ONCE)
        batches = [dataset.__getitems__(list(range(at, min(at + _AT_ONCE, len(dataset))))) for at in places]
        inputs = [one for batch in batches for one in self.inputs(batch)]
        return inputs, dataset.label.numpy()


def _plain(value: Any) -> Any:
    """Return a value as scikit-learn expects it: YAML has no tuples."""
    return tuple(value) if isinstance(value, list) else value
