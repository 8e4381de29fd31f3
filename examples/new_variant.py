"""Add a variant to an ablation: copy its folder, write a file of four lines, run it beside the reference."""

import shutil
import sys
from pathlib import Path

import ftkit

configs = Path(sys.argv[1] if len(sys.argv) > 1 else "../configs")  # of a checkout
shutil.copytree(configs / "ch06", "study", dirs_exist_ok=True)
Path("study/rows/30_three_blocks.yaml").write_text(
    "# Do three trained blocks help over one?\nmodel:\n  init_args:\n    trainable: 3\n"
)

# The overlay makes it small: the model that ftkit carries, made-up messages, no network.
study = ftkit.Ablation("study", overlays=["study/demo.yaml"], rows="1,30", out="runs/study")
study.run(seeds=[123])
results = ftkit.read_results("runs/study")
print(results)
print(results.answers[30])
