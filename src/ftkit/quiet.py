"""What the libraries underneath say on the terminal, as far as it helps nobody."""

from __future__ import annotations

import logging
import os
import warnings
from importlib.util import find_spec


def quiet_libraries() -> None:
    """Silence what libraries say to nobody's use: advertisements, their own deprecations, bars of a second's work."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of names that Lightning itself uses
    for message in (
        "LightningCLI's args parameter",  # it is given on purpose
        "You have overridden `on_before_batch_transfer`",  # so it has
        "Could not find a config file in",  # peft wonders about resized vocabularies; none is
        "fan_in_fan_out is set to",  # it finds the layout of each layer itself
        "`is_gradient_checkpointing` is deprecated",  # its own use of transformers
        r"Found \d+ module\(s\) in eval mode",  # a vision tower that does not learn; the rest is put into training
        "Experiment logs directory",  # a run folder holds more than curves
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use
    ):
        warnings.filterwarnings("ignore", message=message)
    for name, said in (
        ("lightning.pytorch.utilities.rank_zero", "Tip: For seamless"),
        ("bitsandbytes.backends.cpu.ops", "kernels-community"),  # an optional speed-up of 4-bit on some CPUs
    ):
        logging.getLogger(name).addFilter(_Without(said))
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    _switch_off_the_gguf_bar()


def quiet_lightning() -> None:
    """Silence what Lightning says of seed, devices and progress, for commands that say themselves what happens."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _switch_off_the_gguf_bar() -> None:
    """Let transformers' reader of GGUF files, which calls tqdm itself, obey the switch of its other bars."""
    if find_spec("gguf") and find_spec("transformers.modeling_gguf_pytorch_utils"):
        from transformers import modeling_gguf_pytorch_utils as reader
        from transformers.utils.logging import tqdm

        reader.tqdm = tqdm


class _Without(logging.Filter):
    def __init__(self, said: str) -> None:
        super().__init__()
        self.said = said

    def filter(self, record: logging.LogRecord) -> bool:
        return self.said not in record.getMessage()
