"""A setting that a search tries: the name of its folder, its config file, and how it is called."""

import re
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from ftkit.storage import key_of

Setting = tuple[tuple[str, Any], ...]  # full option paths with values; empty: the row as its file says
_NAME = re.compile(r"(?!seed-)[\w.+-]+(,[\w.+-]+)*")
_LONGEST = 60  # letters of a folder's name


def setting_name(setting: Setting) -> str:
    """Return what the folder of a setting is called: its values, or a hash where they make no good name.

    Example:
        >>> setting_name((("model.init_args.optimizer.init_args.lr", 0.0003), ("model.init_args.lora_rank", 8)))
        'lr-0.0003,lora_rank-8'
    """
    parts = {path.rpartition(".")[2]: value for path, value in setting}
    name = ",".join(f"{option}-{value}" for option, value in parts.items())
    if len(parts) == len(setting) and len(name) <= _LONGEST and _NAME.fullmatch(name):
        return name
    return f"setting-{key_of(dict(setting))[:8]}"


def nested(setting: Setting) -> dict[str, Any]:
    """Return a setting as a config file nests it.

    Example:
        >>> nested((("trainer.max_epochs", 3), ("trainer.precision", "32")))
        {'trainer': {'max_epochs': 3, 'precision': '32'}}
    """
    config = Namespace()
    for path, value in setting:
        config[path] = value
    return config.as_dict()


def short_setting(setting: Mapping[str, Any]) -> str:
    """Return a setting in words.

    Example:
        >>> short_setting({"model.init_args.optimizer.init_args.lr": 0.0003})
        'lr 0.0003'
    """
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in setting.items())
