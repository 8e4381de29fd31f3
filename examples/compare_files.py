"""Compare two prediction files, example by example: `python compare_files.py A.tsv B.tsv`.

The files may come from any program: TSV, CSV, JSON lines or Parquet with id, label and prediction. Without any, two are
made up.
"""

import random
import sys

import ftkit

files = sys.argv[1:3]
if not files:
    draws = random.Random(0)
    ids = [f"example-{number}" for number in range(300)]
    labels = [draws.choice(["spam", "ham"]) for _ in ids]
    other = {"spam": "ham", "ham": "spam"}
    for name, accuracy in (("first.tsv", 0.95), ("second.tsv", 0.88)):
        predictions = [label if draws.random() < accuracy else other[label] for label in labels]
        ftkit.write_predictions(name, ids, labels, predictions)
        files.append(name)

comparison = ftkit.compare(*files)
low, high = comparison.interval
print(f"accuracy of {files[0]} minus that of {files[1]}: {comparison.difference:+.3f} ({low:+.3f} to {high:+.3f})")
print(f"they disagree on {comparison.disagreements} examples; p = {comparison.p:.3g}")
print("significant" if comparison.significant else "not significant")
print(ftkit.evaluate(files[0], against=files[1], level=0.95))
