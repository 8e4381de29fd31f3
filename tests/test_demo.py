"""The rows of `make demo`, made short: their learning rate falls, and nothing but their own progress is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest

from ftkit.lightning_cli import FtkitCLI

CH06 = Path(__file__).parents[1] / "configs/ch06"


def test_the_learning_rate_falls_to_a_tenth_in_the_last_epoch(tmp_path: Path) -> None:
    class Rates(L.Callback):
        of_epochs: list[float] = []  # noqa: RUF012

        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.of_epochs.append(trainer.optimizers[0].param_groups[0]["lr"])

    configs = [CH06 / name for name in ("base.yaml", "demo.yaml", "rows/05_all_layers.yaml")]
    arguments = [word for config in configs for word in ("--config", str(config))]
    short = [
        "--trainer.limit_train_batches",
        "2",
        "--trainer.limit_val_batches",
        "0",
        "--trainer.log_every_n_steps",
        "1",
    ]
    folder = ["--trainer.default_root_dir", str(tmp_path)]
    cli = FtkitCLI([*arguments, *short, *folder], run=False)
    cli.trainer.callbacks.append(rates := Rates())
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert rates.of_epochs == pytest.approx([3e-4, 2.325e-4, 1.65e-4, 9.75e-5, 3e-5])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_prints_no_warning(tmp_path: Path) -> None:
    short = tmp_path / "short.yaml"
    short.write_text("trainer: {limit_train_batches: 1, limit_val_batches: 1, log_every_n_steps: 1}\n")
    sweep = ["ablation", "run", CH06, "--overlay", CH06 / "demo.yaml", "--overlay+", short, "--rows", "1-19"]
    sweep += ["--out", tmp_path / "runs"]
    ended = subprocess.run(
        [sys.executable, "-m", "ftkit", *map(str, sweep)],
        capture_output=True,
        text=True,
        env={**os.environ, "FTKIT_CACHE": str(tmp_path / "cache")},
    )
    lines = ended.stderr.splitlines() + ended.stdout.splitlines()
    assert ended.returncode == 0, lines
    other = [line for line in lines if not re.match(r"(start|done) +\[ *\d+/19\] \d\d_\w+ \(seed 123\)", line)]
    assert not other, "\n".join(other)
    assert len(lines) == 2 * 19
