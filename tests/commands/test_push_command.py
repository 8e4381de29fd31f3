"""Pushing a run: the folder that a dry run writes, and the upload, spoken with a small hub of our own."""

import base64
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ftkit.commands.push import push, upload, without_local_paths
from ftkit.errors import EnvironmentFault, InputError
from ftkit.lightning_cli import FtkitCLI

TOKEN = "hf_canaryCanaryCanary"


@pytest.fixture(scope="module")
def run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "spam"
    for command in ("fit", "test"):
        FtkitCLI([command, "--config", str(tiny_config), "--trainer.default_root_dir", str(folder)])
    return folder


def test_a_dry_run_writes_the_repository_and_uploads_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    out = tmp_path / "out"
    said = push(run, "me/spam", dry_run=out)
    expected = [
        "README.md",
        "config.yaml",
        "ftkit.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "trained.safetensors",
    ]
    assert sorted(path.name for path in out.iterdir()) == expected
    assert said == f"wrote {out}: {', '.join(expected)}; nothing was uploaded\n"
    result = json.loads((run / "result.json").read_text())
    card = (out / "README.md").read_text()
    assert result["data"]["sha256"] in card
    assert f"| test | {result['splits']['test']['n']} |" in card
    everything = b"".join(path.read_bytes() for path in out.iterdir())
    assert TOKEN.encode() not in everything
    for local in (run, *run.parents[:-1]):
        assert f"{local}/".encode() not in everything
    for taken in (out, out / "README.md"):
        with pytest.raises(InputError, match="dry_run: is not an empty folder"):
            push(run, "me/spam", dry_run=taken)


def test_a_classifier_of_any_family_names_its_base(tmp_path: Path) -> None:
    arguments = ["--model", "TextClassifier", "--model.base_model", "demo", "--model.trainable", "last_layer"]
    arguments += ["--data", "SpamDataModule", "--data.source", "demo", "--trainer.max_steps", "1"]
    arguments += ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path / "run")]
    FtkitCLI(["fit", *arguments, "--trainer.enable_progress_bar", "false", "--trainer.limit_val_batches", "0"])
    push(tmp_path / "run", "me/spam", dry_run=tmp_path / "out")
    assert "Base model: `demo`." in (tmp_path / "out" / "README.md").read_text()


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (file := tmp_path / "a.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match=r"a.yaml/result.json: cannot be read: Not a directory; fix: name a run's"):
        push(file, "me/spam", dry_run=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mistakes_are_told_before_anything_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="repo: is not a repository name"):
        push(run, "not a name/x/y", dry_run=tmp_path / "out")
    with pytest.raises(InputError, match=r"result\.json: the run has no result"):
        push(tmp_path, "me/spam", dry_run=tmp_path / "out")
    with pytest.raises(InputError, match="format: the run has no adapter of peft"):
        push(run, "me/spam", dry_run=tmp_path / "out", format="peft")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(EnvironmentFault, match=r"there is no access token .*HF_TOKEN"):
        push(run, "me/spam")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"status": "interrupted", "reason": "SIGTERM", "epoch": 0, "step": 3}, "status: the training did not end .*"),
        ({"status": "failed", "reason": "nan", "epoch": 0, "step": 3}, r".* itself \(got 'failed'\); fix: "),
        ({"splits": {"test": {"n": 1, "correct": 1, "accuracy": 1.0}}}, "versions: says nothing of a training"),
        ({"versions": "0.1"}, "versions: says nothing of a training"),
        (["a", "list"], "is damaged: it is no object"),
    ],
)
def test_a_run_without_a_whole_result_leaves_no_repository(
    result: Any, message: str, run: Path, tmp_path: Path
) -> None:
    unfinished = Path(shutil.copytree(run, tmp_path / "run"))
    result = {"format": 2, **result} if isinstance(result, dict) else result
    (unfinished / "result.json").write_text(json.dumps(result))
    for _ in range(2):  # a second try is told the same
        with pytest.raises(InputError, match=rf"result\.json: {message}"):
            push(unfinished, "me/spam", dry_run=tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_damaged_config_leaves_no_repository(run: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    (damaged / "config.yaml").write_bytes(b"model: \xff")
    with pytest.raises(InputError, match=r"config\.yaml: not UTF-8 at byte 7"):
        push(damaged, "me/spam", dry_run=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ('"/home/me/x.tsv"', '"x.tsv"'),
        ("source: ~/data/x.tsv", "source: x.tsv"),
        ("https://hub.example/a/b and org/name", "https://hub.example/a/b and org/name"),
        ("a/b/c 1/2 /", "a/b/c 1/2 /"),
        ("C.D: /a-b/c_d/e@f", "C.D: e@f"),
    ],
)
def test_paths_of_this_machine_are_cut(text: str, cut: str) -> None:
    assert without_local_paths(text) == cut


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload of small files needs."""

    status = 200

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        seen = self.server.seen  # type: ignore[attr-defined]
        seen.append((self.path, self.headers.get("authorization")))
        address = f"http://127.0.0.1:{self.server.server_address[1]}/me/spam"
        if self.path.endswith("/repos/create"):
            answer: dict[str, Any] = {"url": address, "name": "me/spam"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {
                "files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            }
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content  # type: ignore[attr-defined]
            answer = {"commitUrl": address, "commitOid": "0" * 40, "success": True}
        else:  # the card's header is looked over
            answer = {"errors": [], "warnings": []}
        self._reply(answer)

    def do_GET(self) -> None:
        self._reply({"_id": "1", "id": "me/spam", "sha": "0" * 40, "siblings": []})

    def _reply(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)  # it asks the real hub
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen, server.files = [], {}  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_folder_arrives_whole_with_the_token_of_the_environment(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\ntags: [ftkit]\n---\n# x\n")
    (tmp_path / "trained.safetensors").write_bytes(bytes(range(256)))
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    assert upload(tmp_path, "me/spam", private=True, endpoint=endpoint) == f"{endpoint}/me/spam"
    assert hub.files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {key for path, key in hub.seen if "/commit/" in path} == {f"Bearer {TOKEN}"}


def test_a_refusal_is_told_without_the_token(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "status", 403)
    with pytest.raises(EnvironmentFault, match="the hub refuses me/spam with status 403; fix: use a token") as caught:
        upload(tmp_path, "me/spam", private=False, endpoint=f"http://127.0.0.1:{hub.server_address[1]}")
    assert TOKEN not in str(caught.value)


def test_no_hub_is_told(tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        endpoint = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(EnvironmentFault, match="the hub cannot be reached: ConnectError"):
        upload(tmp_path, "me/spam", private=False, endpoint=endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentFault, match="HF_HUB_OFFLINE is set"):
        upload(tmp_path, "me/spam", private=False)
