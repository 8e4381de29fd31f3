"""Flip 3% of the labels of the published split's messages, and count how many of them the check of labels finds.

python benchmarks/bench_labels.py --messages SMSSpamCollection
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from contest import write_record
from ftkit.classifier.messages import read_messages
from ftkit.classifier.records import messages_of
from ftkit.classifier.splits import balanced_split
from ftkit.results.label_check import LabelCheck, check_labels
from ftkit.results.predictions import Predictions
from ftkit.run_folder import SPLITS

FLIPPED, SEED = 0.03, 123
MODELS = {
    "01_words": make_pipeline(TfidfVectorizer(), LogisticRegression(C=10)),
    "02_bayes": make_pipeline(CountVectorizer(), MultinomialNB()),
    "03_characters": make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)), LogisticRegression(C=10)),
}


def flipped(labels: list[str], seed: int = SEED) -> tuple[list[str], np.ndarray]:
    """Labels of which 3% are the other class, and which ones."""
    where = np.zeros(len(labels), bool)
    where[np.random.default_rng(seed).permutation(len(labels))[: round(FLIPPED * len(labels))]] = True
    other = {"ham": "spam", "spam": "ham"}
    return [other[one] if turned else one for one, turned in zip(labels, where, strict=True)], where


def checked(ids: list[str], texts: list[str], labels: list[str]) -> LabelCheck:
    """The check of three linear models, each trained by 5 folds on the other messages."""
    runs = []
    folds = StratifiedKFold(5, shuffle=True, random_state=SEED)
    for model in MODELS.values():
        spam = cross_val_predict(model, texts, labels, cv=folds, method="predict_proba")[:, 1]
        runs.append(
            Predictions(ids, list(labels), np.where(spam > 0.5, "spam", "ham").tolist(), spam, ("probability:spam",))
        )
    found = check_labels(runs)
    assert found is not None
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    messages = messages_of(read_messages(given.messages, "published"))
    split = balanced_split([int(label == "spam") for label in messages.labels])
    places = np.concatenate([split[name] for name in SPLITS]).tolist()
    texts, published = ([column[place] for place in places] for column in (messages.texts, messages.labels))
    labels, where = flipped(published)
    check = checked([messages.ids[place] for place in places], texts, labels)
    found, first = check.suspicious, check.order[: where.sum()]
    record: dict[str, Any] = {
        "messages": len(labels),
        "flipped": int(where.sum()), "seed": SEED,
        "models": list(MODELS), "suspicious": int(found.sum()), "flipped_among_them": int((found & where).sum()),
        "precision": round(float(where[found].mean()), 4), "recall": round(float(found[where].mean()), 4),
        "precision_of_as_many_first": round(float(where[first].mean()), 4),
    }  # fmt: skip
    write_record(given.results / f"{datetime.now(UTC):%Y-%m-%d}-labels.json", record)


if __name__ == "__main__":
    main()
