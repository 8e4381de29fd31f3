"""Adapt the private interfaces of LightningCLI that ftkit uses; no other file uses any.

``tests/training/test_lightning_internals.py`` names every assumption that is made here, so that a version that breaks
one turns that test red first.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, _InstantiatorFn


class HookedCLI(LightningCLI):
    """LightningCLI with hooks at four steps that it offers no hooks for.

    Assumes that it makes the parser of each subcommand in ``_prepare_subcommand_parser``, takes hyperparameters from a
    checkpoint in ``_parse_ckpt_path`` before it builds anything, chooses in ``_add_instantiators`` what builds the
    classes that a configuration names, with an ``_InstantiatorFn`` for the model and one for the data, and does its
    work in ``_run_subcommand``.
    """

    def add_arguments_to_subcommand(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Add options to the parser of one subcommand."""

    def before_parse_checkpoint(self) -> None:
        """Look at the configuration before a checkpoint's hyperparameters are put into it."""

    @contextmanager
    def around_constructor(self, class_type: type) -> Iterator[None]:
        """Surround the building of an object whose class a configuration names, now or when a partial is called."""
        yield

    def constructor_arguments(self, class_type: type, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments to build an object with, from those that a configuration names."""
        return arguments

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

    def _add_instantiators(self) -> None:
        for key, base in (("model", L.LightningModule), ("data", L.LightningDataModule)):
            self.parser.add_instantiator(_Constructor(self, _InstantiatorFn(self, key)), base)
        self.parser.add_instantiator(_Constructor(self, _call), object)

    def _run_subcommand(self, subcommand: str) -> None:
        with self.around_subcommand(subcommand):
            super()._run_subcommand(subcommand)


class _Constructor:
    """Build the objects of a configuration inside :meth:`HookedCLI.around_constructor`."""

    def __init__(self, cli: HookedCLI, build: Callable[..., Any]) -> None:
        self.cli, self.build = cli, build

    def __call__(self, class_type: type, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
        with self.cli.around_constructor(class_type):
            kwargs = self.cli.constructor_arguments(class_type, kwargs)
            return self.build(class_type, *args, applied_instantiation_links=applied_instantiation_links, **kwargs)


def _call(class_type: type, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
    return class_type(*args, **kwargs)
