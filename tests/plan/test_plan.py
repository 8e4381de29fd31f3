"""Plans of rows: counted steps and memory, what is shared, and what is not planned."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from lightning.pytorch import Trainer

from ftkit.cli import main
from ftkit.commands.plan import _amount, _lines
from ftkit.errors import InputError
from ftkit.plan.steps import length


@pytest.fixture(scope="module")
def study(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rows of the tiny model: the last block, with another pooling, all of it, and a baseline."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "rows").mkdir()
    base = yaml.safe_load(tiny_config.read_text())
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    rows: dict[str, Any] = {
        "01_last": {}, "02_mean": {"init_args": {"pooling": "mean"}}, "03_all": {"init_args": {"trainable": "all"}},
        "04_words": {"class_path": "ftkit.BaselineClassifier", "init_args": {}},
    }  # fmt: skip
    for name, model in rows.items():
        (folder / "rows" / f"{name}.yaml").write_text(yaml.safe_dump({"model": model}))
    return folder


def plan(study: Path, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    assert main(["plan", str(study), "--device", "t4", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_rows_are_planned_and_a_baseline_is_not(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(study, capsys, "--price", "2")
    last, mean, every, words = found["rows"]
    assert words == {
        "row": "04_words",
        "not_planned": "only text classifiers and generative modules are planned, not BaselineClassifier",
    }
    assert every["frozen"] == 0
    assert last["trainable"] + last["frozen"] == every["trainable"] == 48514
    assert last["fits"]
    assert last["largest_batch"] > 8
    # The frozen blocks are run for the first row, and the second reads what it cached.
    assert last["shared_minutes"] > 0 == mean["shared_minutes"] == every["shared_minutes"]
    assert found["minutes"] == pytest.approx(sum(row["minutes"] for row in found["rows"][:3]))
    assert found["price"] == pytest.approx(found["minutes"] / 60 * 2)
    # Weight, gradient and two moments of four bytes.
    assert every["gradients_gb"] == pytest.approx(4e-9 * 48514)
    assert every["optimizer_gb"] == pytest.approx(8e-9 * 48514)
    assert every["activations_gb"] > last["activations_gb"]


def test_frozen_layers_run_once_over_every_split_whatever_is_tested(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "overlay.yaml"

    def shared(*splits: str) -> float:
        overlay.write_text(yaml.safe_dump({"data": {"init_args": {"evaluate_splits": splits, "drop_last": False}}}))
        return plan(study, capsys, "--rows", "1", "--overlay", str(overlay))["rows"][0]["shared_minutes"]

    assert shared("test") == pytest.approx(shared("train", "val", "test"), rel=0.05)


def test_operations_of_what_another_row_computed_count_once(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone, (first, behind) = plan(study, capsys, "--rows", "2")["rows"][0], plan(study, capsys, "--rows", "1,2")["rows"]
    assert first["shared_minutes"] > 0
    assert behind["shared_minutes"] == 0
    for figure in ("tflops", "moved_gb", "at_peak_minutes"):
        assert behind[figure] < 0.8 * alone[figure]


def test_rows_of_other_data_compute_their_own_outputs_of_frozen_layers(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(study, tmp_path / "study")
    for row, size in (("01_last", 60), ("02_mean", 100)):  # as long as each other
        texts = tmp_path / f"{row}.tsv"
        texts.write_text("".join(f"{'spam' if n % 2 else 'ham'}\ttext {n:03d} of other data\n" for n in range(size)))
        data = {"model": {}, "data": {"init_args": {"source": str(texts)}}}
        (tmp_path / f"study/rows/{row}.yaml").write_text(yaml.safe_dump(data))
    first, second = plan(tmp_path / "study", capsys, "--rows", "1,2")["rows"]
    assert first["shared_minutes"] > 0
    assert second["shared_minutes"] > 0


def test_positions_are_those_of_training_and_validation(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("data: {init_args: {padding: 16}}")
    row = plan(study, capsys, "--rows", "3", "--overlay", str(overlay))["rows"][0]
    # Two epochs of four batches of eight messages, for the last one is dropped, and of four messages of validation.
    assert row["positions"] == 2 * (4 * 8 + 4) * 16


def test_adapters_are_planned(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = tmp_path / "lora.yaml"
    lora.write_text(yaml.safe_dump({"model": {"init_args": {"trainable": "lora", "lora_rank": 2}}}))
    row = plan(study, capsys, "--rows", "2", "--overlay", str(lora))["rows"][0]
    # Of each block four layers of width 32, one up and one down, and the head, which is trained besides.
    assert row["trainable"] == 2 * (3 * (4 * 64 + 2 * 160) + 34) + 66


def test_a_method_that_copies_layers_is_planned_and_one_that_peft_refuses_is_not(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "method.yaml"
    overlay.write_text("model: {init_args: {adapter: {class_path: peft.LNTuningConfig}}}")
    row = plan(study, capsys, "--rows", "2", "--overlay", str(overlay))["rows"][0]
    assert row["trainable"] == 64 * (2 * 3 + 1) + 66  # two norms in each of three blocks, the last one, and the head
    overlay.write_text("model: {init_args: {adapter: {class_path: peft.OFTConfig}}}")
    row = plan(study, capsys, "--rows", "2", "--overlay", str(overlay))["rows"][0]
    assert row["not_planned"].startswith("adapter: peft refuses it for this model: Target module Conv1D")


def test_virtual_tokens_are_trained_through_every_block(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "prompt.yaml"
    tuning = "{class_path: peft.PromptTuningConfig, init_args: {num_virtual_tokens: 2}}"
    overlay.write_text(f"model: {{init_args: {{adapter: {tuning}}}}}")
    prompt = plan(study, capsys, "--rows", "1", "--overlay", str(overlay))["rows"][0]
    last = plan(study, capsys, "--rows", "1")["rows"][0]
    assert prompt["trainable"] == 2 * 32 + 66
    assert prompt["shared_minutes"] == 0
    assert prompt["activations_gb"] > 2 * last["activations_gb"]


@pytest.mark.parametrize("procedure", ["ftkit", "published"])
def test_max_steps_end_a_training(
    study: Path, tmp_path: Path, procedure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = tmp_path / "steps.yaml"
    steps.write_text("trainer: {max_epochs: null, max_steps: 1}")
    options = ("--rows", "3", "--procedure", procedure)
    short, whole = plan(study, capsys, *options, "--overlay", str(steps)), plan(study, capsys, *options)
    assert 0 < short["minutes"] < 0.8 * whole["minutes"]


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"max_epochs": 2}, (2, 6)),
        ({"max_epochs": 2, "max_steps": 100}, (2, 6)),
        ({"max_epochs": -1, "max_steps": 4}, (pytest.approx(4 / 3), 4)),
    ],
)
def test_a_training_ends_with_its_epochs_or_its_steps(trainer: dict[str, int], expected: tuple[float, int]) -> None:
    # Five batches, two of them for a step of the optimizer.
    assert length(Trainer(accumulate_grad_batches=2, logger=False, accelerator="cpu", **trainer), 5) == expected


def test_a_training_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="has no end; fix: give max_epochs or max_steps"):
        length(Trainer(max_epochs=-1, logger=False, accelerator="cpu"), 5)


def test_lora_of_the_published_table_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    ch06 = Path(__file__).parents[2] / "configs/ch06"
    row = plan(ch06, capsys, "--overlay", str(ch06 / "demo.yaml"), "--rows", "11")["rows"][0]
    assert row["trainable"] == 74914  # as the demo's own run says


def test_precision_quantization_and_accumulation_are_planned(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(number: int, text: str) -> Any:
        overlay = tmp_path / "overlay.yaml"
        overlay.write_text(text)
        options = ("--rows", str(number), "--overlay", str(overlay), "--device", "a100")
        return plan(study, capsys, *options)["rows"][0]

    exact, mixed = row(3, "{}"), row(3, "trainer: {precision: bf16-mixed}")
    assert mixed["tflops"] == pytest.approx(exact["tflops"], rel=0.03)
    # An A100 multiplies matrices in 16 bits 16 times as fast; the weights stay in float32.
    assert mixed["at_peak_minutes"] == pytest.approx(exact["at_peak_minutes"] / 16, rel=0.05)
    assert mixed["weights_gb"] == exact["weights_gb"]
    halved = row(3, "trainer: {precision: bf16-true}")
    for part in ("weights_gb", "gradients_gb", "optimizer_gb"):
        assert halved[part] == pytest.approx(exact[part] / 2)
    packed = "model: {init_args: {quantization: nf4, cache_frozen: false}}"
    whole, nf4 = row(2, "model: {init_args: {cache_frozen: false}}"), row(2, packed)
    assert nf4["frozen"] == whole["frozen"]
    # Two frozen blocks of 12 x 32 x 32 weights: half a byte and a scale for each in place of four bytes.
    assert whole["weights_gb"] - nf4["weights_gb"] == pytest.approx(2e-9 * 12 * 32 * 32 * (4 - 0.516), rel=0.01)
    one, window = row(3, "{}"), row(3, "trainer: {accumulate_grad_batches: 4}")
    assert window["activations_gb"] > one["activations_gb"]  # beside the gradients of the batches before
    assert window["positions"] == one["positions"]


def test_tf32_is_planned_where_it_is_allowed(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = tmp_path / "overlay.yaml"

    def at_peak(precision: str) -> float:
        overlay.write_text(f"matmul_precision: {precision}")
        options = ("--rows", "3", "--overlay", str(overlay), "--json")
        assert main(["plan", str(study), "--device", "a100", *options]) == 0
        return json.loads(capsys.readouterr().out)["rows"][0]["at_peak_minutes"]

    try:
        assert at_peak("highest") == pytest.approx(at_peak("high") * 156 / 19.5)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_published_procedure_runs_every_block_in_every_step(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = plan(study, capsys, "--procedure", "published", "--rows", "1")["rows"][0]
    ours = plan(study, capsys, "--rows", "1")["rows"][0]
    assert theirs["tflops"] > 2 * ours["tflops"]
    assert theirs["shared_minutes"] == 0


def test_a_table_is_printed_and_wrong_devices_are_refused(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(study), "--device", "h100", "--rows", "4"]) == 0
    printed = capsys.readouterr().out
    assert "04_words: not planned: only text classifiers" in printed
    assert "80 GB: 0 of 1 rows, each run once" in printed
    assert main(["plan", str(study), "--device", "abacus"]) == 2
    assert "device: no such device (got 'abacus'); fix: use here, a100," in capsys.readouterr().err
    own = tmp_path / "own.yaml"
    own.write_text("name: mine\nmemory_gb: much\n")
    assert main(["plan", str(study), "--device", str(own)]) == 2
    assert "memory_gb: is missing, or is not a figure of a device (got 'much')" in capsys.readouterr().err


def test_a_cpu_reserves_what_this_process_holds_and_a_gpu_does_not(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries, tokenizer and data are in the memory that a CPU's tensors take too."""
    monkeypatch.setattr("ftkit.plan.plan.resident_memory_mb", lambda: 7_000.0)
    peaks = {}
    for device in ("cpu", "h100"):
        assert main(["plan", str(study), "--device", device, "--rows", "1", "--json"]) == 0
        peaks[device] = json.loads(capsys.readouterr().out)["rows"][0]["peak_gb"]
    assert 7.0 < peaks["cpu"] < 7.1
    assert peaks["h100"] < 7.0


