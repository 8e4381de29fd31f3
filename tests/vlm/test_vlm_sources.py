"""Images named in tables, and images held by Parquet files and data sets: loaded, split by image, trained one step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from ftkit.examples.reader import image_bytes
from ftkit.run_folder import SPLITS
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.sft import VLMSFT
from vlm_folders import draw_pictures, row_about


def rows(folder: Path, held: bool) -> list[dict[str, Any]]:
    draw_pictures(folder)
    found = [row_about("prefix", number) for number in range(12)]
    if held:
        found = [
            row | {"image": {"bytes": (folder / row["image"]).read_bytes(), "path": row["image"]}} for row in found
        ]
    return found


def semicolons(folder: Path) -> Any:
    import pandas

    pandas.DataFrame(rows(folder, held=False)).to_csv(folder / "train.csv", sep=";", index=False)
    return folder / "train.csv"


def parquet(folder: Path) -> Any:
    import pandas

    pandas.DataFrame(rows(folder, held=True)).to_parquet(folder / "train.parquet")
    return folder / "train.parquet"


def frame(folder: Path) -> Any:
    import pandas

    return pandas.DataFrame(rows(folder, held=True))


def data_set(folder: Path) -> Any:
    import datasets

    return datasets.Dataset.from_list(rows(folder, held=True)).cast_column("image", datasets.Image())


def saved(folder: Path) -> Any:
    data_set(folder).save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize("write", [semicolons, parquet, frame, data_set, saved])
def test_each_source_of_images_is_split_and_trained_on(
    write: Callable[[Path], Any], idefics3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = VLMDataModule(write(tmp_path), fractions=(0.5, 0.2), batch_size=4, chat=False)
    images = [{image_bytes(image) for one in data.examples(split) for image in one.images} for split in SPLITS]
    assert [len(data.examples(split)) for split in SPLITS] == [6, 2, 4]
    assert list(map(len, images)) == [3, 1, 2]
    assert len(set.union(*images)) == 6  # no image is in two splits
    run = L.Trainer(
        max_steps=1, accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    run.fit(VLMSFT(base_model=str(idefics3_folder), max_new_tokens=4), datamodule=data)
    assert run.global_step == 1
    assert torch.isfinite(run.logged_metrics["train/loss"])
    assert data.report["held_out"].startswith("No validation and no test data given: 2 and 4 of 12 train examples")


def test_columns_of_a_table_of_images(tmp_path: Path) -> None:
    draw_pictures(tmp_path)
    (tmp_path / "train.csv").write_text("Bild;Frage;Antwort\n0.png;Farbe?;rot\n1.png;Farbe?;grün\n", encoding="utf-8")
    columns: dict[str, str | int] = {"image": "Bild", "prefix": "Frage", "suffix": "Antwort"}
    data = VLMDataModule(tmp_path / "train.csv", columns=columns, fractions=(1.0, 0.0))
    assert [one.completion for one in data.examples("train")] == ["rot", "grün"]
    assert [one.images for one in data.examples("train")] == [(tmp_path / "0.png",), (tmp_path / "1.png",)]
    assert data.examples("test") == []
