"""One process runs the commands one after the other with secrets in its environment and no way to the network.

It is a process of its own, so that what is imported, and the processes that it starts, are watched too.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from PIL import Image

from ftkit.cli import COMMANDS, LIGHTNING_COMMANDS

SECRETS = {
    "HF_TOKEN": "hf_canaryCanaryCanaryCanaryCanaryCan", "WANDB_API_KEY": "0123canary" * 4, "FTKIT_API_KEY": "s3canary",
}  # fmt: skip
# Python imports it before anything else: nothing leaves this machine, and what wanted to is written down.
SITECUSTOMIZE = """
import os, socket

def refuse(name, address_of):
    real = getattr(socket, name) if address_of is None else getattr(socket.socket, name)

    def call(*args, **kwargs):
        address = args[0] if address_of is None else address_of(args)
        if address is not None and not str(address).startswith(("127.", "::1", "localhost")):
            with open(os.environ["WATCHED"], "a") as file:
                file.write(f"{name} {address}\\n")
            raise OSError(f"no way to {address}")
        return real(*args, **kwargs)

    setattr(socket if address_of is None else socket.socket, name, call)

of_socket = lambda args: args[1][0] if isinstance(args[1], tuple) else None  # a path is a local socket
for name in ("connect", "connect_ex"):
    refuse(name, of_socket)
refuse("getaddrinfo", None)
"""
RUNNER = """
import json, os, signal, sys, threading, time
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener
from ftkit.cli import main

