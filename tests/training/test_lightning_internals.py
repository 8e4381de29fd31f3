"""What ftkit assumes of Lightning and torchmetrics beyond their public interfaces: what breaks it fails here first."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import CatMetric, MeanMetric

from ftkit.lightning_cli_internals import HookedCLI
from ftkit.training import lightning_internals as internals
from ftkit.training import logged_values_internals as values
from ftkit.training.curves_logger import CurvesLogger

BATCHES = 4


class Module(L.LightningModule):
    """Sees batches 0 to 3; logs each, and mean, sum and largest of the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append(batch.item())
        self.log("now", batch.mean())
        for name, reduce in (("mean", "mean"), ("sum", "sum"), ("max", "max")):
            self.log(name, batch.mean(), on_step=False, on_epoch=True, reduce_fx=reduce, batch_size=1)
        return self.layer(batch).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val", batch.mean(), batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Hooks(L.Callback):
    """Calls functions in hooks: by the hook's name, a function of trainer, module and possibly the batch's number."""

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        for name, function in hooks.items():
            setattr(self, name, partial(self.call, function))

    @staticmethod
    def call(function: Callable[..., Any], trainer: L.Trainer, module: Module, *args: Any) -> None:
        function(trainer, module, *args[-1:])


def numbers(first: int = 0, n: int = BATCHES) -> DataLoader:
    return DataLoader(torch.arange(float(first), first + n).view(-1, 1))  # type: ignore[arg-type]  # it is a data set


def fit(*callbacks: L.Callback, loader: Any = None, ckpt_path: Path | None = None, **options: Any) -> Module:
    module = Module()
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    chosen = {"logger": False, "max_epochs": 1, "enable_checkpointing": False, "num_sanity_val_steps": 0, **options}
    chosen["callbacks"] = [*callbacks, *options.get("callbacks", ())]
    trainer = L.Trainer(**quiet, **chosen)
    trainer.fit(module, numbers() if loader is None else loader, numbers(10, 2), ckpt_path=ckpt_path)
    return module


def test_a_module_keeps_its_trainer() -> None:
    assert internals.attached_trainer(Module()) is None
    assert isinstance(internals.attached_trainer(fit()), L.Trainer)


