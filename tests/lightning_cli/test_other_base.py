"""Another base model under the same name is noticed by every command that goes on from a run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_files import Ftkit, contents
from safetensors.torch import load_file, save_file

from ftkit.cli import main
from ftkit.commands.push import push
from ftkit.commands.runs import load_run
from ftkit.errors import ExitCode, InputError


@pytest.fixture
def link(gpt2_folder: Path, tmp_path: Path) -> Path:
    """A base model's name: a link, as the recipe for GGUF files makes one."""
    (link := tmp_path / "base").symlink_to(gpt2_folder)
    return link


def put_another(link: Path) -> None:
    """Let the link mean a model with one other tensor."""
    other = Path(shutil.copytree(link, link.with_name("other")))
    tensors = load_file(other / "model.safetensors")
    tensors["h.0.mlp.c_fc.weight"][0, 0] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    link.unlink()
    link.symlink_to(other)


def test_evaluating_resuming_serving_and_pushing_are_refused(ftkit: Ftkit, link: Path, tmp_path: Path) -> None:
    base = ("--model.base_model", str(link))
    for command in ("fit", "test"):
        assert ftkit(command, *base)[0] == 0
    run = tmp_path / "run"
    before, was = contents(run), json.loads((run / "result.json").read_text())["base"]["fingerprint"]
    put_another(link)
    attempts = [("test",), ("validate",), ("predict",), ("fit", "--resume", "true", "--trainer.max_epochs", "3")]
    for command, *options in attempts:
        code, said = ftkit(command, *base, *options)
        assert code == ExitCode.INPUT, said
        assert "base: the base model is not the one that the checkpoint was trained on: " in said
        assert f"model.safetensors was {was['model.safetensors'][:12]}, is " in said
        assert contents(run) == before
    for use in (lambda: load_run(run), lambda: push(run, "me/model", dry_run=tmp_path / "out")):
        with pytest.raises(InputError, match=r"last\.ckpt: base: the base model is not the one"):
            use()
    assert not (tmp_path / "out").exists()
    link.unlink()
    link.symlink_to(Path(shutil.copytree(tmp_path / "other", tmp_path / "restored")))
    assert ftkit("test", *base)[0] == ExitCode.INPUT


def test_a_sweep_runs_its_cells_again(
    tiny_config: Path, link: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "ablation", tmp_path / "out"
    (folder / "rows").mkdir(parents=True)
    shutil.copy(tiny_config, folder / "base.yaml")
    (folder / "rows" / "01_pretrained.yaml").write_text(f"# Mean?\nmodel:\n  init_args:\n    base_model: {link}\n")
    random = f"# Random?\nmodel:\n  init_args:\n    base_model: {link}\n    weights: random\n"
    (folder / "rows" / "02_random.yaml").write_text(random)
    sweep = ["ablation", "run", str(folder), "--out", str(out)]
    assert main(sweep) == 0
    before = contents(out)
    capfd.readouterr()
    assert main(sweep) == 0
    assert contents(out) == before
    put_another(link)
    capfd.readouterr()
    assert main(sweep) == 0
    said = "".join(capfd.readouterr())
    assert "01_pretrained (seed 123) is run again because it changed: base.fingerprint.model.safetensors: '" in said
    assert "02_random (seed 123) is run again" not in said  # its weights are drawn
    changed = {name for name, digest in contents(out).items() if before.get(name) != digest}
    assert "01_pretrained/seed-123/predictions-test.tsv" in changed
    assert not any(name.startswith("02_random") for name in changed)


HUB = """
import sys
from pathlib import Path
from ftkit import TextClassifier, cli
from ftkit.errors import InputError

main = Path(sys.argv[1])
first, second, messages, run = sys.argv[2:]

def ftkit(command, *more):
    code = cli.main([
        command, "--model", "TextClassifier", "--model.base_model", "org/tiny", "--data", "SpamDataModule",
        "--data.source", messages, "--trainer.default_root_dir", run, "--trainer.accelerator", "cpu",
        "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", *more,
    ])
    print(command, code, file=sys.stderr, flush=True)

def checkpoint(**options):
    module = TextClassifier("org/tiny", seed=1, **options)
    module.configure_model()
    saved = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "file": "last.ckpt"}
    module.on_save_checkpoint(saved)
    return module, saved

module, current = checkpoint()
_, branch = checkpoint(revision="main")
print(current["base"]["fingerprint"]["commit"], branch["base"]["fingerprint"]["commit"])
main.write_text(second)
same = lambda one, other: all((a == b).all() for a, b in zip(one.parameters(), other.parameters()))
print(same(TextClassifier.restored(current), module), same(checkpoint()[0], module))
try:
    TextClassifier.restored(branch)
except InputError as error:
    print(error)
print(same(TextClassifier.restored(branch, revision=first), module))

main.write_text(first)
ftkit("fit")
main.write_text(second)
ftkit("test")
ftkit("fit", "--resume", "true", "--trainer.max_epochs", "2")
main.write_text(first)
ftkit("fit", "--model.revision", "main")
main.write_text(second)
ftkit("test", "--model.revision", "main")
ftkit("test", "--model.revision", first)
ftkit("test", "--model.revision", second)
ftkit("test", "--ckpt_path", run, "--model.revision", first)
ftkit("test", "--ckpt_path", run, "--model.revision", second)
"""


def test_a_checkpoint_of_a_model_on_the_hub_pins_its_commit(
    llama_folder: Path, messages_file: Path, tmp_path: Path
) -> None:
    """In a process of its own, whose hub cache holds two commits; the branch moves from one to the other."""
    commits = ("0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef")
    repository = tmp_path / "hub" / "models--org--tiny"
    for commit in commits:
        snapshot = Path(shutil.copytree(llama_folder, repository / "snapshots" / commit))
    tensors = load_file(snapshot / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, snapshot / "model.safetensors", {"format": "pt"})
    (repository / "refs").mkdir()
    (main := repository / "refs" / "main").write_text(commits[0])
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HUB, str(main), *commits, str(messages_file), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    trained, loaded, refused, named = done.stdout.splitlines()[:4]
    assert trained == f"{commits[0]} {commits[0]}"
    assert loaded == "True False"
    assert refused == (
        "last.ckpt: base: the base model is not the one that the checkpoint was trained on: commit was 0123456789ab, is"
        f" 89abcdef0123; fix: load its revision {commits[0]}, or train again"
    )
    assert named == "True"
    codes = re.findall(r"^(?:fit|test) \d$", done.stderr, re.MULTILINE)
    not_given, main_branch = ["fit 0", "test 0", "fit 0"], ["fit 0", "test 2"]
    assert codes == [*not_given, *main_branch, "test 0", "test 2", "test 0", "test 2"], done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all(f"load its revision {commits[0]}, or train again" in line for line in said[:2])
    assert f"model.revision: the checkpoint {tmp_path / 'run'} was trained with 'main'" in said[2]
