"""pyproject.toml, constraints/tested.txt and constraints/lowest.txt say the same of each dependency."""

import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FROM_THE_MACHINE = {"torch", "torchvision"}
UNSTABLE = {"lightning", "transformers", "peft", "jsonargparse", "bitsandbytes"}  # ftkit calls what they keep private


def by_name(lines: list[str]) -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one for one in requirements if one.name != "ftkit"}


def constraints(name: str) -> dict[str, Requirement]:
    lines = (ROOT / "constraints" / name).read_text(encoding="utf-8").splitlines()
    return by_name([line for line in lines if not line.startswith("#")])


DECLARED = by_name(
    [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
)
PINNED = sorted(DECLARED.keys() - FROM_THE_MACHINE)


def pinned(requirement: Requirement) -> Version:
    (only,) = requirement.specifier
    assert only.operator == "==", requirement
    return Version(only.version)


def lower_bound(requirement: Requirement) -> Version:
    (bound,) = (Version(one.version) for one in requirement.specifier if one.operator == ">=")
    return bound


@pytest.mark.parametrize("name", PINNED)
def test_lowest_is_the_lower_bound(name: str) -> None:
    assert pinned(constraints("lowest.txt")[name]) == lower_bound(DECLARED[name])


@pytest.mark.parametrize("name", PINNED)
def test_tested_is_within_the_bounds(name: str) -> None:
    assert pinned(constraints("tested.txt")[name]) in DECLARED[name].specifier


@pytest.mark.parametrize("name", sorted(UNSTABLE))
def test_the_next_minor_release_of_an_unstable_library_is_excluded(name: str) -> None:
    tested = pinned(constraints("tested.txt")[name])
    assert Version(f"{tested.major}.{tested.minor + 1}.0") not in DECLARED[name].specifier


@pytest.mark.parametrize("file", ["lowest.txt", "tested.txt"])
def test_what_comes_from_the_machine_is_a_range_within_the_bounds(file: str) -> None:
    for name in FROM_THE_MACHINE:
        found = constraints(file)[name]
        assert {one.operator for one in found.specifier} == {">=", "<"}
        assert lower_bound(found) in DECLARED[name].specifier


def test_a_lowest_version_of_nothing_is_left() -> None:
    assert constraints("lowest.txt").keys() == DECLARED.keys()


def test_what_is_tested_takes_every_python_that_ftkit_takes() -> None:
    """A release for Python 3.11.5 and later is not found by a system's 3.11.2."""
    (bound,) = SpecifierSet(PROJECT["requires-python"])
    lowest = Version(f"{bound.version}.0")
    pins = {name: pinned(one) for name, one in constraints("tested.txt").items() if name not in FROM_THE_MACHINE}
    tested = [one for one in distributions() if pins.get(canonicalize_name(one.name)) == Version(one.version)]
    accepted = {one.name: SpecifierSet(one.metadata.json.get("requires_python", "")) for one in tested}
    assert accepted
    assert not {name: str(versions) for name, versions in accepted.items() if lowest not in versions}
