"""A search by LightningCLI: what is chosen is what the row gives with that setting, and the frozen part is shared."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_files import FILES, files_in

from ftkit.cli import main
from ftkit.training.feature_store import FeatureStore

LR = "model.init_args.optimizer.init_args.lr"


@pytest.fixture
def ablation(tiny_config: Path, tmp_path: Path) -> Path:
    """An ablation folder of one row over the tiny config, whose rate is 0.01."""
    (tmp_path / "tiny/rows").mkdir(parents=True)
    shutil.copy(tiny_config, tmp_path / "tiny/base.yaml")
    (tmp_path / "tiny/rows/01_mean.yaml").write_text("# Mean?\nmodel:\n  init_args:\n    pooling: mean\n")
    return tmp_path / "tiny"


def test_what_is_chosen_is_what_the_row_gives_with_that_rate(
    ablation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built: list[Any] = []
    build = FeatureStore.build

    def counted(self: FeatureStore, made_of: Any, *arguments: Any) -> Any:
        built.append(made_of)
        return build(self, made_of, *arguments)

    monkeypatch.setattr(FeatureStore, "build", counted)
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    out, alone = tmp_path / "out", tmp_path / "alone"
    sweep: Sequence[str] = ["ablation", "run", str(ablation), "--out", str(out), "--seeds", "7"]
    assert main([*sweep, "--set", f"{LR}=2e-2,0.01,3e-2"]) == 0
    entries = [json.dumps(one, sort_keys=True, default=str) for one in built]
    assert len(entries) == len(set(entries)) > 0  # nothing was computed again for the second and the third try
    assert " lr 0.0" in capsys.readouterr().out
    (chosen,) = (json.loads(line) for line in (out / "ledger.jsonl").open() if '"chosen"' in line)
    setting, place = chosen["identity"]["setting"], out / chosen["cell"]
    assert len(chosen["identity"]["tries"]) == 3
    assert files_in(place / "seed-7") == FILES
    assert "train/loss" in (place / "seed-7" / "metrics.csv").read_text()  # the test leaves the curves of the training
    rejected = next(place for place in (out / "01_mean").glob("lr-*/seed-7") if place.parent != out / chosen["cell"])
    left = {name for name in FILES if "checkpoints/" not in name and name not in TESTED}
    assert files_in(rejected) == left
    configs = ["--config", str(ablation / "base.yaml"), "--config", str(ablation / "rows/01_mean.yaml")]
    options = ["--trainer.default_root_dir", str(alone), "--seed_everything", "7", f"--{LR}", str(setting[LR])]
    for command in ("fit", "test"):
        assert main([command, *configs, *options]) == 0
    for split in ("val", "test"):
        name = f"predictions-{split}.tsv"
        assert (place / "seed-7" / name).read_bytes() == (alone / name).read_bytes()
    results = [json.loads((folder / "result.json").read_text()) for folder in (place / "seed-7", alone)]
    assert results[0]["splits"] == results[1]["splits"]
    assert results[0]["steps"] == results[1]["steps"]


TESTED = {"predictions-train.tsv", "predictions-test.tsv", "examples-test.tsv"}


def test_an_option_that_does_not_exist_is_an_error_with_exit_code_2(
    ablation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["ablation", "run", str(ablation), "--out", str(out)]
    assert main([*command, "--set", "model.init_args.optimizer.init_args.lrr=1,2"]) == 2
    assert "row 01_mean: model.optimizer.lrr: no such option; fix: did you mean lr?" in capsys.readouterr().err
    assert main([*command, "--set", "trainer.max_epochs=1,2", "--set", "seed_everything=1,2"]) == 2
    assert "seed_everything: is no setting; fix: give --seeds" in capsys.readouterr().err
    (ablation / "search.yaml").write_text("settings: {model.init_args.lora_rank: [1, 2]}\n")
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"{ablation / 'search.yaml'}: model.init_args.lora_rank: row 01_mean does not take it" in said
    assert not list(out.glob("*/*"))


PRUNED = f"""
settings: {{{LR}: [1.0e-2, 2.0e-2, 1.0e-9]}}
monitor: val/loss
untuned: false
pruner: {{class_path: optuna.pruners.MedianPruner, init_args: {{n_startup_trials: 2}}}}
"""


def test_a_rate_that_learns_nothing_is_stopped_at_its_first_validation_and_changes_no_other_run(
    ablation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    (ablation / "search.yaml").write_text(PRUNED)
    (ablation / "long.yaml").write_text("trainer:\n  max_epochs: 3\n")
    sweep = ["ablation", "run", str(ablation), "--overlay", str(ablation / "long.yaml"), "--seeds", "7", "--out"]
    assert main([*sweep, str(tmp_path / "out")]) == 0
    stopped = tmp_path / "out/01_mean/lr-1e-09/seed-7"
    left = json.loads((stopped / "result.json").read_text())
    assert (left["status"], left["epoch"], len(left["validations"]["val/loss"])) == ("pruned", 0, 1)
    assert (
        left["reason"]
        == f"stopped at step {left['step']} (validation 1): val/loss {left['validations']['val/loss'][0]:.4g}"
    )
    assert left["reason"] in capsys.readouterr().err
    assert not list(stopped.rglob("*.ckpt"))
    assert not list(stopped.glob("predictions-*"))
    assert main([*sweep, str(tmp_path / "whole"), "--search", str(without_pruner(tmp_path))]) == 0
    for place in ("", "lr-0.02/"):
        places = [tmp_path / out / f"01_mean/{place}seed-7" for out in ("out", "whole")]
        one, other = (json.loads((place / "result.json").read_text()) for place in places)
        assert one["splits"] == other["splits"]
        assert one["metrics"] == other["metrics"]
        curve = one["validations"]["val/loss"]
        assert (len(curve), curve[-1]) == (3, one["metrics"]["val"]["val/loss"])


def without_pruner(folder: Path) -> Path:
    file = folder / "no-pruner.yaml"
    file.write_text(PRUNED.partition("pruner")[0])
    return file


def test_a_pruner_needs_a_metric_that_validation_logs_in_training(
    ablation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    (ablation / "search.yaml").write_text(PRUNED.replace("val/loss", "val/f2"))
    assert main(["ablation", "run", str(ablation), "--out", str(tmp_path / "out")]) == 4
    said = capsys.readouterr().err
    assert "monitor: validation in training does not log it, which a pruner needs (got 'val/f2'); fix: it logs" in said


def test_baselines_are_tuned_as_other_rows_and_a_default_estimator_is_named(
    ablation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nearest neighbors by their number, and logistic regression, which the row leaves to the default, by its C."""
    baseline = "# Cheap?\nmodel:\n  class_path: ftkit.BaselineClassifier\n  init_args:\n"
    nearest = "    estimator: {class_path: sklearn.neighbors.KNeighborsClassifier, init_args: {n_neighbors: 1}}\n"
    (ablation / "rows/02_nearest.yaml").write_text(baseline + nearest)
    (ablation / "rows/03_logistic.yaml").write_text(f"{baseline}    search: {{estimator__C: [1, 10]}}\n")
    estimator = "model.init_args.estimator"
    search = {
        "settings": {LR: [0.01, 0.02]},
        "rows": {
            2: {LR: None, f"{estimator}.init_args.n_neighbors": [1, 3]},
            3: {
                LR: None,
                "model.init_args.search": [None],
                f"{estimator}.class_path": ["sklearn.linear_model.LogisticRegression"],
                f"{estimator}.init_args.C": [1.0e-3, 10.0],
            },
        },
    }
    (ablation / "search.yaml").write_text(yaml.safe_dump(search))
    out = tmp_path / "out"
    assert main(["ablation", "run", str(ablation), "--out", str(out), "--seeds", "7"]) == 0
    entries = [json.loads(line) for line in (out / "ledger.jsonl").open()]
    chosen = {entry["row"]: entry["identity"] for entry in entries if entry["status"] == "chosen"}
    tried = {row: [setting for setting, _ in one["tries"]] for row, one in chosen.items()}
    assert [setting[f"{estimator}.init_args.n_neighbors"] for setting in tried[2]] == [1, 3]
    assert [setting[f"{estimator}.init_args.C"] for setting in tried[3]] == [1e-3, 10.0]
    results = [json.loads((out / entry["cell"] / "result.json").read_text()) for entry in entries if entry["result"]]
    for result in results:
        assert ("test" in result["splits"]) == ("test" in result["seconds"])
    tested = {entry["cell"] for entry in entries if entry["status"] == "done" and entry["row"] == 3}
    assert tested == {
        f"{next(e['cell'] for e in entries if e['status'] == 'chosen' and e['row'] == 3)}/seed-7",
        "03_logistic/seed-7",
    }
    assert "C 10.0" in capsys.readouterr().out
