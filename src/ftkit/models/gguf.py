"""Read how a GGUF file's tensors are packed, and its licence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any


def read_gguf_facts(path: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """Read the header of a GGUF file that a configuration could be read from.

    Args:
        path: The file.

    Returns:
        Number of tensors by their type, such as ``{"Q4_1": 210, "F32": 61}``, most frequent first; and of what the
        header of a model card would hold, the licence, as far as the file names it.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)
    packed = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    named = {key: reader.get_field(f"general.{key}") for key in ("license", "license_name", "license_link")}
    return dict(packed.most_common()), {key: field.contents() for key, field in named.items() if field is not None}