def ask_and_end(port):  # the server, as soon as it listens
    headers = {"content-type": "application/json", "authorization": "Bearer " + os.environ["FTKIT_API_KEY"]}
    request = Request(f"http://127.0.0.1:{port}/v1/classify", b'{"input": "win cash"}', headers)
    said = ""
    while not said:
        try:
            said = build_opener(ProxyHandler({})).open(request).read().decode()
        except HTTPError as error:
            said = str(error)
        except OSError:
            time.sleep(0.05)
    print("said", said, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

for name, arguments in json.load(open(sys.argv[1])).items():
    with open(os.environ["WATCHED"], "a") as file:
        file.write(f"== {name}\\n")
    print("==", name, flush=True)
    print("==", name, file=sys.stderr, flush=True)
    if name == "serve":
        threading.Thread(target=ask_and_end, args=arguments[-1:], daemon=True).start()
    print("code", main(arguments), flush=True)
"""
CODES = {
    "init": 0, "completion": 0, "doctor": 0, "data audit": 0, "data show": 0,
    "images prepare": 0, "model show": 0, "fit": 0, "validate": 0, "test": 0, "predict": 0,
    "evaluate": 0, "verdict": 2, "plan": 0, "ablation run": 4, "ablation status": 0, "ablation table": 0,
    "ablation add": 0, "ablation import": 0,
    "ablation report": 0, "push": 0,
    "serve": 143, "error": 2, "error, debug": 2, "wandb fit": 0, "wandb test": 0,
    "push, no network": 3, "hub model": 3,
}  # fmt: skip
ONLINE = {"push, no network", "hub model"}  # they would use it


@dataclass
class Ran:
    """What became of the commands, by name: what they said, with their codes, and the addresses they asked for."""

    out: dict[str, str]
    err: dict[str, str]
    asked: dict[str, str]
    folder: Path


def commands(config: Path, weights: Path, out: Path) -> dict[str, list[str]]:
    """The command lines; all that they write is under ``out``."""
    broken, offline = out.with_name("broken.yaml"), out.with_name("offline.yaml")
    broken.write_text("model: {init_args: {pooling: nowhere}}\n")
    logged = [{"class_path": "ftkit.WandbRun", "init_args": {"offline": True}}]
    offline.write_text(yaml.safe_dump({"trainer": {"callbacks+": logged, "max_epochs": 1}}))
    sweep = out.with_name("sweep")
    (sweep / "rows").mkdir(parents=True)
    (sweep / "base.yaml").write_text(config.read_text())
    fast = {"model": {"init_args": {"optimizer": {"init_args": {"lr": 1e30}}}}}
    (sweep / "rows" / "01_last.yaml").write_text("# Last?\n{}\n")
    (sweep / "rows" / "02_fast.yaml").write_text(f"# Fast?\n{yaml.safe_dump(fast)}")
    answers, pictures = out.with_name("answers.yaml"), out.with_name("pictures")
    sums = {"class_path": "ftkit.ArithmeticDataModule", "init_args": {"train_size": 2, "val_size": 2, "test_size": 2}}
    tuned = {"class_path": "ftkit.CausalLMSFT", "init_args": {"base_model": "demo"}}
    answers.write_text(yaml.safe_dump({"model": tuned, "data": sums}))
    pictures.mkdir()
    comparison = out.with_name("comparison")
    (comparison / "experiments" / "ia3" / "default").mkdir(parents=True)
    (comparison / "experiments" / "ia3" / "default" / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    Image.new("RGB", (4, 3)).save(pictures / "black.png")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    run, logged_run, swept = str(out / "run"), str(out / "wandb-run"), str(out / "sweep")
    predictions = str(out / "run" / "predictions-test.tsv")

    def lightning(command: str, folder: str, *overlays: Path) -> list[str]:
        configs = [word for path in (config, *overlays) for word in ("--config", str(path))]
        return [command, *configs, "--trainer.default_root_dir", folder]

    return {
        "init": ["init", str(out / "begun")],
        "completion": ["completion", "bash"],
        "doctor": ["doctor", str(config)],
        "data audit": ["data", "audit", str(config)],
        "data show": ["data", "show", str(answers)],
        "images prepare": ["images", "prepare", str(pictures), str(out / "pictures")],
        "model show": ["model", "show", str(weights)],
        "fit": lightning("fit", run),
        "validate": lightning("validate", run),
        "test": lightning("test", run),
        "predict": lightning("predict", run),
        "plan": ["plan", str(config), "--device", "t4"],
        "evaluate": ["evaluate", predictions, "--html", str(out / "evaluation.html")],
        "verdict": ["verdict", predictions, predictions],
        "ablation run": ["ablation", "run", str(sweep), "--out", swept],
        "ablation status": ["ablation", "status", swept],
        "ablation table": ["ablation", "table", swept],
        "ablation add": ["ablation", "add", swept, "20_added", predictions],
        "ablation import": ["ablation", "import", str(comparison), str(out / "imported")],
        "ablation report": ["ablation", "report", swept],
        "push": ["push", run, "me/spam", "--dry_run", str(out / "repository")],
        "serve": ["serve", run, "--port", str(port)],
        "error": lightning("fit", run, broken),
        "error, debug": ["--debug", *lightning("fit", run, broken)],
        "wandb fit": lightning("fit", logged_run, offline),
        "wandb test": lightning("test", logged_run, offline),
        "push, no network": ["push", run, "me/spam"],
        "hub model": ["model", "show", "nobody/nothing"],
    }


def sections(text: str) -> dict[str, str]:
    parts = (part.partition("\n") for part in f"\n{text}".split("\n== ")[1:])
    return {name: rest for name, _, rest in parts}


@pytest.fixture(scope="module")
def ran(tiny_config: Path, gpt2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("watched")
    for name, text in {"sitecustomize.py": SITECUSTOMIZE, "runner.py": RUNNER}.items():
        (folder / name).write_text(text)
    (folder / "commands.json").write_text(json.dumps(commands(tiny_config, gpt2_folder, folder / "out")))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "WANDB_"))}
    places = {name: str(folder / "out" / name.lower()) for name in ("HOME", "HF_HOME", "FTKIT_CACHE", "TMPDIR")}
    for place in places.values():
        Path(place).mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(
        [sys.executable, "runner.py", "commands.json"],
        cwd=folder,
        env={**kept, **SECRETS, **places, "PYTHONPATH": str(folder), "WATCHED": str(folder / "asked")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    out, err, asked = (sections(text) for text in (ran.stdout, ran.stderr, (folder / "asked").read_text()))
    return Ran(out, err, asked, folder)


def names(commands: Mapping[str, Any]) -> Iterator[str]:
    """The commands of a table, such as ``images prepare``."""
    for name, command in commands.items():
        yield from (f"{name} {inner}" for inner in names(command)) if isinstance(command, Mapping) else [name]


def test_every_command_is_run() -> None:
    assert CODES.keys() >= {*LIGHTNING_COMMANDS, *names(COMMANDS)}


def leaks(folder: Path, said: str) -> list[str]:
    """Where a secret is found."""
    places = {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    places["stdout or stderr"] = said.encode()
    return [place for place, content in places.items() if any(s.encode() in content for s in SECRETS.values())]


@pytest.mark.parametrize("name", CODES)
def test_it_ends_as_it_should(name: str, ran: Ran) -> None:
    assert f"code {CODES[name]}" in ran.out[name].splitlines(), ran.out[name] + ran.err[name]
    assert ("Traceback" in ran.err[name]) == (name == "error, debug")


def test_the_server_answers_before_it_ends(ran: Ran) -> None:
    assert '"label":' in ran.out["serve"].partition("said ")[2]


def test_no_secret_is_left_anywhere(ran: Ran) -> None:
    assert leaks(ran.folder, "".join((*ran.out.values(), *ran.err.values()))) == []
    assert list(ran.folder.glob("out/wandb-run/wandb/offline-run-*/*.wandb"))
    assert {file.suffix for file in ran.folder.rglob("*")} >= {".ckpt", ".safetensors", ".yaml", ".json", ".tsv"}


def test_a_secret_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "checkpoint"
    file.parent.mkdir()
    file.write_bytes(b"\0" + SECRETS["WANDB_API_KEY"].encode() + b"\0")
    assert leaks(tmp_path, "") == [str(file)]
    assert leaks(tmp_path / "none", f"got {SECRETS['HF_TOKEN']}") == ["stdout or stderr"]


def test_only_commands_about_the_hub_reach_for_the_network(ran: Ran) -> None:
    assert {name for name, addresses in ran.asked.items() if addresses.strip()} == ONLINE, ran.asked
    assert ran.asked.keys() == CODES.keys()
