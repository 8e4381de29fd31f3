"""What ftkit assumes of jsonargparse beyond its public interface: a version that breaks it fails here first."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from jsonargparse import ArgumentParser

from ftkit.jsonargparse_internals import (
    PlainHelp,
    RefusesEmptyUnknown,
    accept_shell_style,
    class_paths,
    given_options,
    option_names,
    option_type,
    prefer_int,
)


def fit(rate: float, quick: bool = False, files: list[Path] | None = None) -> None:
    """Have a required option, a switch and a list."""


def test_actions_list_all_options_and_subcommands_keep_their_parsers() -> None:
    parser, child = ArgumentParser(exit_on_error=False), ArgumentParser(exit_on_error=False)
    parser.add_argument("--verbose", type=bool)
    child.add_function_arguments(fit)
    parser.add_subcommands().add_subcommand("fit", child)
    assert {"files", "quick", "rate", "subcommand", "verbose"} <= set(option_names(parser))


def test_a_type_hint_can_be_replaced_and_obeys_nargs_and_const() -> None:
    def remove(names: list[str], force: bool = False) -> None:
        """Have a positional list and a switch."""

    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(remove, as_positional=True)
    accept_shell_style(parser)
    assert parser.parse_args(["a", "b", "--force"]).as_dict() == {"names": ["a", "b"], "force": True}
    assert parser.parse_args(["a", "--force", "false"]).as_dict() == {"names": ["a"], "force": False}


def test_options_can_be_parsed_without_those_that_are_required(tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(fit)
    config = tmp_path / "config.yaml"
    config.write_text("quick: true\n")
    given = given_options(parser, ["--config", str(config)])
    assert given.quick is True
    assert "rate" not in given
    with pytest.raises(Exception, match="rate"):
        parser.parse_args([])


class Guarded(RefusesEmptyUnknown, ArgumentParser):
    """A parser that refuses what jsonargparse alone passes over."""


@pytest.mark.parametrize("parser_class", [ArgumentParser, Guarded])
def test_every_configuration_passes_where_empty_unknown_options_are_refused(parser_class: type) -> None:
    parser = parser_class(exit_on_error=False)
    parser.add_function_arguments(fit, "fit")
    for given in ({"zebra": {}}, {"fit": {"rate": 1.0, "zebra": {"stripes": {}}}}):
        if parser_class is Guarded:
            with pytest.raises(Exception, match=r"zebra.* is not accepted"):
                parser.parse_object({"fit": {"rate": 1.0}, **given})
        else:
            parser.parse_object({"fit": {"rate": 1.0}, **given})
    assert parser.parse_object({"fit": {"rate": 1.0}}).fit.rate == 1.0


class Kind:
    """A class that an option may name."""


class Derived(Kind):
    """Another one."""


def test_the_type_of_an_option_tells_the_classes_that_it_takes() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(fit)
    parser.add_argument("--kind", type=Callable[[], Kind] | None)
    assert option_type(parser, "rate") is float
    assert option_type(parser, "zebra") is None
    assert [path.rpartition(".")[2] for path in class_paths(option_type(parser, "kind"))] == ["Kind", "Derived"]
    assert class_paths(float) == class_paths(None) == []


def test_of_several_classes_with_a_name_that_of_torch_is_meant() -> None:
    class SGD(torch.optim.SGD):
        """Another one, which is found by its path below."""

    SGD.__qualname__, sys.modules[__name__].SGD = "SGD", SGD  # type: ignore[attr-defined]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--optimizer", type=Callable[[list[float]], torch.optim.Optimizer])
    parser.add_argument("--kind", type=Callable[[], Kind])
    given = parser.parse_args(["--optimizer", "SGD", "--kind", "Derived"])
    assert given.optimizer.class_path == "torch.optim.SGD"
    assert given.kind.class_path.endswith("Derived")


def test_help_shows_what_to_write_and_no_types() -> None:
    def start(name: Path, kind: Literal["a", "b"] | None = None, seed: int = 0, quick: bool = False, from_: str = "x"):
        """Start.

        Args:
            name: A :func:`name`.
            kind: One of ``two``.
            seed: A number.
            quick: Whether.
            from_: Where.
        """

    parser = ArgumentParser(exit_on_error=False, prog="start", formatter_class=PlainHelp)
    parser.add_function_arguments(start, as_positional=True)
    accept_shell_style(parser)
    usage, *lines = [" ".join(line.split()) for line in parser.format_help().splitlines() if line]
    assert usage == "usage: start [options] name"
    assert lines[-5:] == [
        "name A `name`.",
        "--kind a|b One of `two`.",
        "--seed N A number. (default: 0)",
        "--quick Whether.",
        "--from FROM Where. (default: x)",
    ]


def test_a_whole_number_stays_one_whatever_order_typing_remembers() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--limit", type=float | int | None)
    assert isinstance(parser.parse_args(["--limit", "1"]).limit, float)
    prefer_int(parser)
    for text, value in (("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("null", None)):
        found = parser.parse_args(["--limit", text]).limit
        assert (found, type(found)) == (value, type(value))
