"""Import the classes that config files name by short names, and find others in the current folder."""

import sys
from importlib.util import find_spec
from pathlib import Path

from ftkit.classifier import gpt2_classifier, spam, text_classifier  # noqa: F401  their classes have short names
from ftkit.language import arithmetic, sft  # noqa: F401  the same

if find_spec("PIL"):  # the extra vlm; their classes have short names too
    import ftkit.vlm.data
    import ftkit.vlm.dpo
    import ftkit.vlm.sft
    import ftkit.vlm.yes_no  # noqa: F401


def find_own_modules() -> None:
    """Look for the modules of class paths in the current folder too, behind the packages, as ``python -m`` does."""
    # An empty entry, as in a notebook, will not do: the folder changes while a config file is parsed.
    if not sys.flags.safe_path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
