"""Time and memory of a full report, `ftkit evaluate` against pandas + scikit-learn, on the same file.

Both read the file, check that the ids are unique and compute the same figures; the script refuses to report times for
figures that differ. Each runs in a process of its own, in turn, several times; imports are not timed::

    python benchmarks/bench_evaluate.py                      # a million rows
    python benchmarks/bench_evaluate.py --rows 10000000 --repeats 1
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from contest import run_child, write_record

TOLERANCE = 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measure(CHILDREN[options.child], options.file)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions-test.tsv"
        _write(path, options.rows)
        runs: dict[str, list[dict]] = {name: [] for name in CHILDREN}
        for _ in range(options.repeats):
            for name in CHILDREN:
                runs[name].append(run_child(__file__, ["--child", name, "--file", str(path)], OMP_NUM_THREADS="1"))
        record = _record(runs, path.stat().st_size, options.rows)
    for name in CHILDREN:
        found = record[name]
        times = f"{found['seconds']:.2f} s, {found['cpu_seconds']:.2f} s of CPU"
        print(f"{name:>22}: {times}, peak {found['peak_mb']:.0f} MB")
    print(f"{'time ratio':>22}: {record['time_ratio']:.2f} (ftkit / pandas + scikit-learn)")
    write_record(options.results / f"{record['date']}-evaluate-{options.rows}.json", record)


def _write(path: Path, rows: int) -> None:
    """A file as an image question leaves it: 84% yes, scores with all digits."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("id\tlabel\tprediction\tprobability:yes\n")
        for start in range(0, rows, 100_000):
            n = min(100_000, rows - start)
            yes = rng.random(n) < 0.84
            score = 1 / (1 + np.exp(-(1.2 * yes + rng.normal(0, 1, n) + 0.8)))
            file.writelines(
                f"images/ad_{start + k:08d}.jpg\t{'yes' if y else 'no'}\t{'yes' if s >= 0.5 else 'no'}\t{s!r}\n"
                for k, (y, s) in enumerate(zip(yes.tolist(), score.tolist(), strict=True))
            )


def _with_ftkit(path: Path) -> Callable[[], dict[str, float]]:
    import pyarrow

    from ftkit.report.evaluate import evaluate

    pyarrow.array([0])  # imports pandas, if it is installed

    def work() -> dict[str, float]:
        with redirect_stdout(io.StringIO()):
            report = evaluate([path], positive="yes").reports[0]
        counts = {name: float(getattr(report.counts, name)) for name in ("tp", "tn", "fp", "fn")}
        return counts | {name: figure.value for name, figure in report.figures.items()}

    return work


def _with_pandas(path: Path) -> Callable[[], dict[str, float]]:
    import pandas as pd
    from sklearn import metrics
    from sklearn.calibration import calibration_curve

    def work() -> dict[str, float]:
        table = pd.read_csv(path, sep="\t", dtype={"label": "category", "prediction": "category"})
        assert table["id"].is_unique
        y = (table["label"] == "yes").to_numpy().astype(np.int8)
        p = (table["prediction"] == "yes").to_numpy().astype(np.int8)
        score = table["probability:yes"].to_numpy()
        assert not np.isnan(score).any()
        assert ((score >= 0) & (score <= 1)).all()
        tn, fp, fn, tp = metrics.confusion_matrix(y, p).ravel().tolist()
        observed, predicted = calibration_curve(y, score, n_bins=15)
        counts = np.histogram(score, bins=15, range=(0, 1))[0]
        weights = counts[counts > 0] / len(y)
        return {
            "tp": tp,
            "tn": tn,
            "fp": fp,
            "fn": fn,
            "accuracy": metrics.accuracy_score(y, p),
            "precision": metrics.precision_score(y, p),
            "recall": metrics.recall_score(y, p),
            "f_measure": metrics.f1_score(y, p),
            "specificity": tn / (tn + fp),
            "npv": tn / (tn + fn),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, p),
            "mcc": metrics.matthews_corrcoef(y, p),
            "prevalence": y.mean(),
            "predicted_positive_rate": p.mean(),
            "auroc": metrics.roc_auc_score(y, score),
            "average_precision": metrics.average_precision_score(y, score),
            "brier": metrics.brier_score_loss(y, score),
            "calibration_error": float(np.sum(weights * np.abs(observed - predicted))),
        }

    return work


CHILDREN = {"ftkit": _with_ftkit, "pandas + scikit-learn": _with_pandas}


def _measure(child: Callable[[Path], Callable[[], dict[str, float]]], path: Path) -> dict:
    work = child(path)
    imported_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, cpu_start = time.perf_counter(), time.process_time()
    figures = work()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {name: float(value) for name, value in figures.items()}
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": peak_mb,
        "imported_mb": imported_mb,
        "figures": figures,
    }


def _record(runs: dict[str, list[dict]], file_bytes: int, rows: int) -> dict:
    ours, theirs = (runs[name][0]["figures"] for name in CHILDREN)
    differing = {name: (ours[name], theirs[name]) for name in theirs if abs(ours[name] - theirs[name]) > TOLERANCE}
    if differing:
        raise SystemExit(f"the figures differ: {differing}")
    summary = {
        name: {
            "seconds": statistics.median(run["seconds"] for run in of_one),
            "all_seconds": [round(run["seconds"], 3) for run in of_one],
            "cpu_seconds": statistics.median(run["cpu_seconds"] for run in of_one),
            "peak_mb": max(run["peak_mb"] for run in of_one),
            "imported_mb": max(run["imported_mb"] for run in of_one),
        }
        for name, of_one in runs.items()
    }
    first, second = (summary[name]["seconds"] for name in CHILDREN)
    return {
        "date": str(datetime.date.today()),
        "rows": rows,
        "file_mb": round(file_bytes / 1e6, 1),
        "time_ratio": first / second,
        **summary,
        "figures": ours,
    }


if __name__ == "__main__":
    main()
