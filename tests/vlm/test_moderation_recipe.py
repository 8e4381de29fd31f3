"""The recipe of docs/howto/moderation.md, command by command, on a tiny PaliGemma and made pictures."""

import json
import random
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from PIL import Image

from ftkit.cli import main
from ftkit.results.predictions import Predictions, read_predictions
from ftkit.storage import sha256_of
from ftkit.training.checkpoint import read_checkpoint
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.sampling import read_outcomes
from ftkit.vlm.yes_no import VLMYesNo

CONFIGS = Path(__file__).parents[2] / "configs"
PAGE = CONFIGS.parent / "docs/howto/moderation.md"
_, *COMMANDS, PREPARE = re.findall(r"^\$ ftkit (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
SIZES = {"train": 24, "val": 8, "test": 12}


def draw(folder: Path) -> None:
    """Blue pictures are good ads, red ones bad; the photos among the test pictures are all good."""
    shades = random.Random(1)
    believed = []
    (folder / "images").mkdir(parents=True)
    for split, size in SIZES.items():
        examples = []
        for number in range(size):
            photo, good, bright = split == "test" and number >= 8, number % 2 == 0, number // 2 % 2 == 0
            good |= photo
            light = shades.randrange(200, 256) if bright else shades.randrange(60, 100)
            colour = (0, shades.randrange(40), light) if good else (light, shades.randrange(40), 0)
            name = f"images/{split}{number}.{'gif' if number % 3 else 'png'}"
            Image.new("RGB", (20, 18), colour).save(folder / name)
            answer, population = "yes" if good else "no", "photos" if photo else "ads"
            example = {"id": f"{split}{number}", "prefix": "Approved?", "image": name, "population": population}
            examples.append({**example, "suffix": answer})
            believed.append({**example, "suffix": "yes" if bright else "no"})
        write(folder / f"{split}.jsonl", examples)
    write(folder / "believed.jsonl", believed)


def write(path: Path, examples: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(example)}\n" for example in examples), encoding="utf-8")


def pretrain(model: Path, folder: Path) -> None:
    """Give the tiny model what a base model brings along: an opinion, here that bright pictures are good."""
    L.seed_everything(1)
    module = VLMYesNo(
        base_model=str(model), freeze_vision=False, max_new_tokens=4, seed=1,
        optimizer=lambda params: torch.optim.AdamW(params, lr=3e-3),
    )  # fmt: skip
    file = "data/ads/believed.jsonl"
    examples = VLMDataModule(train=file, val=file, images="data/ads", evaluate_splits=["val"])
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = L.Trainer(
        max_epochs=6, accelerator="cpu", enable_checkpointing=False, limit_val_batches=0, **quiet,
    )  # fmt: skip
    trainer.fit(module, datamodule=examples)
    module.export(folder)


TINY: dict[str, Any] = {
    "model": {"init_args": {"base_model": "base", "optimizer": {"init_args": {"lr": 1e-2}}}},
    "data": {"init_args": {"sample": 9, "num_workers": 0}},
    "trainer": {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
}


def tiny(command: str) -> list[str]:
    """A command of the page for PaliGemma, on the tiny model; of the ablation's rows the fourth."""
    command = command.replace("--config ads/base.yaml", "--config configs/vlm/moderation.yaml --config tiny.yaml")
    rows = "ablation run configs/moderation --rows 4 --overlay tiny.yaml"
    command = command.replace("ablation run ads", rows).replace("--html", "--slice population --html")
    return shlex.split(command)


@pytest.fixture(scope="module")
def recipe(paligemma_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which all commands of the recipe were run; it is the current one."""
    folder = tmp_path_factory.mktemp("recipe")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FTKIT_CACHE", str(folder / "cache"))
        Path("configs").symlink_to(CONFIGS)
        Path("tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
        draw(Path("data/ads"))
        pretrain(paligemma_folder, Path("base"))
        for command in (PREPARE, *COMMANDS):
            assert main(tiny(command)) == 0, command
        yield folder


def train_examples(run: str) -> Predictions:
    return read_predictions(Path(run, "predictions-train.tsv"))


def evaluated(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*tiny(command), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_recipe_is_the_whole_loop() -> None:
    said = [command.split()[0] for command in COMMANDS]
    assert said == ["test", "fit", "test", "evaluate", "evaluate", "test", "ablation", "ablation", "ablation"]
    assert PREPARE.startswith("images prepare ")


def test_before_tuning_every_example_is_predicted(recipe: Path) -> None:
    assert not (recipe / "runs" / "before" / "checkpoints").exists()
    for split, size in SIZES.items():
        found = read_predictions(recipe / "runs" / "before" / f"predictions-{split}.tsv")
        assert len(found) == size
        assert found.score_name == "log_odds:yes"
    found = read_outcomes("runs/before/predictions-train.tsv")  # by ids and by paths of images
    outcomes = Counter(found[name] for name in train_examples("runs/before").ids)
    assert outcomes == {"tp": 6, "tn": 6, "fp": 6, "fn": 6}  # bright ones are believed to be good: half is wrong


def test_exactly_the_examples_asked_for_are_learnt(recipe: Path) -> None:
    before = read_outcomes("runs/before/predictions-train.tsv")
    found = train_examples("runs/after")
    assert Counter(found.labels) == {"yes": 6, "no": 3}
    assert {before[identity] for identity in found.ids} <= {"tn", "fp", "fn", "neither"}
    result = json.loads(Path("runs/after/result.json").read_text(encoding="utf-8"))
    assert result["data"]["sizes"]["train"] == 9
    assert result["steps"] == 16  # 8 epochs of a window of 8 examples and one of 1
    assert len(train_examples("runs/after_all")) == SIZES["train"]


def test_only_adapters_are_kept(recipe: Path) -> None:
    assert all("lora" in name for name in read_checkpoint("runs/after")["state_dict"])


def test_the_report_compares_the_same_pictures_of_both_populations(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(COMMANDS[3], capsys)
    before, after = found["files"]
    for file in (before, after):
        sizes = {name: sum(part["counts"].values()) for name, part in file["slices"].items()}
        assert sizes == {"ads": 8, "photos": 4}
    assert after["figures"]["auroc"] > before["figures"]["auroc"]  # it learnt what the base did not know
    assert found["threshold"]["sha256"] == sha256_of("runs/after/predictions-val.tsv")
    assert [len(found["files"]), len(found["at_threshold"])] == [2, 2]
    (comparison,) = found["comparisons"]
    assert (comparison["n"], comparison["missing"][0]) == (SIZES["test"], 0)
    gained = after["counts"]["tp"] + after["counts"]["tn"] - before["counts"]["tp"] - before["counts"]["tn"]
    assert comparison["only_model"] - comparison["only_reference"] == gained
    assert Path("runs/moderation.html").stat().st_size > 10_000


def test_the_tuned_model_looks_at_the_pictures(recipe: Path) -> None:
    found = json.loads(Path("runs/after/result.json").read_text(encoding="utf-8"))["image_controls"]
    assert found["n"] == SIZES["test"]
    assert found["accuracy"] > found["controls"]["swapped"]["accuracy"]
    assert found["conclusion"] != "does not look at the image"


def test_the_untuned_model_gets_a_threshold_of_its_own(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(COMMANDS[4], capsys)
    assert found["threshold"]["sha256"] == sha256_of("runs/before/predictions-val.tsv")


def test_each_seed_of_the_ablation_learns_other_mistakes(recipe: Path) -> None:
    before = read_outcomes("runs/before/predictions-train.tsv")
    drawn = [set(train_examples(f"runs/moderation/04_false_answers/seed-{seed}").ids) for seed in (1, 2)]
    assert drawn[0] != drawn[1]
    for ids in drawn:
        assert len(ids) == 9
        assert {before[identity] for identity in ids} <= {"fp", "fn", "neither"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--trainer.default_root_dir runs/after", "runs/after: untrained: holds a trained model"),
        ("--ckpt_path runs/after --trainer.default_root_dir runs/x", "choose one of --untrained and --ckpt_path"),
    ],
)
def test_untrained_predictions_never_pass_for_trained_ones(
    recipe: Path, options: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Path("runs/after/predictions-test.tsv").read_bytes()
    assert main(tiny(f"test --config ads/base.yaml --untrained {options}")) == 2
    assert problem in capsys.readouterr().err
    assert Path("runs/after/predictions-test.tsv").read_bytes() == kept


def test_examples_chosen_by_outcome_need_the_predictions_first(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("base", "configs", "data", "tiny.yaml"):
        (tmp_path / name).symlink_to(recipe / name)
    monkeypatch.chdir(tmp_path)
    assert main(["ablation", "run", "configs/moderation", "--overlay", "tiny.yaml"]) == 2
    said = capsys.readouterr().err
    assert "runs/before/predictions-train.tsv: outcomes: cannot be read" in said
    assert "predict the train examples first: ftkit test --data.evaluate_splits '[train,val,test]'" in said
    assert not Path("runs/moderation/01_one_to_one").exists()  # nothing was run


def test_the_ablation_starts_from_the_recipe() -> None:
    recipe, base = (
        yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
        for name in ("vlm/moderation.yaml", "moderation/base.yaml")
    )
    assert recipe == base
