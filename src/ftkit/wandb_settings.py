"""Start runs on Weights & Biases: online only with a key, silent, and with short timeouts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb import Run


TIMEOUTS = {"init_timeout": 20, "login_timeout": 20, "finish_timeout": 60}  # seconds


def mode(offline: bool | None = None) -> str:
    """Return ``offline`` or ``online``: as given, else ``WANDB_MODE``, else online if there is a ``WANDB_API_KEY``."""
    if offline is None:
        return os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    return "offline" if offline else "online"


def start_run(mode: str, **init: Any) -> Run:
    """Start a run that nobody watches: silent, and nothing waits for a slow network for long.

    Args:
        mode: ``offline`` or ``online``. Offline or disabled, the library's own telemetry stays at home too.
        init: Arguments of ``wandb.init``.
    """
    import wandb

    # Telemetry reads the process's settings, and not those of the run; it would go on where a run is disabled.
    wandb.setup(wandb.Settings(mode="offline" if mode == "disabled" else mode))
    quiet = wandb.Settings(silent=True, console="off", **TIMEOUTS)
    return wandb.init(mode=mode, settings=quiet, **init)  # type: ignore[arg-type]  # WANDB_MODE may be any word
