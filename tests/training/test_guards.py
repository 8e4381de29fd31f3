"""What stops a training, and what does not; what never counts as the best checkpoint."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ftkit.errors import ExitCode, InputError, TrainingFailed
from ftkit.lightning_cli import FtkitCLI
from ftkit.training.guards import Climb, DivergenceGuard, FiniteGuard

CONFIGS = Path(__file__).parents[2] / "configs"

# A published fine-tuning log, an average of many steps each: (loss, rate, epoch).
CLIMBED = [
    (0.7373, 0.000105, 0.16), (0.7517, 0.000158, 0.24), (0.8197, 0.000199, 0.32), (0.8381, 0.000193, 0.40),
    (0.8572, 0.000187, 0.48), (1.1329, 0.000181, 0.56), (1.1242, 0.000175, 0.64), (1.1402, 0.000169, 0.72),
    (1.1246, 0.000163, 0.80),
]  # fmt: skip
# The same with a tenth of the rate.
LEARNT = [0.8198, 0.6289, 0.5952, 0.5745, 0.5417, 0.5498, 0.5138, 0.5461, 0.533]
PATIENCE = DivergenceGuard().climb.patience


class Replayed(L.LightningModule):
    """Has the losses that it is told to have."""

    def __init__(self, losses: list[float], metrics: list[float] = []) -> None:  # noqa: B006
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.losses, self.metrics = losses, metrics

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        step = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        return self.weight.sum() * 0 + self.losses[step]

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/accuracy", torch.tensor(self.metrics[self.trainer.current_epoch]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.125)


def fit(folder: Path, model: Replayed, *callbacks: L.Callback, epochs: int = 1) -> None:
    rows: Any = torch.zeros(len(model.losses) // epochs)
    L.Trainer(
        accelerator="cpu", max_epochs=epochs, default_root_dir=folder, logger=False, callbacks=list(callbacks),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    ).fit(model, DataLoader(rows), DataLoader(rows[:1]) if model.metrics else None)  # fmt: skip


def test_the_log_that_climbed_is_stopped_with_advice(tmp_path: Path) -> None:
    losses = [loss for loss, _, _ in CLIMBED]
    with pytest.raises(TrainingFailed, match=r"climbed from 0\.7373 .* fix: lower the learning rate tenfold") as stop:
        fit(tmp_path, Replayed([*losses, 1.1, 1.1]), DivergenceGuard(window=1))
    assert stop.value.exit_code == ExitCode.TRAINING
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["step"] == losses.index(1.1246) + 1  # 0.80 of its first epoch: the fourth average that is up
    assert "has climbed" in result["reason"]
    fit(tmp_path, Replayed([*losses, 1.1, 1.1]), DivergenceGuard(enabled=False, window=1))


def test_the_log_that_learnt_goes_on(tmp_path: Path) -> None:
    fit(tmp_path, Replayed(LEARNT), DivergenceGuard(window=1))


def stretched(points: list[float], batches: int, noise: float, seed: int) -> list[float]:
    """A log of a few averages as the losses of single batches: lines between the points, and noise."""
    place = torch.linspace(0, len(points) - 1, batches)
    before = place.long().clamp(max=len(points) - 2)
    values = torch.tensor(points)
    trend = torch.lerp(values[before], values[before + 1], place - before)
    drawn = torch.randn(batches, generator=torch.Generator().manual_seed(seed))
    return (trend * (1 + noise * drawn)).abs().tolist()


@pytest.mark.parametrize("name", ["vlm/moderation.yaml", "moderation/base.yaml"])
def test_a_short_shipped_training_is_stopped_in_time(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FtkitCLI, "instantiate_classes", lambda self: None)
    config = FtkitCLI(["--config", str(CONFIGS / name)], run=False).config
    batches = config.data.init_args.sample // config.data.init_args.batch_size * config.trainer.max_epochs
    assert batches == 128
    chosen = config.divergence.as_dict()
    climbed = [*(loss for loss, _, _ in CLIMBED), 1.12, 1.13, 1.12]
    for seed in range(20):
        guard = DivergenceGuard(**chosen).climb
        fired = [guard.add(loss) for loss in stretched(climbed, batches, 0.15, seed)]
        assert any(fired), seed
        assert batches / 3 < fired.index(True) + 1 <= 0.8 * batches, seed
        for healthy in (LEARNT, [1.0, 0.7, 0.4, 0.1, 0.02, 0.01, 0.01, 0.01, 0.01], [0.7] * 9):
            guard = DivergenceGuard(**chosen).climb
            assert not any(guard.add(loss) for loss in stretched(healthy, batches, 0.4, seed)), (seed, healthy)
    with pytest.raises(TrainingFailed, match="stayed up for 32 batches"):
        fit(tmp_path, Replayed(stretched(climbed, batches, 0.15, 0)), DivergenceGuard(**chosen))
    assert json.loads((tmp_path / "result.json").read_text())["step"] < batches


@pytest.mark.parametrize("option", ["window", "patience"])
def test_no_block_can_be_empty_and_none_is_lost_at_once(option: str) -> None:
    with pytest.raises(InputError, match=rf"{option}: must be at least 1 \(got 0\)"):
        DivergenceGuard(**{option: 0})


@settings(max_examples=60)
@given(
    st.integers(0, 2**31),
    st.floats(0.01, 10),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.sampled_from(["normal", "lognormal", "spikes"]),
)
def test_a_noisy_but_falling_loss_never_stops(seed: int, start: float, end: float, noise: float, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    trend = torch.linspace(start, start * end, 1000)
    drawn = torch.randn(1000, generator=generator)
    shaped = {"normal": drawn, "lognormal": drawn.exp() - 1.65, "spikes": 10.0 * (drawn > 2.3)}[kind]
    guard = DivergenceGuard().climb
    assert not any(guard.add(loss) for loss in (trend * (1 + noise * shaped)).abs().tolist())


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.floats(0.05, 5), st.floats(0, 0.3))
def test_a_climb_that_stays_is_always_found(seed: int, start: float, noise: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    trend = torch.cat([torch.linspace(start, start / 2, 300), torch.linspace(start / 2, 1.6 * start, 200),
                       torch.full((200,), 1.6 * start)])  # fmt: skip
    guard = DivergenceGuard().climb
    losses = trend * (1 + noise * torch.randn(700, generator=generator))
    fired = [guard.add(loss) for loss in losses.tolist()]
    assert any(fired)
    assert fired.index(True) > 300


def test_a_spike_and_a_short_climb_are_forgiven() -> None:
    losses = [1.0, 0.5, 9.0, 0.5, *[2.0] * (PATIENCE - 1), 0.5, *[2.0] * (PATIENCE - 1), 0.4]
    climb = Climb(window=1, patience=PATIENCE)
    assert not any(climb.add(loss) for loss in losses)


def test_what_it_has_seen_survives_a_checkpoint() -> None:
    guard, resumed = DivergenceGuard(window=2), DivergenceGuard(window=2)
    for loss in (1.0, 1.0, 0.5, 0.5, 2.0):
        guard.climb.add(loss)
    resumed.load_state_dict(guard.state_dict())
    assert resumed.climb == guard.climb
    other = DivergenceGuard(window=3)
    other.load_state_dict(guard.state_dict())
    assert math.isnan(other.climb.first)


def test_losses_that_were_not_read_yet_survive_a_checkpoint(tmp_path: Path) -> None:
    losses = [1.0, 1.0, 0.5, 0.5, 2.0, 3.0, 4.0]
    guard, seen = DivergenceGuard(window=4), Climb(window=4, patience=PATIENCE)
    fit(tmp_path, Replayed(losses), guard)
    for loss in losses:
        seen.add(loss)
    state = guard.state_dict()
    assert state == asdict(seen)
    assert state["block"] == [2.0, 3.0, 4.0]
    assert guard.state_dict() == state  # none is added twice
    resumed = DivergenceGuard(window=4)
    fit(tmp_path, Replayed([9.0]), resumed)  # an attempt whose losses a checkpoint replaces
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_is_not_a_number_is_never_the_best(bad: float, mode: str, tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode=mode, filename="{epoch}")
    with pytest.warns(UserWarning, match=r"val/accuracy is .*: no candidate for the best checkpoint"):
        fit(tmp_path, Replayed([1.0] * 3, [bad, 0.5, bad]), FiniteGuard(), best, epochs=3)
    assert Path(best.best_model_path).name == "epoch=1.ckpt"
    assert best.best_model_score == 0.5
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["epoch=1.ckpt"]
