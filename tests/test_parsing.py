"""Messages of jsonargparse in one line with the key, the value and the way out."""

import textwrap
from pathlib import Path

import pytest

from ftkit.errors import InputError
from ftkit.parsing import FtkitParser, explain, option_names

KNOWN = ["model", "data", "trainer", "trainer.max_epochs", "trainer.max_steps", "config"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "unrecognized arguments: --trainer.max_epoch 3",
            "trainer.max_epoch: no such option; fix: did you mean trainer.max_epochs?",
        ),
        (
            "Subcommand 'fit' does not accept option 'trainer.max_epoch'",
            "trainer.max_epoch: no such option; fix: did you mean trainer.max_epochs?",
        ),
        (
            "Subcommand 'fit' does not accept option 'modle.init_args.size'",
            "modle.init_args.size: no such option; fix: did you mean model?",
        ),
        ("Key 'max_epocs' is not expected", "max_epocs: no such option; fix: did you mean trainer.max_epochs?"),
        (
            "Option 'zzz' is not accepted",
            "zzz: no such option; fix: use one of model, data, trainer, trainer.max_epochs, trainer.max_steps, config",
        ),
        (
            "argument subcommand: invalid choice: 'fti' (choose from 'fit', 'test')",
            "fti: no such command; fix: did you mean fit?",
        ),
        (
            'Parser key "size":\n  Expected a typing.Literal[\'small\', \'xl\']. Got value: smal',
            "size: Expected a typing.Literal['small', 'xl']. Got value: smal; fix: see --help",
        ),
        ('Parser key "config": File does not exist: \'a.yaml\'', "a.yaml: config: there is no such file"),
        ('Parser key "config": Path is not a file: \'/runs\'', "/runs: config: not a file"),
        (
            "the following arguments are required: fit.data",
            "the following arguments are required: fit.data; fix: see --help",
        ),
        (
            'Parser key "a":\n  Does not validate against any of the Union subtypes\n'
            "  Subtypes: [<class 'int'>, None]\n  Errors:\n"
            "    - Expected a <class 'int'>\n    - Expected a None\n  Given value: x",
            "a: Expected a <class 'int'> - Expected a None Given value: x; fix: see --help",
        ),
    ],
)  # fmt: skip
def test_one_level(message: str, expected: str) -> None:
    assert str(explain(message, KNOWN)) == expected


def nested(inner: str) -> str:
    """What the parser of a class_path says, as jsonargparse wraps it."""
    return textwrap.dedent(
        """\
        Parser key "model":
          Does not validate against any of the Union subtypes
          Subtypes: [<class 'lightning.pytorch.core.module.LightningModule'>, <class 'NoneType'>]
          Errors:
            - {}
            - Expected a <class 'NoneType'>
          Given value type: <class 'dict'>
          Given value: {{'init_args': {{'a': 1}}}}"""
    ).format(inner)


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (
            "poling: no such option; fix: did you mean pooling?",
            "model.poling: no such option; fix: did you mean pooling?",
        ),
        (
            'Parser key "pooling": Expected a typing.Literal[\'first\', \'last\']. Got value: frist',
            "model.pooling: Expected a typing.Literal['first', 'last']. Got value: frist; fix: see --help",
        ),
        (
            'Parser key "optimizer": lrr: no such option; fix: did you mean lr?',
            "model.optimizer.lrr: no such option; fix: did you mean lr?",
        ),
        (
            "Problem with given class_path 'os.pth':\n        module 'os' has no attribute 'pth'",
            "model: module 'os' has no attribute 'pth'; fix: did you mean os.path?",
        ),
    ],
)  # fmt: skip
def test_class_paths_within_class_paths(inner: str, expected: str) -> None:
    assert str(explain(nested(inner), KNOWN)) == expected


def test_a_parser_raises_instead_of_exiting_and_knows_its_subcommands() -> None:
    parser, child = FtkitParser(), FtkitParser()
    parser.add_argument("--verbose", type=bool)
    child.add_argument("--rows", type=int)
    parser.add_subcommands().add_subcommand("run", child)
    assert {"verbose", "rows"} <= set(option_names(parser))
    with pytest.raises(ValueError, match=r"^rowz: no such option; fix: did you mean rows\?$"):
        parser.parse_args(["run", "--rowz", "3"])
    with pytest.raises(ValueError, match=r"^rows: Expected a <class 'int'>. Got value: many; fix: see --help$"):
        parser.parse_args(["run", "--rows", "many"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"# rows\nrows: 1\nb: *\n",
            "bad.yaml:3: not valid YAML: did not find expected alphabetic or numeric character",
        ),
        (b"rows: many\n", "bad.yaml: rows: Expected a <class 'int'>. Got value: many; fix: see --help"),
        (b"- 1\n", "bad.yaml: a config file is a mapping of settings; fix: write lines such as `trainer:`"),
        (b"", "bad.yaml: a config file is a mapping of settings; fix: write lines such as `trainer:`"),
        (b"rows: '\xe9'\n", "bad.yaml: not UTF-8 at byte 7; fix: save the file as UTF-8"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_named(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = FtkitParser()
    parser.add_argument("--config", action="config")
    parser.add_argument("--rows", type=int)
    (tmp_path / "bad.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        parser.parse_args(["--config", "bad.yaml"])
    assert str(caught.value) == message
