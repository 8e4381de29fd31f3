"""``ftkit fit|validate|test|predict``: LightningCLI with ftkit's run folder, safe checkpoints and readable errors.

The same class makes one run of an ablation, so a row gives the same files alone and in a sweep.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from ftkit.checkpoint_options import (
    CONTROLS_OPTION,
    EVALUATION_OPTIONS,
    RESUME_OPTIONS,
    SELECTION_OPTIONS,
    check_checkpoint,
    choose_resumable,
    named_checkpoint,
    refuse_interrupted,
    refuse_trained,
)
from ftkit.errors import ExitCode, InputError
from ftkit.folder_choice import choose_folder, remove_unused, with_newest_config
from ftkit.jsonargparse_internals import given_options, prefer_int
from ftkit.library_output import quiet_libraries
from ftkit.lightning_cli_internals import HookedCLI
from ftkit.lightning_errors import (
    constructor_error,
    exit_on_termination,
    explain_refusals,
    explain_state_mismatch,
    option_of,
    trainer_error,
)
from ftkit.lock import exclusive
from ftkit.named_classes import find_own_modules
from ftkit.parsing import ErrorMixin
from ftkit.report.image_controls import control_lines
from ftkit.run_config import RunConfig
from ftkit.run_folder import RUNS
from ftkit.run_summary import summary
from ftkit.storage import make_folder
from ftkit.trainer_setup import check_optimizer, check_options, check_seed, check_trainer, trainer_options
from ftkit.training.callback_checks import refuse_callbacks
from ftkit.training.checkpoint import find_checkpoint, read_checkpoint
from ftkit.training.guards import DivergenceGuard, FiniteGuard
from ftkit.training.log_interval import LogInterval
from ftkit.training.model_selection import EarlyStop
from ftkit.training.monitor_check import MonitorCheck
from ftkit.training.recorder import RunRecorder
from ftkit.training.resume import ExactResume, compare_settings, settings, stored_settings
from ftkit.training.run_names import with_run_names
from ftkit.training.safe_stop import SafeStop
from ftkit.training.trained_state import DEFAULT_EPOCHS, TrainedStateModule

SUBCOMMANDS = ("fit", "validate", "test", "predict")
MatmulPrecision = Literal["highest", "high", "medium"]
MATMUL_HELP = "How exact float32 matrix products are: high (TF32) and medium (bf16) are faster where the chip has them."


class Parser(ErrorMixin, LightningArgumentParser):
    """LightningCLI's parser with ftkit's errors."""


class FtkitCLI(HookedCLI):
    """LightningCLI over any module and data module.

    Args:
        args: The command line without the program's name.
        run: Run the subcommand; otherwise only build ``trainer``, ``model`` and ``datamodule``.
        callbacks: Callbacks besides those of every run.
    """

    def __init__(self, args: Sequence[str], run: bool = True, callbacks: Sequence[L.Callback] = ()) -> None:
        quiet_libraries()
        self._arguments = with_newest_config(args) if run else list(args)
        self._revision: str | None = None  # a commit that was named, if it is the one that the checkpoint tells
        find_own_modules()
        self.safe_stop = SafeStop()
        self.exact_resume = ExactResume()
        self._scratch: TemporaryDirectory[str] | None = None  # in place of the run folder in a fast_dev_run
        self._new_folder: Path | None = None  # that was made for this run
        self._refusal: Exception | None = None  # by a constructor; jsonargparse buries it where there are other types
        with self._unused_folder_removed():
            super().__init__(
                L.LightningModule,
                L.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=RunConfig,
                save_config_kwargs={"save_to_log_dir": False},
                trainer_defaults={
                    # Of the first one that begins a batch, the checkpoint is; the last one seeds what the batch draws.
                    "callbacks": [RunRecorder(), FiniteGuard(), *callbacks, self.exact_resume],
                },
                parser_class=Parser,
                parser_kwargs={"prog": "ftkit"},
                seed_everything_default=123,
                auto_configure_optimizers=False,
                args=self._arguments,
                run=run,
            )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommands, with the arguments that LightningCLI fills in."""
        return {name: arguments for name, arguments in LightningCLI.subcommands().items() if name in SUBCOMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Offer how the numbers are computed, when a training stops before its end, and which checkpoint it keeps."""
        parser.add_argument("--matmul_precision", type=MatmulPrecision, default="highest", help=MATMUL_HELP)
        parser.add_lightning_class_args(DivergenceGuard, "divergence")
        parser.add_class_arguments(EarlyStop, "early_stopping", skip={"monitor", "mode"}, instantiate=False)
        for name, (kind, default, help) in SELECTION_OPTIONS.items():
            parser.add_argument(f"--{name}", type=kind, default=default, help=help)
        prefer_int(parser)

    def add_arguments_to_subcommand(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Offer what starts a run from somewhere."""
        offered = RESUME_OPTIONS if subcommand == "fit" else EVALUATION_OPTIONS
        offered = offered | CONTROLS_OPTION if subcommand == "test" else offered
        for name, help in offered.items():
            action = parser.add_argument(f"--{name}", type=bool, default=False, help=help)
            action.nargs, action.const = "?", True

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse them, and choose the run folder unless it is named; a run's own ``config.yaml`` names none."""
        super().parse_arguments(parser, args)
        subcommand = self.config.get("subcommand")
        chosen = self.config.get(subcommand or "", self.config)
        check_seed(chosen.seed_everything)
        if chosen.trainer.default_root_dir is None:
            folder, is_new = choose_folder(subcommand, chosen) if subcommand else (RUNS, False)
            chosen.trainer.default_root_dir = str(folder)
            self._new_folder = folder if is_new else None

    @contextmanager
    def _unused_folder_removed(self) -> Iterator[None]:
        """Remove the new folder of a run that is refused, or that keeps nothing."""
        try:
            yield
        finally:
            if self._new_folder and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                remove_unused(self._new_folder.absolute())

    def before_parse_checkpoint(self) -> None:
        """Read the checkpoint safely, and refuse a wrong one, before Lightning takes hyperparameters from it."""
        chosen = self.config.get(self.config.get("subcommand") or "")
        if chosen and chosen.get("resume"):
            choose_resumable(chosen)
        elif chosen and self.config.subcommand == "fit" and named_checkpoint(chosen) is None:
            refuse_interrupted(chosen)
        if chosen and (path := named_checkpoint(chosen)):
            given = given_options(self.parser, self._arguments)
            options = given.get(f"{self.config.subcommand}.model.init_args") or Namespace()
            self._revision = check_checkpoint(chosen, path, options.as_dict())

    def chosen(self, config: Namespace) -> Namespace:
        """Return the options of the subcommand that is run, or all of them where none is."""
        return config if self.subcommand is None else config[self.subcommand]

    def before_instantiate_classes(self) -> None:
        """Let this run's choice replace that of an earlier one in the process."""
        torch.set_float32_matmul_precision(self.chosen(self.config).matmul_precision)
        if self._revision is not None:  # in the place of the branch that a checkpoint was trained with
            self.chosen(self.config).model.init_args.revision = self._revision

    def instantiate_classes(self) -> None:
        """Build everything; what a constructor refuses, jsonargparse would report as a type that does not match.

        Raises:
            FtkitError: What the constructor raised.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise self._refusal or error from None
        model = self.chosen(self.config).model
        check_optimizer(self.model, model.get("init_args", Namespace()))
        refuse_callbacks(self.trainer, self.model, isinstance(self.model, TrainedStateModule))

    @contextmanager
    def around_constructor(self, class_type: type) -> Iterator[None]:
        """Turn what a constructor raises into what to tell the user."""
        try:
            yield
        except Exception as error:
            option = option_of(self.chosen(self.config), class_type)
            self._refusal = constructor_error(error, class_type, option)
            if self._refusal is error:
                raise
            raise self._refusal from error

    def constructor_arguments(self, class_type: type, arguments: dict[str, Any]) -> dict[str, Any]:
        """Let a logger's arguments name the run folder, its variant and its ablation."""
        if not (isinstance(class_type, type) and issubclass(class_type, Logger)):
            return arguments
        return with_run_names(arguments, Path(self.chosen(self.config).trainer.default_root_dir))

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer: curves as CSV beside whatever logger is named, and checkpoints written whole."""
        chosen = self.chosen(self.config_init).trainer
        check_options(chosen)
        if chosen.fast_dev_run and self.subcommand is not None:
            self._scratch = TemporaryDirectory(prefix="ftkit-fast-dev-run-")
        # Absolute, so that a checkpoint callback knows its own state again wherever the run is resumed from.
        folder = str(Path(self._scratch.name if self._scratch else chosen.default_root_dir).absolute())
        training = self.subcommand in (None, "fit")
        if training and (chosen.max_epochs, chosen.max_steps, chosen.max_time) == (None, -1, None):
            epochs = getattr(self.model, "default_epochs", DEFAULT_EPOCHS)  # Lightning's are 1,000
            kwargs["max_epochs"] = self.chosen(self.config).trainer.max_epochs = epochs
            rank_zero_info(f"Training for {epochs} epochs; --trainer.max_epochs changes it")
        if not training:  # where the run folder was moved; an evaluation ranks no checkpoints
            warnings.filterwarnings("ignore", message="The dirpath has changed")
        kwargs |= trainer_options(self.chosen(self.config_init), folder, training)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
            raise trainer_error(error) from error
        check_trainer(trainer)
        trainer.callbacks.insert(0, MonitorCheck())  # type: ignore[attr-defined]
        if self.subcommand == "fit":
            trainer.callbacks.insert(0, self.safe_stop)  # type: ignore[attr-defined]
        if chosen.log_every_n_steps is None:
            trainer.callbacks.insert(0, LogInterval())  # type: ignore[attr-defined]
            warnings.filterwarnings("ignore", message="The number of training batches")  # which it reckons with
        return trainer

    @contextmanager
    def around_subcommand(self, subcommand: str) -> Iterator[None]:
        """Tell how it ends, and keep other trainings out of the run folder."""
        with ExitStack() as stack:
            stack.enter_context(exit_on_termination(alone=self.trainer.world_size == 1))
            stack.enter_context(explain_state_mismatch(self.config_init[subcommand].ckpt_path))
            stack.enter_context(explain_refusals())
            if subcommand == "fit":
                self._pin_base()
                if self.config_init.fit.resume:
                    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
                if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                    self._check_resumed()
            self._take_folder(stack)
            yield

    def _take_folder(self, stack: ExitStack) -> None:
        """Make the folder of a training and keep other trainings out, until the stack is closed."""
        if self._scratch:
            print("notice: fast_dev_run: nothing is kept, and the run folder is left as it is", file=sys.stderr)
            stack.enter_context(self._scratch)
        elif self.subcommand == "fit" and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            folder = Path(self.config_init.fit.trainer.default_root_dir)
            make_folder(folder)  # that it cannot be written is found out before the weights are loaded
            stack.enter_context(exclusive(folder))

    def _pin_base(self) -> None:
        """Let the base model be the commit on the hub that the run was trained on, unless a revision is given."""
        path = named_checkpoint(self.config_init[self.subcommand])
        if path and isinstance(self.model, TrainedStateModule):
            self.model.pin_base(read_checkpoint(path))

    def _check_resumed(self) -> None:
        """Refuse to resume with other settings before anything is written."""
        chosen = self.config_init.fit
        self.exact_resume.allow_changed = chosen.allow_changed
        if path := named_checkpoint(chosen):
            if isinstance(self.model, TrainedStateModule):
                self.model.refuse_other_base(read_checkpoint(path))
            now = settings(self.trainer, self.datamodule)
            compare_settings(stored_settings(Path(path)), now, chosen.allow_changed)

    def before_test(self) -> None:
        """Take the weights that ``fit`` left in the run folder unless a checkpoint is named.

        Raises:
            InputError: There are none, and ``--untrained`` is not given.
        """
        chosen = self.config_init[self.subcommand]
        if chosen.get("controls"):
            self._check_controls()
        if chosen.untrained:
            refuse_trained(chosen)
        elif chosen.ckpt_path is None and isinstance(self.model, TrainedStateModule):
            if self._new_folder:
                fix = "train with `ftkit fit`, or name a run's folder with --trainer.default_root_dir"
                raise InputError("there is no run of this config", file=RUNS, fix=fix)
            chosen.ckpt_path = str(find_checkpoint(chosen.trainer.default_root_dir))
        self._pin_base()
        if not self._scratch:
            make_folder(chosen.trainer.default_root_dir)

    before_validate = before_predict = before_test

    def _check_controls(self) -> None:
        """Refuse ``--controls`` of data without images, or of a part of them."""
        if not hasattr(self.datamodule, "controlled"):
            got, fix = type(self.datamodule).__name__, "leave it out"
            raise InputError("these data have no images", field="controls", got=got, fix=fix)
        from ftkit.vlm.controls import refuse_limits  # needs the extra vlm

        refuse_limits(self.trainer)

    def after_fit(self) -> None:
        """Report a signal that came too late to stop at.

        Raises:
            SystemExit: The process was told to end.
            InputError: There was nothing to train on.
        """
        if self.trainer.num_training_batches == 0:
            fix = "use a smaller batch size, or more data"
            raise InputError("0 batches: nothing was trained", field="data", fix=fix)
        self.after_test()
        if self.safe_stop.received is not None:
            raise SystemExit(128 + self.safe_stop.received)

    def after_test(self) -> None:
        """Print what was found, where it is and what comes next, after a command of a single run.

        Raises:
            SystemExit: A termination came too late for Lightning to stop at, see :func:`exit_on_termination`.
        """
        if self.trainer.received_sigterm:
            raise SystemExit(ExitCode.TERMINATED)
        if self.subcommand and not self._scratch and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            print(summary(self.trainer))
        if self.subcommand == "test" and self.config_init.test.controls:
            from ftkit.vlm.controls import image_controls  # needs the extra vlm

            if found := image_controls(self.trainer, self.model, self.datamodule):
                print("\n".join(control_lines(found)))

    after_validate = after_predict = after_test
