"""The cells of a sweep: what identifies one, and that it gives what its row gives alone."""

import json
import shutil
from pathlib import Path

import pytest
from peft import LoraConfig
from run_files import FILES, contents, files_in

from ftkit import lightning_engine
from ftkit.ablation.sweep import read_sweep
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.lightning_engine import LightningEngine
from ftkit.storage import key_of


@pytest.fixture(scope="module")
def ablation(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation folder of two rows over the tiny config."""
    folder = tmp_path_factory.mktemp("ablation") / "tiny"
    (folder / "rows").mkdir(parents=True)
    shutil.copy(tiny_config, folder / "base.yaml")
    (folder / "rows" / "01_mean.yaml").write_text("# Mean?\nmodel:\n  init_args:\n    pooling: mean\n")
    lora = "# LoRA?\nmodel:\n  init_args:\n    trainable: lora\n    lora_rank: 2\n"
    (folder / "rows" / "02_lora.yaml").write_text(lora)
    return folder


def test_a_row_of_a_sweep_gives_what_it_gives_alone(ablation: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["ablation", "run", str(ablation), "--out", str(out), "--seeds", "123,7"]) == 0
    configs = ["--config", str(ablation / "base.yaml"), "--config", str(ablation / "rows" / "02_lora.yaml")]
    for seed in ("123", "7"):  # the second cell of a process, and the last
        cell, alone = out / "02_lora" / f"seed-{seed}", tmp_path / f"alone-{seed}"
        assert files_in(cell) == FILES
        for command in ("fit", "test"):
            options = ["--trainer.default_root_dir", str(alone), "--seed_everything", seed]
            assert main([command, *configs, *options]) == 0
        for split in ("train", "val", "test"):
            name = f"predictions-{split}.tsv"
            assert (cell / name).read_bytes() == (alone / name).read_bytes()
        results = [json.loads((folder / "result.json").read_text()) for folder in (cell, alone)]
        assert results[0]["splits"] == results[1]["splits"]
        assert results[0]["seed"] == int(seed)
    assert (out / "02_lora/seed-7/predictions-test.tsv").read_bytes() != (
        out / "02_lora/seed-123/predictions-test.tsv"
    ).read_bytes()
    before = contents(out / "02_lora")
    assert main(["ablation", "run", str(ablation), "--out", str(out), "--seeds", "123,7"]) == 0
    assert contents(out / "02_lora") == before  # it was done


def test_the_seed_of_the_base_is_that_of_the_run_and_its_identity(ablation: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "seeded", tmp_path / "out"
    shutil.copytree(ablation, folder)
    base = (folder / "base.yaml").read_text()
    (folder / "base.yaml").write_text(base.replace("seed_everything: 123", "seed_everything: 5"))
    assert main(["ablation", "run", str(folder), "--rows", "1", "--out", str(out)]) == 0
    (cell,) = (cell for row in read_sweep(out).rows for cell in row.runs)
    assert (cell.seed, cell.directory.name, cell.identity["config"]["seed_everything"]) == (5, "seed-5", 5)
    assert json.loads((cell.directory / "result.json").read_text())["seed"] == 5


def test_what_identifies_a_cell(ablation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, configs = (
        LightningEngine(lambda step, total: None),
        [ablation / "base.yaml", ablation / "rows" / "01_mean.yaml"],
    )
    first = engine.identity(configs, 123)
    assert key_of(engine.identity(configs, 123)) == key_of(first)
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(engine.identity(configs, 123)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lightning_engine, "RUNS", "elsewhere")
    assert engine.identity(configs, 123) == first
    assert "elsewhere" not in json.dumps(first)
    assert str(first["config"]["model"]["init_args"]["pooling"]) == "mean"

    other = tmp_path / "row.yaml"
    other.write_text("model:\n  init_args:\n    pooling: first\n")
    changed = [engine.identity([configs[0], other], 123), engine.identity(configs, 124)]
    messages = Path(first["config"]["data"]["init_args"]["source"])
    copy = Path(shutil.copy(messages, tmp_path / "messages.tsv"))
    other.write_text(f"model:\n  init_args:\n    pooling: mean\ndata:\n  init_args:\n    source: {copy}\n")
    assert engine.identity([configs[0], other], 123)["data"] == first["data"]
    copy.write_text(messages.read_text() + "ham\tone more\n")
    changed.append(engine.identity([configs[0], other], 123))
    assert changed[-1]["data"] != first["data"]
    monkeypatch.setattr(lightning_engine, "code_sha256", lambda: "other code")
    changed.append(engine.identity(configs, 123))
    assert len({key_of(identity) for identity in [first, *changed]}) == 5
    assert list(tmp_path.glob("elsewhere*")) == []  # nothing is written


def test_a_cell_is_another_once_the_adapter_is_that_it_goes_on_from(ablation: Path, tmp_path: Path) -> None:
    engine, row, keys = LightningEngine(lambda step, total: None), tmp_path / "row.yaml", []
    row.write_text(f"model:\n  init_args:\n    adapter: {tmp_path}\n")
    for alpha in (8, 8, 9):
        LoraConfig(lora_alpha=alpha).save_pretrained(tmp_path)
        keys.append(key_of(engine.identity([ablation / "base.yaml", row], 123)))
    assert keys[0] == keys[1] != keys[2]


def test_a_cell_that_would_not_be_tested_is_refused_before_it_is_trained(ablation: Path, tmp_path: Path) -> None:
    (overlay := tmp_path / "val.yaml").write_text("data:\n  init_args:\n    evaluate_splits: [val]\n")
    with pytest.raises(InputError, match=r"data.evaluate_splits: the rows .* \(got \['val'\]\); fix: add test$"):
        LightningEngine(lambda step, total: None).identity([ablation / "base.yaml", overlay], 123)


def test_a_cell_reports_its_steps(ablation: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    engine = LightningEngine(lambda step, total: steps.append((step, total)))
    engine.run([ablation / "base.yaml", ablation / "rows" / "01_mean.yaml"], 5, tmp_path)
    assert steps == [(step, 8) for step in range(1, 9)]
    assert files_in(tmp_path) == FILES
