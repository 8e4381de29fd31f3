"""Every command that docs/benchmarks.md names runs when made short; a comparison stops where its sides differ."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from animal_wheel import animal_wheel

from demo_corpus import as_tsv, demo_messages

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DEMO_MODELS = BENCHMARKS.parent / "src/ftkit/assets/gpt2-demo"
PAGE = " ".join((BENCHMARKS.parent / "docs/benchmarks.md").read_text(encoding="utf-8").split())
COMMANDS = re.findall(r"`(\w+\.py(?: [^`]+)?)`", PAGE)
# Of what is committed, which measure nothing, and one that has a test of its own.
WRITERS = {"demo_corpus.py", "make_init_folders.py", "plan_published.py", "gpu_check.py"}
# What makes the commands of a script short; the last value of an option is the one that counts.
SHORT = {
    "animal_questions.py": "--train 9 --test 9 --epochs 1 --results {out}",
    "bench_ablation.py": "--size tiny --epochs 1 --out {out}/record.json",
    "bench_audit.py": "--texts 2000 --results {out}",
    "bench_duplicates.py": "--results {out}",
    "bench_evaluate.py": "--rows 20000 --repeats 1 --results {out}",
    "bench_growth.py": "--messages 200,400 --epochs 1,2 --epochs-at 200 --repeats 1 --results {out}",
    "bench_labels.py": "--results {out}",
    "bench_search.py": "--size tiny --epochs 1 --rows 1,3 --out {out}/record.json",
    "bench_serve.py": "--requests 8 --tokens 4 --repeats 1 --results {out}",
    "bench_serve_limits.py": "--clients 4 --seconds 2 --results {out}",
    "bench_sft.py": "--layers 1 --width 64 --vocabulary 99 --steps 4 --repeats 1 --prompt 9 --answer 6 --results {out}",
    "bench_verdict.py": "--histories 5 --results {out}",
    "bench_vlm.py": "--batch 1 --steps 1 --epochs 2 --repeats 1 --results {out}",
    "plain_loop.py": "--epochs 1",
    "plan_here.py": "--size tiny --rows 3 --results {out}",
    "pretrain_demo.py": "--tokens 2048 --sizes small",
    "vlm_memory.py": "",
}


def messages(folder: Path) -> Path:
    path = folder / "messages.tsv"
    path.write_text(as_tsv(demo_messages(160)), encoding="utf-8")
    return path


def gpt2(folder: Path) -> Path:
    for part in ("small", "tokenizer"):
        shutil.copytree(DEMO_MODELS / part, folder / "gpt2", dirs_exist_ok=True)
    return folder / "gpt2"


def debian(folder: Path) -> Path:
    words, jargon = folder / "usr/share/wordnet", folder / "usr/share/doc/jargon-text"
    words.mkdir(parents=True)
    jargon.mkdir(parents=True)
    quotes = "\n".join(f'0001 n word | a word; "{text} he said"' for _, text in demo_messages(2000))
    for part in ("noun", "verb", "adj", "adv"):
        (words / f"data.{part}").write_text(quotes.replace("he", part), encoding="utf-8")
    paragraphs = "\n\n".join(f"{text}, as hackers have been known to say of it" for _, text in demo_messages(2000))
    (jargon / "jargon.txt.gz").write_bytes(gzip.compress(paragraphs.encode()))
    return folder


def chatterbot(folder: Path) -> Path:
    english = folder / "chatterbot_corpus/data/english"
    english.mkdir(parents=True)
    turns = [["How are you today?", text] for _, text in demo_messages(2000)]
    (english / "talk.yml").write_text(json.dumps({"conversations": turns}), encoding="utf-8")
    return folder


def made_short(command: str, folder: Path) -> list[str]:
    """The arguments of a command with small files for those that it names, and the options that make it short."""
    script, *arguments = command.split()
    files = {
        "ANIMALS": animal_wheel,
        "SMSSpamCollection": messages,
        "EIGHTH": messages,
        "GPT2": gpt2,
        "DEBIAN": lambda folder: debian(folder / "debian"),
        "CHATTERBOT": lambda folder: chatterbot(folder / "chatterbot"),
        "OUT": lambda folder: folder / "out",
    }
    given = [str(files[word](folder)) if word in files else word for word in arguments]
    return [script, *given, *SHORT[script].format(out=folder / "out").split()]


def test_every_script_is_named_by_a_command() -> None:
    assert len(COMMANDS) == len(set(COMMANDS))
    assert {command.split()[0] for command in COMMANDS} == SHORT.keys()
    scripts = {path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")}
    assert scripts == SHORT.keys() | WRITERS


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_ends_with_what_it_measured(command: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    script, *arguments = made_short(command, tmp_path)
    ended = subprocess.run(
        [sys.executable, BENCHMARKS / script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "FTKIT_CACHE": str(tmp_path / "cache")},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout
    if script.startswith("bench_"):
        (record,) = (json.loads(file.read_text(encoding="utf-8")) for file in (tmp_path / "out").glob("*.json"))
        assert f"written: {tmp_path}" in ended.stdout
        assert {"versions", "hardware"} <= record.keys()