def test_the_hook_is_known_also_while_a_checkpoint_asks_for_states(tmp_path: Path) -> None:
    class Asked(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
            found.append(internals.running_hook(module))
            self.module = module
            trainer.save_checkpoint(tmp_path / "a.ckpt")

        def state_dict(self) -> dict[str, Any]:
            found.append(internals.running_hook(self.module))
            return {}

    found: list[str | None] = []
    fit(Asked(), limit_train_batches=1)
    assert found == ["on_train_batch_end"] * 2


def test_the_step_gets_what_module_and_data_module_make_of_a_batch() -> None:
    class Doubling(Module):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return 2 * batch

    assert internals.as_the_step_gets_it(Doubling(), torch.tensor(3.0)) == 6


def test_loaders_can_be_replaced() -> None:
    def replace(trainer: L.Trainer, module: Module) -> None:
        assert len(internals.training_loaders(trainer)) == 1
        internals.replace_training_loaders(trainer, [numbers(5)])

    assert internals.training_loaders(L.Trainer(accelerator="cpu", logger=False)) == []
    assert fit(Hooks(on_train_start=replace)).seen == [5, 6, 7, 8]


def test_batches_can_be_passed_over() -> None:
    def pass_over(trainer: L.Trainer, module: Module) -> None:
        internals.pass_over_batches(trainer, 3)

    assert fit(Hooks(on_train_start=pass_over)).seen == [3]


def test_an_epoch_can_have_fewer_batches() -> None:
    def shorten(trainer: L.Trainer, module: Module) -> None:
        internals.set_batches_of_an_epoch(trainer, 2)

    module = fit(Hooks(on_train_start=shorten), max_epochs=2)
    assert module.seen == [0, 1, 0, 1]
    assert module.trainer.num_training_batches == 2


def test_what_is_logged_is_summed_up_and_can_be_added_to() -> None:
    def look(trainer: L.Trainer, module: Module, batch_idx: int) -> None:
        assert values.logged_in_training(trainer) == {"now", "mean", "sum", "max"}
        assert values.logged_in_step(trainer, "now") == batch_idx
        assert values.logged_in_step(trainer, "other") is None
        if batch_idx == 2:
            sums = values.epoch_sums(trainer)
            assert sums["training_step.mean"] == {"value": torch.tensor(3.0), "cumulated_batch_size": torch.tensor(3)}
            assert sums["training_step.sum"] == {"value": torch.tensor(3.0)}
            assert "training_step.now" not in sums
            found, logged = values.epoch_values(trainer)
            assert {name: value.item() for name, value in found.items()} == {"mean": 1, "sum": 3, "max": 2}
            assert logged == {"mean", "sum", "max"}
            sums["other"] = {}
            values.add_epoch_sums(trainer, sums)
            assert list(sums) == ["other"]
            found, _ = values.epoch_values(trainer)
            assert {name: value.item() for name, value in found.items()} == {"mean": 1, "sum": 6, "max": 2}

    module = fit(Hooks(on_train_batch_end=look))
    found = {name: module.trainer.callback_metrics[name].item() for name in ("mean", "sum", "max")}
    assert found == {"mean": pytest.approx(9 / 7), "sum": 9, "max": 3}  # 0 to 2 are counted twice


def test_what_will_be_logged_is_known_when_a_checkpoint_is_saved(tmp_path: Path) -> None:
    logger, foretold = CurvesLogger(tmp_path), list[Any]()

    def look(trainer: L.Trainer, module: Module, *args: Any) -> None:
        rows = values.rows_to_come(trainer)
        foretold.append((logger.rows, [(step, dict(row)) for step, row in rows]))
        assert trainer.loggers == [logger]

    hooks = Hooks(on_train_batch_end=look, on_validation_end=look, on_train_epoch_end=look)
    fit(hooks, logger=logger, log_every_n_steps=2, limit_train_batches=2)
    step, epoch = {"now": 1.0, "epoch": 0}, {"mean": 0.5, "sum": 1.0, "max": 1.0, "epoch": 0}
    assert foretold == [(0, []), (0, [(1, step)]), (2, []), (2, [(1, epoch)])]
    written = (tmp_path / "metrics.csv").read_text().splitlines()
    assert written == ["epoch,max,mean,now,step,sum,val", "0,,,1.0,1,,", "0,,,,1,,10.5", "0,1.0,0.5,,1,1.0,"]


def test_what_callbacks_monitor_can_be_put_back() -> None:
    def restore(trainer: L.Trainer, module: Module) -> None:
        values.restore_callback_metrics(trainer, {"before": torch.tensor(7.0)})

    assert fit(Hooks(on_train_start=restore)).trainer.callback_metrics["before"] == 7


def test_metrics_can_be_put_back() -> None:
    counted, empty = (nn.ModuleDict({"mean": MeanMetric(), "cat": CatMetric()}) for _ in range(2))
    for value in (1.0, 4.0):
        counted["mean"].update(value)
        counted["cat"].update(value)
    with pytest.warns(UserWarning, match="before the ``update``"):
        empty["mean"].compute()
    values.restore_metric_states(empty, values.metric_states(counted))
    assert (empty["mean"].compute(), empty["cat"].compute().tolist()) == (2.5, [1, 4])
    assert empty["mean"].update_count == 2


def test_the_sizes_of_the_groups_are_attributes_of_the_strategy() -> None:
    strategy = ModelParallelStrategy()
    names = set(vars(strategy))
    strategy.parallel_devices = [torch.device("cpu")] * 2
    internals.join_all_processes(strategy)
    assert {"_data_parallel_size", "_tensor_parallel_size"} <= names
    assert (vars(strategy)["_data_parallel_size"], vars(strategy)["_tensor_parallel_size"]) == (2, 1)


def test_counters_tell_where_the_loops_are() -> None:
    def look(hook: str, trainer: L.Trainer, module: Module, *args: Any) -> None:
        due = hook.startswith("on_train_batch") and internals.validation_is_due(trainer)
        under_way = internals.epoch_is_under_way(trainer)
        found.append((hook, due, internals.epoch_is_over(trainer), under_way))

    found: list[Any] = []
    hooks = ("on_train_batch_start", "on_train_batch_end", "on_validation_end", "on_train_epoch_end")
    fit(Hooks(**{hook: partial(look, hook) for hook in hooks}), limit_train_batches=2)
    assert found == [
        ("on_train_batch_start", False, False, True),
        ("on_train_batch_end", False, False, True),
        ("on_train_batch_start", True, True, True),
        ("on_train_batch_end", True, True, True),
        ("on_validation_end", False, True, True),
        ("on_train_epoch_end", False, True, False),
    ]


def test_a_checkpoint_callback_knows_which_step_it_saved_and_whether_it_waits(tmp_path: Path) -> None:
    def look(trainer: L.Trainer, module: Module, *args: Any) -> None:
        found.append([tuple(flag.values()) for flag in internals.checkpoint_flags(trainer).values()])

    found: list[Any] = []
    steps = ModelCheckpoint(tmp_path, filename="steps", every_n_train_steps=2, save_top_k=-1)
    waiting = ModelCheckpoint(tmp_path, filename="val", every_n_train_steps=1, monitor="val", save_top_k=-1)
    saved = {"callbacks": [steps, waiting], "enable_checkpointing": True}
    module = fit(Hooks(on_train_batch_start=look, on_train_batch_end=look), limit_train_batches=2, **saved)
    # Each batch from its start, and at its end before and, as it will be, after the callbacks.
    assert found == [
        [(0, False), (0, False)],
        [(1, False), (1, False)],
        [(0, False), (0, True)],
        [(2, False), (0, True)],
    ]
    flags = internals.checkpoint_flags(module.trainer)
    assert [flag["saved"] for flag in flags.values()] == [2, 0]
    again = L.Trainer(callbacks=[ModelCheckpoint(tmp_path, every_n_train_steps=2)], accelerator="cpu", logger=False)
    again.strategy.connect(module)
    (key,) = internals.checkpoint_flags(again)
    internals.restore_checkpoint_flags(again, {key: {"saved": 7, "waits": True}})
    assert internals.checkpoint_flags(again) == {key: {"saved": 7, "waits": True}}


class Save(L.Callback):
    """Saves a checkpoint in a hook, its loops changed by a function."""

    def __init__(self, file: Path, change: Callable[..., None]) -> None:
        self.file, self.change = file, change

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.change(trainer, checkpoint["loops"]["fit_loop"])


class SaveBefore(Save):
    """Saves before the third batch."""

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            trainer.save_checkpoint(self.file)


class SaveAfter(Save):
    """Saves after the last batch, or the last step."""

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if internals.epoch_is_over(trainer):
            trainer.save_checkpoint(self.file)


def resumed(file: Path, *callbacks: L.Callback, **options: Any) -> tuple[Module, list[str]]:
    """Go on from a checkpoint; what was called."""

    def note(hook: str, trainer: L.Trainer, *args: Any) -> None:
        called.append(f"{hook} {trainer.fit_loop.epoch_loop._batches_that_stepped}")

    called: list[str] = []
    hooks = ("on_train_batch_end", "on_validation_end", "on_train_epoch_end")
    noted = Hooks(**{hook: partial(note, hook) for hook in hooks})
    return fit(noted, *callbacks, ckpt_path=file, **options), called


@pytest.mark.parametrize("interval", [1.0, 2])
def test_the_state_before_a_batch_goes_on_with_it(interval: Any, tmp_path: Path) -> None:
    options = {"val_check_interval": interval, "max_epochs": 1}
    fit(SaveBefore(tmp_path / "a.ckpt", internals.before_the_batch), **options)
    _, called = resumed(tmp_path / "a.ckpt", **options)
    assert called == ["on_train_batch_end 2", "on_train_batch_end 3", "on_validation_end 3", "on_train_epoch_end 4"]


@pytest.mark.parametrize("validates", [True, False])
def test_the_state_after_the_last_batch_goes_on_with_validation_and_the_end_of_the_epoch(
    validates: bool, tmp_path: Path
) -> None:
    def finish(trainer: L.Trainer, module: Module) -> None:
        internals.finish_epoch_first(trainer, validates, False)

    options = {"max_epochs": 1, "limit_val_batches": 1.0 if validates else 0}
    fit(SaveAfter(tmp_path / "a.ckpt", internals.after_the_batch), **options)
    _, called = resumed(tmp_path / "a.ckpt", Hooks(on_fit_start=finish), **options)
    assert called == [*(["on_validation_end 3"] if validates else []), "on_train_epoch_end 4"]


@pytest.mark.parametrize("validates", [True, False])
@pytest.mark.parametrize("stop", [False, True])
def test_an_epoch_is_finished_though_its_last_step_was_taken(validates: bool, stop: bool, tmp_path: Path) -> None:
    def finish(trainer: L.Trainer, module: Module) -> None:
        internals.finish_epoch_first(trainer, validates, stop)

    options = {"max_steps": 2, "max_epochs": -1, "val_check_interval": 2 if validates else 3}
    fit(SaveAfter(tmp_path / "a.ckpt", internals.after_the_batch), **options)
    module, called = resumed(tmp_path / "a.ckpt", Hooks(on_fit_start=finish), **options)
    assert called == [*(["on_validation_end 1"] if validates else []), "on_train_epoch_end 2"]
    assert (module.seen, module.trainer.max_steps) == ([], 2)


def test_a_training_that_was_told_to_stop_stops_after_the_epoch(tmp_path: Path) -> None:
    def finish(trainer: L.Trainer, module: Module) -> None:
        internals.finish_epoch_first(trainer, True, True)

    saved = ModelCheckpoint(tmp_path, filename="a", save_on_train_epoch_end=False)
    fit(callbacks=[saved], max_epochs=2, val_check_interval=2, enable_checkpointing=True, limit_train_batches=2)
    module, called = resumed(tmp_path / "a.ckpt", Hooks(on_fit_start=finish), max_epochs=9, limit_train_batches=2)
    assert called == ["on_train_epoch_end 4"]
    assert module.trainer.should_stop


class Spying(HookedCLI):
    """Notes what is called, in its order."""

    def __init__(self, *args: str) -> None:
        self.calls: list[str] = []
        super().__init__(BoringModel, save_config_callback=None, args=list(args))

    def add_arguments_to_subcommand(self, parser: LightningArgumentParser, subcommand: str) -> None:
        parser.add_argument("--mine", default=subcommand)

    def before_parse_checkpoint(self) -> None:
        self.calls.append(f"checkpoint {self.config.fit.ckpt_path}")

    def before_instantiate_classes(self) -> None:
        self.calls.append("instantiate")

    @contextmanager
    def around_constructor(self, class_type: type) -> Iterator[None]:
        self.calls.append(f"build {class_type.__name__}")
        yield

    @contextmanager
    def around_subcommand(self, subcommand: str) -> Iterator[None]:
        self.calls.append(f"enter {subcommand} {self.config.fit.mine}")
        yield
        self.calls.append("leave")

    def before_fit(self) -> None:
        self.calls.append("before")

    def after_fit(self) -> None:
        self.calls.append("after")


def test_the_command_line_calls_its_hooks_in_order(tmp_path: Path) -> None:
    quiet = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--trainer.barebones", "true"]
    options = ["--trainer.max_steps", "0", "--trainer.default_root_dir", str(tmp_path), *quiet]
    options += ["--trainer.plugins", "LightningEnvironment"]
    cli = Spying("fit", *options)
    built = ["build LightningEnvironment", "build BoringModel"]
    assert sorted(cli.calls[2:4]) == sorted(built)
    calls = [call for call in cli.calls if call not in built]
    assert calls == ["checkpoint None", "instantiate", "enter fit fit", "before", "after", "leave"]


@pytest.mark.parametrize(("strategy", "spawns"), [("ddp_spawn", True), ("ddp", False), ("auto", False)])
def test_a_strategy_that_spawns_has_a_launcher_of_its_own(strategy: str, spawns: bool) -> None:
    trainer = L.Trainer(accelerator="cpu", devices=1, strategy=strategy, logger=False, enable_checkpointing=False)
    assert internals.starts_processes_from_memory(trainer) == spawns
