"""Silence library output that helps no user, and say what takes long instead; nothing heavy is imported for it."""

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ftkit.config_files import read_config

# Advertisements, notes that Lightning's own code causes, and what a command says better itself.
_WARNINGS = (
    "`loftq_config` specified but will be ignored",  # jsonargparse fills in its defaults
    "LightningCLI's args parameter",  # it is given on purpose
    "Could not find a config file in",  # peft wonders about resized vocabularies; none is
    "fan_in_fan_out is set to",  # it finds the layout of each layer itself
    "`is_gradient_checkpointing` is deprecated",  # its own use of transformers
    r"Found \d+ module\(s\) in eval mode",  # a vision tower that does not learn; the rest is put into training
    "Setting `save_embedding_layers`",  # peft sees for itself that adapters on embeddings need it
    r"\s*Unable to serialize instance",  # a default of a callback; an argument that was given is text
    "Experiment logs directory",  # a run folder holds more than curves
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use
    ".* does not have many workers",  # most data is in memory, where workers cost more than they save
)
_LOGGED = {
    "lightning.fabric.utilities.seed": ("Seed set to",),  # config.yaml and result.json hold it
    "lightning.pytorch.utilities.rank_zero": (
        "Tip: ",
        "Loading `train_dataloader` to estimate",
        "GPU available: ",  # a GPU that is not used is warned of; result.json names the device
        "TPU available: ",
        "You are using a CUDA device",  # --matmul_precision chooses
        "Restoring states from the checkpoint",  # said again once it is done
        "`Trainer.fit` stopped: `max_",  # as it was told to
        "Automatic Mixed Precision (AMP)",  # as it was told to, too
    ),
    "transformers.modeling_utils": ("LOAD REPORT",),  # weights that a model lacks are refused, and a head is not used
}
_OF_OUR_MODULES = "You have overridden `on_before_batch_transfer`"  # so they have
_LOGGED_AT_IMPORT = {"bitsandbytes.backends.cpu.ops": ("kernels-community",)}  # a speed-up of 4 bits on some CPUs


def quiet_imports() -> None:
    """Silence what libraries print when they are imported, and Lightning's note on a hook of ftkit's modules."""
    warnings.filterwarnings("ignore", message=_OF_OUR_MODULES)
    for name, said in _LOGGED_AT_IMPORT.items():
        logging.getLogger(name).addFilter(_Without(said))


def say_imports() -> None:
    """Say on standard error that PyTorch and Lightning are imported, which takes seconds, unless they already are."""
    if "torch" not in sys.modules:
        print("importing PyTorch and Lightning ...", file=sys.stderr, flush=True)


def check_before_imports(configs: Iterable[Path], options: Mapping[str, str] = MappingProxyType({})) -> None:
    """Refuse what is wrong before PyTorch is imported, which takes seconds, then say that it is.

    Args:
        configs: Config files.
        options: Options of the command line by name, ``model`` and ``data`` among them.

    Raises:
        InputError: A file is missing, not UTF-8, not YAML, not a mapping, or its model or data module is misspelt.
    """
    from ftkit.class_paths import check_classes

    given: list[tuple[Mapping[str, Any], Path | None]] = [(read_config(config), config) for config in configs]
    if "torch" not in sys.modules:  # or the parser, which knows all imported classes, answers as fast
        for content, file in [*given, (options, None)]:
            check_classes(content, file)
    say_imports()


def quiet_libraries() -> None:
    """Silence advertisements, notes on libraries' own code, and progress bars of a second's work."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of names that Lightning itself uses
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers reads it too when it is imported
    quiet_imports()
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name, said in _LOGGED.items():
        logging.getLogger(name).addFilter(_Without(said))
    if "transformers" in sys.modules:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()


def quiet_lightning() -> None:
    """Silence what Lightning says of seed, devices and progress, for commands that say themselves what happens."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


@dataclass(frozen=True)  # equal ones are added to a logger once
class _Without:
    """Drop log records that contain one of these texts."""

    said: tuple[str, ...]

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(said in record.getMessage() for said in self.said)
