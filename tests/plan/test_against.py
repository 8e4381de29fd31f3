"""A plan beside what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.plan.against import Measured

ROW = {"row": "01_last", "minutes": 2.0, "training": 1.0, "peak_gb": 4.0}
PLANNED = {"row": "01_last", "minutes": 3.0, "measured_as_gb": 4.0, "positions": 6000, "at_peak_minutes": 0.5}


def written(path: Path, small: bool = False, **changes: Any) -> Path:
    figures = {"rows": [ROW], "setting": {"trainer.max_epochs": 1}, **changes}
    parts = {"prepare": {"figures": {"device": "NVIDIA T4"}}, "rows": {"status": "ok", "figures": figures}}
    path.write_text(json.dumps({"small": small, "parts": parts}))
    return path


def test_ratios_are_planned_over_measured(tmp_path: Path) -> None:
    measured = Measured.read(written(tmp_path / "gpu.json"))
    assert measured.setting == (("trainer.max_epochs", 1),)
    found = measured.beside(PLANNED)
    # 6000 positions in a minute of training
    assert {name: found[name] for name in ("minutes_ratio", "peak_ratio", "positions_per_second", "share_of_peak")} == {
        "minutes_ratio": 1.5, "peak_ratio": 1.0, "positions_per_second": 100.0, "share_of_peak": 0.25,
    }  # fmt: skip
    assert measured.beside({"row": "02_other", "minutes": 1.0}) == {"row": "02_other", "minutes": 1.0}


def test_a_file_without_measured_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cpu\.json: against: cannot be read: No such file"):
        Measured.read(tmp_path / "cpu.json")
    for text in ("[]", "{", '{"parts": {"rows": {"figures": {}}}}'):
        (tmp_path / "cpu.json").write_text(text)
        with pytest.raises(InputError, match=r"has no measured rows; fix: give what benchmarks/gpu_check\.sh wrote"):
            Measured.read(tmp_path / "cpu.json")
    with pytest.raises(InputError, match=r"cpu\.json: small: was measured with small shapes"):
        Measured.read(written(tmp_path / "cpu.json", small=True))


@pytest.mark.parametrize("other", [("--search", "search.yaml"), ("--procedure", "published")])
def test_what_was_measured_is_neither_a_search_nor_another_procedure(
    other: tuple[str, str], tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "gpu.json")
    assert main(["plan", str(tiny_config), "--device", "t4", "--against", str(file), *other]) == 2
    assert "against: what was measured is one run of ftkit's own procedure" in capsys.readouterr().err


def test_the_plan_is_of_the_setting_that_was_measured(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(*options: str) -> Any:
        assert main(["plan", str(tiny_config), "--device", "t4", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)["rows"][0]

    file = written(tmp_path / "gpu.json", rows=[{**ROW, "row": tiny_config.stem}], setting={"trainer.max_epochs": 6})
    usual, beside = planned(), planned("--against", str(file))
    assert beside["positions"] == 3 * usual["positions"]  # two epochs
    assert beside["minutes_ratio"] == beside["minutes"] / 2
    assert main(["plan", str(tiny_config), "--device", "t4", "--against", str(file)]) == 0
    head, line, _, device = capsys.readouterr().out.splitlines()
    assert device == "measured on NVIDIA T4"
    assert head.split()[:4] == ["row", "minutes", "measured", "ratio"]
    assert line.split()[2] == "2.00"
