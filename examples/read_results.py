"""Read the results of an ablation into pandas: `python read_results.py runs/demo`."""

import sys

import pandas as pd

import ftkit

folder = sys.argv[1] if len(sys.argv) > 1 else "runs/demo"
results = ftkit.read_results(folder)
print(results.answer)

frame = results.to_pandas()  # a line for each variant, unrounded
done = frame[frame["test"].notna()].sort_values("test", ascending=False)
print(done[["name", "test", "test_low", "test_high", "difference", "p_holm", "seconds"]].to_string(index=False))

results.plot.accuracy().save("accuracy.svg")

# Each run keeps an answer to every test example; pandas reads the file without ftkit.
best = results.analysis.sweep.rows[done.index[0]].done[0]
predictions = pd.read_csv(best.directory / "predictions-test.tsv", sep="\t")
wrong = predictions[predictions["label"] != predictions["prediction"]]
print(f"{done.iloc[0]['name']} is wrong on {len(wrong)} of {len(predictions)} examples")
print(wrong.head().to_string(index=False))
