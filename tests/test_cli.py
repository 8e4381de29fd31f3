"""The command line: what it answers without the libraries, its exit codes, and how it ends."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ftkit import cli
from ftkit.errors import EnvironmentFault, ExitCode, InputError, TrainingFailed
from ftkit.storage import PARTIAL_SUFFIX, verify_checksum

MODELS = ("torch", "lightning", "transformers", "peft")
HEAVY = (*MODELS, "pandas", "scipy", "altair", "jinja2", "pyarrow")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["ablation", "--help"],
        ["fti"],
        ["ablation", "run", "--help"],
        ["doctor", "--help"],
        ["serve", "--help"],
        ["push", "--help"],
        ["model", "show", "--help"],
        ["data", "show", "--help"],
        ["init", "--help"],
        ["completion", "--help"],
        ["fit", "--help"],
        ["fit", "--config", "nowhere.yaml"],
        ["doctor", "nowhere.yaml"],
        ["data", "show", "nowhere.yaml"],
        ["ablation", "run", "configs/init/classifier", "--rows", "99"],
        ["ablation", "run", "configs/init/classifier", "--overlay", "nowhere.yaml"],
        ["plan", "configs/nowhere"],
        ["plan", "configs/ch06", "--rows", "99"],
        ["plan", "configs/ch06", "--device", "t5"],
        ["plan", "configs/ch06", "--overlay", "nowhere.yaml", "--rows", "1"],
    ],
)
def test_what_needs_no_library_imports_none(arguments: list[str]) -> None:
    """Not timed: that would measure the machine."""
    ended = ended_without(HEAVY, arguments)
    refused = not {"--help", "--version"} & {*arguments}
    assert ended.returncode == (12 if refused else 10), ended.stderr


@pytest.mark.parametrize("name", ["GPT2Clasifier", "ftkit.GPT2Clasifier"])
@pytest.mark.parametrize("command", [["fit", "--config"], ["doctor"], ["data", "show"], ["data", "audit"], ["plan"]])
def test_a_misspelt_class_is_refused_before_imports(command: list[str], name: str, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"model: {{class_path: {name}}}\ndata: ftkit.SpamDataModule\n")
    ended = ended_without(MODELS, [*command, str(config)])
    assert ended.returncode == 12
    error = f"error: {config}: model: no such class (got '{name}'); fix: did you mean ftkit.GPT2Classifier?\n"
    assert ended.stderr == error


def test_a_row_with_a_misspelt_class_is_refused_before_imports(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "base.yaml").write_text("model: {class_path: ftkit.GPT2Classifier}\ndata: my_module.SpamDataModul\n")
    (tmp_path / "rows/01_one.yaml").write_text("model: {class_path: ftkit.TextClasifier}\n")
    for command in (["ablation", "run"], ["plan"]):
        ended = ended_without(HEAVY, [*command, str(tmp_path)])
        assert ended.returncode == 12
        assert ended.stderr.endswith(
            "model: no such class (got 'ftkit.TextClasifier'); fix: did you mean ftkit.TextClassifier?\n"
        )


@pytest.mark.parametrize("arguments", [["nowhere.yaml"], ["--train", "nowhere.csv"]])
def test_an_audit_of_a_missing_file_imports_no_model_library(arguments: list[str]) -> None:
    ended = ended_without(MODELS, ["data", "audit", *arguments])
    assert ended.returncode == 12, ended.stderr


@pytest.mark.parametrize("words", [["--model", "GPT2Clasifier"], ["--seed_everything=1", "--data=SpamDataModul"]])
def test_a_misspelt_class_on_the_command_line_is_refused_before_pytorch_is_imported(words: list[str]) -> None:
    ended = ended_without(MODELS, ["fit", *words])
    assert ended.returncode == 12, ended.stderr
    name = "ftkit.GPT2Classifier" if words[0] == "--model" else "ftkit.SpamDataModule"
    assert f"no such class (got '{words[-1].rpartition('=')[2]}'); fix: did you mean {name}?" in ended.stderr


def ended_without(heavy: Sequence[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a new process, which ends with 10 and its exit code if it imported none of the libraries."""
    script = f"""
import sys, ftkit
from ftkit.cli import main
code = main({arguments!r})
heavy = [name for name in {heavy!r} if name in sys.modules]
sys.exit(f"imported {{heavy}}" if heavy else 10 + code)
"""
    return python("-c", script)


