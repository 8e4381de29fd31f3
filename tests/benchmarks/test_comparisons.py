"""The comparisons, as small as they go: both sides still find the same, and the record says what with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "bench_evaluate.py --rows 20000 --repeats 1",
        "bench_sft.py --layers 1 --width 64 --vocabulary 200 --steps 4 --repeats 1 --prompt 12 --answer 6",
        "bench_vlm.py --shape tiny --trainings sft dpo --batch 2 --steps 2 --epochs 2 --repeats 1",
        "bench_serve.py --random 1 32 2 --requests 8 --tokens 4 --repeats 1",
        "bench_ablation.py --size tiny --rows 2,16 --epochs 1",
    ],
)
def test_a_comparison_ends_with_its_record(command: str, tmp_path: Path) -> None:
    script, *options = command.split()
    into = ["--out", str(tmp_path / "record.json")] if "ablation" in script else ["--results", str(tmp_path)]
    ended = subprocess.run([sys.executable, BENCHMARKS / script, *options, *into], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    (record,) = (json.loads(file.read_text(encoding="utf-8")) for file in tmp_path.glob("*.json"))
    assert f"written: {tmp_path}" in ended.stdout
    assert {"versions", "hardware"} <= record.keys()