def test_columns_stand_below_their_names_and_no_batch_is_absurdly_large() -> None:
    parts = dict.fromkeys(("weights_gb", "gradients_gb", "optimizer_gb", "activations_gb"), 0.25)
    row = {"row": "03_head", "trainable": 1538, "minutes": 2.0, "peak_gb": 1.0, **parts, "fits": True}
    head, line, other, left_out = _lines(
        [{**row, "largest_batch": 26_583_633}, {**row, "largest_batch": 4_096}, {"row": "24", "not_planned": "why"}],
        False,
    )
    for name, value in {"minutes": "2.00", "gradients": "0.25", "fits": "yes", "largest batch": ">100,000"}.items():
        assert line[: head.index(name) + len(name)].endswith(f" {value}")
    assert other.endswith("4,096")
    assert left_out == "24: not planned: why"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0123, "0.012"), (0.96, "0.96"), (3.74, "3.7"), (1234, "1,234.0")]
)
def test_a_sum_is_never_rounded_to_nothing(value: float, text: str) -> None:
    assert _amount(value) == text


def test_a_config_file_has_no_rows(tiny_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(tiny_config), "--device", "t4", "--rows", "1"]) == 2
    assert "rows: a config file has no rows (got '1'); fix: leave it out, or name a folder" in capsys.readouterr().err
