"""Config files as plain YAML."""

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from ftkit.errors import InputError


def where_shipped(path: Path) -> str | None:
    """Return how a missing config of the documentation is had; None of any other path."""
    return "`ftkit init configs --from configs` writes this folder" if path.parts[:1] == ("configs",) else None


def read_config(path: Path) -> dict[str, Any]:
    """Read a config file as plain YAML, to say what is wrong with it by file and line.

    Raises:
        InputError: The file is missing, not UTF-8, not YAML, or not a mapping.
    """
    try:
        content = yaml.load(path.read_bytes().decode("utf-8-sig"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        raise InputError("there is no such file", file=path, fix=where_shipped(path)) from None
    except IsADirectoryError:
        fix = "name files in it: base.yaml and one of rows/ in an ablation, config.yaml in a run folder"
        raise InputError("a folder is no config file", file=path, fix=fix) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}", file=path, fix="save the file as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise InputError(f"not valid YAML: {error.problem}", file=path, line=line) from None
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {error}", file=path) from None
    except (ValueError, RecursionError) as error:  # such as an impossible date
        raise InputError(f"holds a value that cannot be read: {error}", file=path) from None
    if not isinstance(content, dict):
        raise InputError("a config file is a mapping of settings", file=path, fix="write lines such as `trainer:`")
    return content
