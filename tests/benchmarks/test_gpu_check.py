"""The check of a GPU, made small on a CPU: every part ends, and none stops the next."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import gpu_check
import gpu_check_parts as parts

SCRIPT = Path(gpu_check.__file__)
CUDA_ONLY = {"tf32", "paligemma"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the check of a GPU is the real one")
def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    command = [sys.executable, SCRIPT, "--small", "--patience", "10", "--out", out]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(out.read_text())["parts"]
    assert found.keys() == parts.PARTS.keys()
    wanted = {name: "skipped: needs CUDA" if name in CUDA_ONLY else "ok" for name in found}
    assert {name: part["status"] for name, part in found.items()} == wanted
    numbers = found["numbers"]["figures"]
    assert len(numbers) == 5
    for task in numbers.values():  # the CPU beside itself
        assert task["outputs"] == task["losses"] == 0 < task["last_loss"]
    assert all(task["losses"] > 0 for task in found["bfloat16"]["figures"].values())
    rows = found["rows"]["figures"]["rows"]
    assert [row["row"] for row in rows] == ["01_last_token", "11_lora"]
    assert all(0 < row["training"] < row["minutes"] and row["peak_gb"] > 0 for row in rows)
    beside = found["planned"]["figures"]["rows"]
    assert beside.keys() == {row["row"] for row in rows}
    assert all(0.3 < row["peak_ratio"] < 3 and row["positions_per_second"] > 0 for row in beside.values())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_part_that_fails_or_takes_long_keeps_its_figures_and_does_not_stop_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong() -> None:
        raise ValueError("no such kernel")

    def mixed(check: parts.Check) -> None:
        check.each({"first": wrong, "second": lambda: 7})

    def endless(check: parts.Check) -> None:
        check.note("begun", 1)
        time.sleep(60)

    runs = {
        "mixed": mixed,
        "endless": endless,
        "cuda": lambda check: check.need_cuda(),
        "killed": lambda _: os._exit(9),
    }
    monkeypatch.setattr(parts, "PARTS", {name: parts.Part(run, 2) for name, run in runs.items()})
    given = argparse.Namespace(folder=tmp_path, small=True, messages=None, tokenizer=None, patience=1)
    found = {name: gpu_check.run_part(name, given, 100) for name in runs}
    assert found["mixed"]["status"] == "failed: AssertionError: first: no such kernel"
    assert found["mixed"]["figures"] == {"first": "ValueError: no such kernel", "second": 7}
    assert (found["endless"]["status"], found["endless"]["figures"]) == ("over its time limit of 2 s", {"begun": 1})
    if not torch.cuda.is_available():
        assert found["cuda"]["status"] == "skipped: needs CUDA"
    assert found["killed"]["status"] == "failed: exit code 9"
    assert gpu_check.run_part("mixed", given, 0.5)["status"] == "skipped: no time is left"


@pytest.mark.slow
def test_a_failed_part_is_in_the_exit_code_and_relative_paths_are_those_of_the_caller(tmp_path: Path) -> None:
    script, env = SCRIPT.with_suffix(".sh"), {**os.environ, "PYTHON": sys.executable}

    def checked(*options: str) -> int:
        command = ["sh", str(script), "--small", "--parts", "ddp", "--out", "new/folder/gpu.json", *options]
        return subprocess.run(command, capture_output=True, cwd=tmp_path, env=env).returncode

    assert checked("--seconds", "0") == 0
    kept = tmp_path / "new/folder/gpu.json"
    assert {part["status"] for part in json.loads(kept.read_text())["parts"].values()} == {"skipped: no time is left"}
    assert checked("--seconds", "3", "--messages", "missing.tsv") == 1


def test_float32_is_computed_without_tf32_unless_it_is_allowed() -> None:
    def state() -> tuple[bool, str]:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    try:
        parts.allow_tf32(True)
        assert state() == (True, "high")
        parts.allow_tf32(False)
        assert state() == (False, "highest")
    finally:
        torch.backends.cudnn.allow_tf32 = True


def test_a_small_check_builds_no_large_model(tmp_path: Path) -> None:
    check = parts.Check(tmp_path, True, None, None, tmp_path / "kept.json")
    check.device = "cuda"
    with pytest.raises(parts.Skipped, match="one shape, which is large"):
        parts.paligemma(check)


def test_trainings_that_drift_apart_are_named() -> None:
    one = parts.Trained(torch.tensor([1.0, 2.0]), [3.0, 2.0])
    other = parts.Trained(torch.tensor([1.0, 2.5]), [3.0, 2.25])
    assert parts.drift(one, other) == {"outputs": 0.5, "losses": 0.25, "first_loss": 3.0, "last_loss": 2.25}
    with pytest.raises(AssertionError, match=r"outputs differ by 0\.5"):
        parts.drift(one, other, outputs=0.4)
    with pytest.raises(AssertionError, match=r"losses differ by 0\.25"):
        parts.drift(one, other, losses=0.2)
    with pytest.raises(AssertionError, match="not finite"):
        parts.drift(one, parts.Trained(one.outputs, [3.0, float("nan")]))


def test_a_batch_of_pictures_has_as_many_answers_as_are_asked_for() -> None:
    from vlm_memory import models

    batch = parts.image_batch(models()["PaliGemma-3B"], answers=2, size=3, text=10, supervised=4)
    inputs = batch["inputs"]
    assert inputs["input_ids"].shape == inputs["labels"].shape == (6, 266)
    assert inputs["pixel_values"].shape == (3, 3, 224, 224)
    assert (inputs["labels"] != -100).sum() == 24 == inputs["token_type_ids"].sum()
