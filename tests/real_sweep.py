"""An output folder whose rows are given answers to messages, added as runs that were made elsewhere."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ftkit.ablation.external import add_external_run
from ftkit.results.predictions import write_predictions
from ftkit.run_folder import FORMAT


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
