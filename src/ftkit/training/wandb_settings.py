"""How ftkit uses Weights & Biases wherever it does: online only with a key, silent, and never waiting for long."""

from __future__ import annotations

import os
from typing import Any


def mode(offline: bool | None = None) -> str:
    """``offline`` or ``online``: as told, else as ``WANDB_MODE`` says, else online if there is a ``WANDB_API_KEY``."""
    if offline is None:
        return os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    return "offline" if offline else "online"


def settings() -> dict[str, Any]:
    """Settings of wandb for runs that nobody watches: silent, and nothing waits for a slow network for long."""
    return {"silent": True, "console": "off", "init_timeout": 20, "login_timeout": 20, "finish_timeout": 60}