def test_python_m_ftkit_is_the_command_and_help_lists_every_command() -> None:
    ended = python("-m", "ftkit", "--help")
    assert ended.returncode == 0
    for name in ("fit", "validate", "test", "predict", "ablation"):
        assert f"\n    {name} " in ended.stdout
    shown = " ".join(ended.stdout.split())
    assert " data training data: audit | show " in shown
    assert python("-m", "ftkit", "fti").returncode == ExitCode.INPUT


def test_the_package_offers_its_names_and_no_others() -> None:
    import ftkit

    assert {name: getattr(ftkit, name).__name__ for name in dir(ftkit)} == {name: name for name in dir(ftkit)}
    with pytest.raises(AttributeError, match="No ftkit attribute Nothing"):
        _ = ftkit.Nothing


def raising(error: BaseException) -> cli.Commands:
    def command() -> None:
        """A command that fails."""
        raise error

    return {"ablation": {"run": cli.Command(command, "fails")}}


def test_a_path_is_shown_as_it_was_typed() -> None:
    assert str(InputError("not there", field="adapter", got=Path("a/b"))) == "adapter: not there (got 'a/b')"


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("no good", field="a"), 2), (EnvironmentFault("no good"), 3), (TrainingFailed("no good"), 4)],
)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_for_users_have_their_code_and_a_traceback_only_on_demand(
    error: Any, code: int, debug: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "COMMANDS", raising(error))
    assert cli.main(["ablation", "run", *(["--debug"] if debug else [])]) == code
    said = capsys.readouterr().err
    assert said.endswith(f"error: {error}\n")
    assert ("Traceback" in said) == debug


def test_windows_is_told_that_it_is_not_supported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert cli.main(["fit"]) == ExitCode.ENVIRONMENT
    assert capsys.readouterr().err.startswith("error: ftkit runs on Linux and macOS, not on Windows; fix: use the ")


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143), (SystemExit(), 0), (SystemExit("bad"), 1)]
)
def test_ends_that_are_no_errors_have_their_code(error: Any, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "COMMANDS", raising(error))
    assert cli.main(["ablation", "run"]) == code


def test_a_bug_shows_its_traceback_and_ends_with_1() -> None:
    script = """
import sys
from ftkit import cli
def broken():
    raise LookupError("a bug")
cli.COMMANDS = {"ablation": {"run": cli.Command(broken, "fails")}}
sys.exit(cli.main(["ablation", "run"]))
"""
    ended = python("-c", script)
    assert ended.returncode == ExitCode.BUG
    assert "Traceback" in ended.stderr
    assert "LookupError: a bug" in ended.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = """
import sys
from ftkit import cli
def talk():
    while True:
        print("line")
cli.COMMANDS = {"ablation": {"run": cli.Command(talk, "talks")}}
sys.exit(cli.main(["ablation", "run"]))
"""
    talking = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert talking.stdout is not None
    assert talking.stderr is not None
    talking.stdout.read(20)
    talking.stdout.close()
    assert talking.stderr.read() == b""
    assert talking.wait(60) == 0
    talking.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'error: expected "subcommand" to be one of {fit,'),
        (["fti"], "fti: no such command; fix: did you mean fit?"),
        (["ablation", "runn", "x"], "runn: no such command; fix: did you mean run?"),
        (["ablation", "run", "x", "--rowz", "1"], "rowz: no such option; fix: did you mean rows?"),
        (["ablation", "run", "x", "--row", "1"], "row: no such option; fix: did you mean rows?"),
        (["ablation", "table", "x", "--format", "html"], "'spreadsheet']. Got value: html; fix: see --help"),
        (["ablation", "run"], "error: the following arguments are required: ablation.run.folder"),
        (["ablation", "table", "/nowhere"], "/nowhere"),
    ],
)  # fmt: skip
def test_wrong_words_end_with_2_and_the_nearest_right_one(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == ExitCode.INPUT
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


def test_options_of_an_ablation_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, Any] = {}

    def run(
        folder: Path,
        overlay: list[Path] | None = None,
        rows: str | None = None,
        seeds: str = "123",
        force: bool = False,
    ) -> None:
        """Record."""
        got.update(folder=folder, overlay=overlay, rows=rows, seeds=seeds, force=force)

    monkeypatch.setattr(cli, "COMMANDS", {"ablation": {"run": cli.Command(run, "runs")}})
    arguments = ["ablation", "run", "x", "--overlay", "a.yaml", "--overlay=b.yaml", "--rows", "1-5,10", "--force"]
    assert cli.main(arguments) == 0
    assert got["overlay"] == [Path("a.yaml"), Path("b.yaml")]
    assert (got["folder"], got["rows"], got["seeds"], got["force"]) == (Path("x"), "1-5,10", "123", True)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["fit", "sweep"])
