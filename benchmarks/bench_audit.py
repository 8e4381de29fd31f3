"""Time and memory of an audit of many short texts, made by recombining a vocabulary, with planted duplicates.

One run, in a process of its own; what is found is compared with what was planted::

    python benchmarks/bench_audit.py                      # a million texts
    python benchmarks/bench_audit.py --texts 200000
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import time
from pathlib import Path

import numpy as np

from contest import run_child, write_record

PLANTED = 0.02  # of the texts are copies of others, with one word exchanged in every second one
THRESHOLD = 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measure(options.texts)))
        return
    found = run_child(__file__, ["--child", "--texts", str(options.texts)], OMP_NUM_THREADS="1")
    record = {"date": datetime.date.today().isoformat(), "texts": options.texts, "threshold": THRESHOLD, **found}
    for name, value in record.items():
        print(f"{name:>22}: {value}")
    write_record(options.results / f"{record['date']}-audit-{options.texts}.json", record)


def _measure(count: int) -> dict[str, float]:
    from ftkit.examples.duplicates import find_duplicates
    from ftkit.results.duplicates import LabeledText

    texts, origin = _texts(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, cpu = time.perf_counter(), time.process_time()
    train = int(0.8 * count)
    examples = [LabeledText(f"r{number:07d}", text) for number, text in enumerate(texts)]
    found = find_duplicates({"train": examples[:train], "test": examples[train:]}, THRESHOLD)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    cluster = found.examples["near"].cluster
    copies = np.flatnonzero(origin >= 0)
    together = int((cluster[copies] == cluster[origin[copies]]).sum())
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "before_mb": round(before),  # with the texts themselves
        "letters": sum(map(len, texts)),
        "planted": len(copies),
        "planted_found": together,
        "sampled_pairs": found.recall[1] if found.recall else 0,
        "sampled_pairs_found": found.recall[0] if found.recall else 0,
        "test_in_train": int(found.examples["near"].in_train[train:].sum()),
    }


def _texts(count: int) -> tuple[list[str], np.ndarray]:
    """Texts of 4 to 20 words with a Zipf-like distribution; of copies the place of the original, else -1."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(letters[(rng.random(n) ** 2 * 26).astype(int)]) for n in rng.integers(2, 9, 20_000)]
    lengths = rng.integers(4, 21, count)
    chosen = (rng.random(int(lengths.sum())) ** 3 * len(words)).astype(int)
    ends = lengths.cumsum()
    tokens = [chosen[end - n : end].tolist() for end, n in zip(ends.tolist(), lengths.tolist(), strict=True)]
    origin = np.full(count, -1)
    copies = rng.choice(np.arange(count // 2, count), int(PLANTED * count), replace=False)
    for number, place in enumerate(copies.tolist()):
        origin[place] = source = int(rng.integers(0, count // 2))
        tokens[place] = list(tokens[source])
        if number % 2 and len(tokens[place]) >= 12:  # a word of twelve leaves more than 0.6 of the grams
            tokens[place][-1] = int(rng.integers(len(words)))
    return [" ".join(words[token] for token in one) for one in tokens], origin


if __name__ == "__main__":
    main()
