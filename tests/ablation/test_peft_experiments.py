"""peft's method comparison becomes rows and published figures; its files are those of its repository, shortened."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.peft_experiments import import_experiments
from ftkit.config_files import read_config
from ftkit.errors import InputError

DEFAULTS = {
    "model_id": "meta-llama/Llama-3.2-3B", "dtype": "bfloat16", "batch_size": 4, "max_steps": 5000, "seed": 0,
    "grad_norm_clip": 1.0, "optimizer_kwargs": {"lr": 1e-4, "weight_decay": 0.1},
}  # fmt: skip
ADALORA = {
    "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": None, "beta1": 0.85, "bias": "none",
    "inference_mode": False, "init_lora_weights": True, "init_r": 64, "loftq_config": {}, "lora_alpha": 8,
    "peft_type": "ADALORA", "r": 8, "target_modules": None, "target_r": 32, "task_type": None, "tfinal": 500,
    "tinit": 200, "total_step": 5000, "use_dora": False,
}  # fmt: skip


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    folder = tmp_path / "MetaMathQA"
    write(folder / "default_training_params.json", DEFAULTS)
    experiments = folder / "experiments"
    write(experiments / "adalora/llama-3.2-3B-rank32/adapter_config.json", ADALORA)
    write(experiments / "bone/llama-3.2-3B-default/adapter_config.json", {"peft_type": "BONE", "r": 64})
    full = {"optimizer_kwargs": {"lr": 1e-5}, "batch_size": 2, "seed": 0}
    write(experiments / "full-finetuning/llama-3.2-3B-lr_0.00001/training_params.json", full)
    write(experiments / "ia3/llama-3.2-3B-default/adapter_config.json", {"peft_type": "IA3", "fan_in_fan_out": False})
    write(experiments / "ia3/llama-3.2-3B-default/training_params.json", {"optimizer_type": "AdamW", "eval_steps": 9})
    lora_fa = {"optimizer_type": "lora-fa", "optimizer_kwargs": {"r": 32, "lora_alpha": 64, "lr": 1e-4}}
    write(experiments / "lora/llama-3.2-3B-rank32-lorafa/adapter_config.json", {"peft_type": "LORA", "r": 32})
    write(experiments / "lora/llama-3.2-3B-rank32-lorafa/training_params.json", lora_fa)
    metrics = [{"step": 250, "valid accuracy": 0.34}, {"step": 5000, "valid accuracy": 0.5}, {"test accuracy": 0.4822}]
    for name, status in (("adalora/llama-3.2-3B-rank32", "success"), ("ia3/llama-3.2-3B-default", "failed")):
        result = {"run_info": {"experiment_name": name}}
        result["train_info"] = {"status": status, "train_time": 1800.0, "metrics": metrics}  # type: ignore[dict-item]
        write(folder / f"results/{name.replace('/', '--')}.json", result)
    return folder


def test_experiments_become_rows_and_results_published_figures(comparison: Path, tmp_path: Path) -> None:
    said = import_experiments(comparison, tmp_path / "out")
    ablation = AblationFolder.load(tmp_path / "out")
    assert [row.label for row in ablation.rows] == [
        "01_adalora-llama-3.2-3B-rank32", "02_full-finetuning-llama-3.2-3B-lr_0.00001", "03_ia3-llama-3.2-3B-default",
    ]  # fmt: skip
    adalora, full, ia3 = (read_config(row.path)["model"]["init_args"]["adapter"] for row in ablation.rows)
    options = {"init_r": 64, "target_r": 32, "tfinal": 500, "tinit": 200, "total_step": 5000}
    assert adalora == {"class_path": "peft.AdaLoraConfig", "init_args": options}
    assert (full, ia3) == (None, {"class_path": "peft.IA3Config"})
    changed = yaml.safe_load(ablation.rows[1].path.read_text())
    # What an experiment does not say of its optimizer is as in PyTorch: it does not inherit the others' weight decay.
    assert changed["model"]["init_args"]["optimizer"] == {"init_args": {"lr": 1e-5, "weight_decay": 0.01}}
    assert changed["data"] == {"init_args": {"batch_size": 2}}
    base = read_config(tmp_path / "out" / "base.yaml")
    assert base["model"]["init_args"]["base_model"] == "meta-llama/Llama-3.2-3B"
    assert base["model"]["init_args"]["optimizer"]["init_args"] == DEFAULTS["optimizer_kwargs"]
    assert (base["trainer"]["max_steps"], base["data"]["init_args"]["batch_size"]) == (5000, 4)
    (figures,) = ablation.published.rows.values()
    assert (figures.val, figures.test, figures.minutes) == (50.0, 48.22, 30.0)
    assert "no interval" in ablation.published.source
    assert "3 rows and 1 published figures" in said
    assert "the installed peft has no such method (got 'BONE')" in said
    assert "optimizer_type: the row would be trained otherwise (got 'lora-fa')" in said


def test_what_is_no_comparison_is_refused(comparison: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no experiments/METHOD/NAME"):
        import_experiments(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="out: is there already"):
        import_experiments(comparison, tmp_path)
    (comparison / "results" / "a.json").write_text("[")
    with pytest.raises(InputError, match=r"a\.json: cannot be read"):
        import_experiments(comparison, tmp_path / "out")
