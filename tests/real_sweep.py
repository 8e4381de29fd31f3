"""An output folder whose rows are linear models of the real messages, added as runs that were made elsewhere."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from ftkit.ablation.external import add_external_run
from ftkit.results.predictions import write_predictions
from ftkit.run_folder import FORMAT


def models() -> dict[str, Any]:
    characters = {"analyzer": "char_wb", "ngram_range": (2, 4)}
    return {
        "01_words": make_pipeline(TfidfVectorizer(), LogisticRegression(C=10)),
        "02_bayes": make_pipeline(CountVectorizer(), MultinomialNB()),
        "03_characters": make_pipeline(TfidfVectorizer(**characters), LogisticRegression(C=10)),
        "04_nearest": make_pipeline(TfidfVectorizer(**characters), KNeighborsClassifier(1)),
        "05_character_bayes": make_pipeline(CountVectorizer(**characters), MultinomialNB()),
    }


def write_sweep(
    out: Path, ids: Sequence[str], labels: Sequence[str], spam: Mapping[str, np.ndarray], seed: int = 123
) -> Path:
    """Write the folder; ``spam`` holds the probability of spam by row."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "ablation.json").exists():
        empty = {"rows": {}, "source": "", "data_sha256": None, "base": {}}
        (out / "ablation.json").write_text(
            json.dumps({"format": FORMAT, "name": "linear", "rows": [], "published": empty})
        )
    for row, probability in spam.items():
        answers = np.where(probability > 0.5, "spam", "ham").tolist()
        write_predictions(out / f"{row}.tsv", ids, labels, answers, probability.tolist(), "probability:spam")
        add_external_run(out, row, out / f"{row}.tsv", seed=seed)
    return out
