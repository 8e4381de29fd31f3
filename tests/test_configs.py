"""Every shipped config file parses through the real command line and changes what its row says."""

from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import yaml  # type: ignore[import-untyped]

from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.search import Search
from ftkit.lightning_cli import FtkitCLI

LR = "model.init_args.optimizer.init_args.lr"
CONFIGS = Path(__file__).parents[1] / "configs"
BASES = sorted([*CONFIGS.glob("*/base.yaml"), *CONFIGS.glob("claims/*/base.yaml")])
ROWS = sorted(path for base in BASES for path in base.parent.glob("rows/*.yaml"))
# What is beside a base: overlays, and searches and claims, which are no layer of a config.
OVERLAYS = sorted(
    path
    for base in BASES
    for path in base.parent.glob("*.yaml")
    if path != base and not path.name.startswith(("search", "claim"))
)


def first_and_last(folder: Path) -> list[Path]:
    rows = sorted(folder.glob("rows/*.yaml"))
    return [rows[0], rows[-1]]


# A cell of each row, and each overlay under a first row and a last.
CHAINS = [[row.parents[1] / "base.yaml", row] for row in ROWS] + [
    [overlay.parent / "base.yaml", overlay, row] for overlay in OVERLAYS for row in first_and_last(overlay.parent)
]


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch):
    """Parses config files as `ftkit fit` does; nothing is built, since a GPU or a hub may be asked for."""

    def parse(configs: list[Path]) -> jsonargparse.Namespace:
        monkeypatch.setattr(FtkitCLI, "instantiate_classes", lambda self: None)
        arguments = [part for config in configs for part in ("--config", str(config))]
        return FtkitCLI(arguments, run=False).config

    return parse


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {name: value for key, child in tree.items() for name, value in leaves(child, f"{prefix}.{key}").items()}


def merged(configs: list[Path]) -> dict[str, Any]:
    together: dict[str, Any] = {}
    for config in configs:
        written = leaves(yaml.safe_load(config.read_text(encoding="utf-8")))
        classes = [name for name in written if name.endswith(".class_path")]
        other = [name for name in classes if together.get(name, written[name]) != written[name]]
        for name in other:  # another class does not take over the options of the one before
            options = name.removesuffix("class_path") + "init_args"
            together = {key: value for key, value in together.items() if not key.startswith(options)}
        replaced = [key for key in together if any(f"{one}.".startswith(f"{key}.") for one in written)]
        replaced += [key for key in together if any(key.startswith(f"{one}.") for one in written)]
        together = {key: value for key, value in together.items() if key not in replaced} | written
    return together


def value_at(config: Any, name: str) -> Any:
    """The value of a dotted name, of which the last part may be the key of a mapping."""
    if name in config:
        return config[name]
    option, _, key = name.rpartition(".")
    return config[option][key]


def test_there_is_something_to_test() -> None:
    assert len(BASES) >= 1
    assert len([row for row in ROWS if row.parts[-3] == "ch06" and row.name < "20"]) == 19
    assert {"demo.yaml", "gpu.yaml"} <= {path.name for path in OVERLAYS}


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "+".join(path.stem for path in chain))
def test_each_value_written_is_the_value_used(chain: list[Path], resolved) -> None:
    config = resolved(chain)
    for name, value in merged(chain).items():
        found = value_at(config, name.removeprefix("."))
        if name == ".trainer.callbacks":
            assert [callback.class_path.rpartition(".")[2] for callback in found] == ["ModelCheckpoint"]
        else:
            assert found == value or list(found) == value, name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.stem)
def test_a_row_is_a_question_and_a_few_lines(row: Path) -> None:
    question, *lines = row.read_text(encoding="utf-8").splitlines()
    assert question.startswith("# ")
    assert "?" in question
    written = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    assert 3 <= len(written) <= 6
    assert all(not line.startswith("#") for line in lines)


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.parent.name)
def test_rows_differ_from_the_base_by_known_keys_only(base: Path) -> None:
    ablation = AblationFolder.load(base.parent)
    assert len(ablation.rows) == len(list(base.parent.glob("rows/*.yaml")))
    different = [row.stem for row in sorted(base.parent.glob("rows/*.yaml")) if merged([base, row]) == merged([base])]
    assert different == [sorted(base.parent.glob("rows/*.yaml"))[0].stem]  # the first row is the base itself


@pytest.mark.parametrize("folder", sorted(CONFIGS.glob("claims/*")), ids=lambda folder: folder.name)
def test_what_a_claim_compares_is_searched_in_all_its_rows(folder: Path) -> None:
    claim, search = AblationFolder.load(folder).claim, Search.read(folder / "search.yaml")
    assert claim is not None
    assert claim.source
    for row in (*claim.rows, claim.against):
        assert len(search.space(row)[claim.ratio_of or LR]) >= 5


@pytest.mark.parametrize("folder", ["ch06", "smollm2"])
def test_published_figures_come_with_what_is_known_to_be_wrong_with_them(folder: str) -> None:
    published = AblationFolder.load(CONFIGS / folder).published
    assert "Train accuracies are counted over 1,040 of the 1,045 messages" in published.source
    assert "wrong windows until August 2024" in published.rows[15].note
    if folder == "ch06":
        assert "until August 2024 it was 99.33 (148/149)" in published.rows[8].note
