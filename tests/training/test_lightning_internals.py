"""What ftkit assumes of Lightning and torchmetrics beyond their public interfaces: what breaks it fails here first."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.demos.boring_classes import BoringModel

from ftkit.training.lightning_internals import HookedCLI


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
    cli = Spying("fit", *options)
    assert cli.calls == ["checkpoint None", "instantiate", "enter fit fit", "before", "after", "leave"]
