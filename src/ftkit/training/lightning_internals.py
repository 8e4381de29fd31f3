"""What ftkit uses of Lightning and torchmetrics beyond their public interfaces; no other file does.

``tests/training/test_lightning_internals.py`` names every assumption that is made here, so that a version that breaks
one turns that test red first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI


class HookedCLI(LightningCLI):
    """LightningCLI with hooks at three steps that it offers no hooks for.

    Assumes that it makes the parser of each subcommand in ``_prepare_subcommand_parser``, takes hyperparameters from a
    checkpoint in ``_parse_ckpt_path`` before it builds anything, and does its work in ``_run_subcommand``.
    """

    def add_arguments_to_subcommand(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Add options to the parser of one subcommand."""

    def before_parse_checkpoint(self) -> None:
        """Look at the configuration before a checkpoint's hyperparameters are put into it."""

    @contextmanager
    def around_subcommand(self, subcommand: str) -> Iterator[None]:
        """Surround the subcommand, its ``before_`` and ``after_`` hooks included."""
        yield

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        self.add_arguments_to_subcommand(parser, subcommand)
        return parser

    def _parse_ckpt_path(self) -> None:
        self.before_parse_checkpoint()
        super()._parse_ckpt_path()

    def _run_subcommand(self, subcommand: str) -> None:
        with self.around_subcommand(subcommand):
            super()._run_subcommand(subcommand)
