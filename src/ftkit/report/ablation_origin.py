"""Collect what the runs of an ablation were made with: data, base models, machines and versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from ftkit.ablation.analysis import Analysis
from ftkit.storage import key_of


def made_with(analysis: Analysis) -> Mapping[str, str]:
    """Return data, base models, machines and versions, each with all the values that occur in the runs."""
    found: dict[str, dict[str, None]] = {}
    for result in analysis.sweep.results:
        for name, value in _origin(result.raw, result.machine).items():
            found.setdefault(name, {})[value] = None
    return {name: "; ".join(values) for name, values in found.items()}


def collected(bases: Sequence[Mapping[str, Any]]) -> str:
    """Return what the base models are, each property with all its values; baselines without a model add nothing."""
    bases = [base for base in bases if base.get("source") != "none"]
    names = dict.fromkeys(name for base in bases for name in base if name != "fingerprint")
    found = {name: dict.fromkeys(str(base[name]) for base in bases if base.get(name) is not None) for name in names}
    return "; ".join(f"{name} {', '.join(values)}" for name, values in found.items() if values)


def _origin(raw: Mapping[str, Any], machine: str) -> dict[str, str]:
    data = raw.get("data") or {}
    sizes = ", ".join(f"{count:,} {split}" for split, count in (data.get("sizes") or {}).items())
    origin = {
        "data": " ".join(filter(None, [str(data.get("source", "unnamed")), f"({sizes})" if sizes else ""])),
        "data sha256": str(data.get("sha256") or "unknown"),
        "base model": _base_model(raw.get("base") or {}),
        "machine": machine,
    }
    return origin | {str(name): str(version) for name, version in (raw.get("versions") or {}).items()}


def _base_model(base: Mapping[str, Any]) -> str:
    """Its name, and a short hash of what its files hold, so that two under one name show."""
    fingerprint = base.get("fingerprint") or {}
    short = fingerprint.get("commit") or (key_of(fingerprint) if fingerprint else None)
    named = {name: value for name, value in base.items() if name != "fingerprint"} | {"contents": short and short[:12]}
    return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None) or "unknown"
