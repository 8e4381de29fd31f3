"""Train a classifier on a CSV file of your own: `python classify_csv.py reviews.csv`.

The file has a column `text` and a column `label`. Without one, a small file is made up.
"""

import sys
from pathlib import Path

import lightning as L

from ftkit import TextClassificationDataModule, TextClassifier

if len(sys.argv) > 1:
    source = sys.argv[1]
else:
    source = "reviews.csv"
    words = {
        "bad": ("awful", "broken", "slow"),
        "fine": ("usual", "plain", "fair"),
        "good": ("superb", "lovely", "quick"),
    }
    lines = [f"{label},It is {word} number {n}" for n in range(20) for label, found in words.items() for word in found]
    Path(source).write_text("\n".join(["label,text", *lines]), encoding="utf-8")

L.seed_everything(123)
# What is held out for validation and test is said when the training starts; identical texts stay on one side.
data = TextClassificationDataModule(source, batch_size=8)
# "demo" is a tiny model that ftkit carries; any decoder of the hub, such as "HuggingFaceTB/SmolLM2-135M", goes here.
model = TextClassifier("demo", trainable="all", pooling="mean_real")
trainer = L.Trainer(max_epochs=2, accelerator="auto", devices=1, logger=False, default_root_dir="runs/reviews")
trainer.fit(model, datamodule=data)
trainer.test(model, datamodule=data)

tuned = TextClassifier.load("runs/reviews")
for text in ("It is lovely", "It is broken"):
    print(text, tuned.classify([text])[0])
