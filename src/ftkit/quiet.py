"""What the libraries underneath say on the terminal, as far as it helps nobody."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Silence what libraries say to nobody's use: advertisements, their own deprecations, bars of a second's work."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of names that Lightning itself uses
    for message in (
        "LightningCLI's args parameter",  # it is given on purpose
        "You have overridden `on_before_batch_transfer`",  # so it has
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


class _Without(logging.Filter):
    def __init__(self, said: str) -> None:
        super().__init__()
        self.said = said

    def filter(self, record: logging.LogRecord) -> bool:
        return self.said not in record.getMessage()