def test_a_stopped_training_says_so(
    command: str, sent: signal.Signals, code: int, tiny_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import ftkit.lightning_cli  # noqa: F401  so that the fork need not

    out, endless = tmp_path / "run", ["--trainer.max_epochs", "100000"]
    arguments = ["fit", "--config", str(tiny_config), "--trainer.default_root_dir", str(out), *endless]
    if command == "sweep":
        (tmp_path / "tiny" / "rows").mkdir(parents=True)
        (tmp_path / "tiny" / "base.yaml").write_text(tiny_config.read_text())
        (tmp_path / "tiny" / "rows" / "01_endless.yaml").write_text("# Ever?\ntrainer:\n  max_epochs: 100000\n")
        arguments = ["ablation", "run", str(tmp_path / "tiny"), "--out", str(out)]
    running = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(cli.main(arguments)))
    running.start()
    deadline = time.monotonic() + 120
    while not list(out.rglob("last.ckpt.sha256")):
        assert running.is_alive(), capfd.readouterr()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(running.pid or 0, sent)
    running.join(120)
    said = capfd.readouterr()
    assert running.exitcode == code, said
    assert "Traceback" not in said.err
    if command == "fit":
        verify_checksum(out / "checkpoints" / "last.ckpt")
    else:  # an unfinished run does not look like a finished one, and the next call goes on from it
        assert not (out / "01_endless" / "seed-123").exists()
        verify_checksum(out / "01_endless" / f".seed-123{PARTIAL_SUFFIX}" / "checkpoints" / "interrupted.ckpt")
    assert not [file for file in out.rglob(f"*{PARTIAL_SUFFIX}") if file.is_file()]
    assert not list(out.rglob("predictions-*"))


@pytest.mark.parametrize("said", ["CUDA out of memory. Tried to allocate\nmore", ""])
def test_gpu_memory_that_ran_out_is_the_environments_fault(
    said: str, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from ftkit import lightning_cli

    def exhausted(arguments: Any) -> None:
        raise torch.OutOfMemoryError(said)

    monkeypatch.setattr(lightning_cli, "FtkitCLI", exhausted)
    assert cli.main(["fit", "--config", str(tiny_config)]) == ExitCode.ENVIRONMENT
    assert "smaller --data.batch_size" in capsys.readouterr().err


def test_dashes_in_the_name_of_an_option_are_underscores(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[str] = []

    def run(threshold_from: str, save_to: str = "") -> None:
        got.extend([threshold_from, save_to])

    monkeypatch.setattr(cli, "COMMANDS", {"run": cli.Command(run, "runs")})
    assert cli.main(["run", "a-b", "--save-to=c-d"]) == 0
    assert cli.main(["run", "a-b", "--save-to", "--save-to=c-d"]) == ExitCode.INPUT
    assert got == ["a-b", "c-d"]


@pytest.mark.parametrize("command", list(cli.LIGHTNING_COMMANDS))
def test_the_short_help_fits_on_a_screen_and_names_options_that_there_are(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftkit.lightning_cli import FtkitCLI

    for option in ("--help", "-h"):
        assert cli.main([command, "--model", "TextClassifier", option]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: ftkit {command} [options]\n\n{cli.LIGHTNING_COMMANDS[command]}\n")
        assert len(shown.splitlines()) <= 60
        assert max(map(len, shown.splitlines())) <= 100
        assert "--model.help CLASS" in shown
    named = set(re.findall(r"--[a-z][\w.]+", shown)) - {"--model.help", "--data.help", "--help_all"}
    monkeypatch.setattr(cli, "_run_lightning", lambda arguments: FtkitCLI(arguments))
    assert cli.main([command, "--help_all"]) == 0
    everything = capsys.readouterr().out
    assert len(everything.splitlines()) > 200
    general = {option for option in named if not option.startswith(("--model.", "--data.", "--early_stopping."))}
    assert len(general) > 10
    assert [option for option in sorted(general) if f"{option} " not in f"{everything} "] == []


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    script = python("-m", "ftkit", "completion", "bash").stdout
    (tmp_path / "script").write_text(script)
    typed = {
        "in": "init",
        "ablation st": "status",
        "ablation run --ov": "--overlay",
        "fit --trainer.max": "--trainer.max_epochs",
    }
    for words, expected in typed.items():
        count = len(words.split())
        line = f"source ./script; COMP_WORDS=(ftkit {words}); COMP_CWORD={count}; _shtab_ftkit; echo ${{COMPREPLY[0]}}"
        ended = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
        assert ended.stdout.strip() == expected, ended.stderr
