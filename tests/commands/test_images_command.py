"""The command on folders of good, bad and foreign files; stopped, repeated, with one worker and with several."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ftkit.cli import main
from ftkit.commands.images import prepare
from ftkit.errors import ExitCode, InputError
from ftkit.storage import sha256_of
from ftkit.vlm.preparing import Prepared, Settings, prepare_one
from handmade_gif import Frame, gif
from opened_image import open_image

BLANK, BUSY = Frame("WWWW WWWW"), Frame("RGBY CKRG")


def save_noise(path: Path, seed: int = 0, size: tuple[int, int] = (48, 64), **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four good pictures in two folders, and a file that is no picture by its name."""
    folder = tmp_path / "raw"
    save_noise(folder / "a.jpg")
    save_noise(folder / "sub" / "b.png", seed=1)
    save_noise(folder / "sub" / "c d.bmp", seed=2, size=(10, 20))
    (folder / "ad.gif").write_bytes(gif((4, 2), BLANK, BUSY))
    (folder / "examples.tsv").write_text("a.jpg\tyes\n")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "ready"


def manifest(target: Path) -> dict[str, dict[str, Any]]:
    examples = map(json.loads, (target / "manifest.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    return {example["source"]: example for example in examples}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_picture_becomes_an_rgb_square(source: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["images", "prepare", str(source), str(target), "--size", "32"]) == ExitCode.DONE
    assert "4 of 4 images are ready" in capsys.readouterr().out
    names = ["a.jpg", "ad.gif", "sub/b.png", "sub/c d.bmp"]
    assert list(manifest(target)) == names
    assert sorted(tree(target)) == sorted([*(f"{name}.png" for name in names), "manifest.jsonl"])
    for name in names:
        with Image.open(target / f"{name}.png") as image:
            assert (image.mode, image.size) == ("RGB", (32, 32))
        expected = open_image(source / name).resize((32, 32), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(np.asarray(open_image(name, target)), np.asarray(expected))


def test_the_manifest_says_what_was_done(source: Path, target: Path) -> None:
    prepare(source, target)
    examples = manifest(target)
    assert examples["ad.gif"] == {
        "source": "ad.gif",
        "output": "ad.gif.png",
        "source_sha256": sha256_of(source / "ad.gif"),
        "sha256": sha256_of(target / "ad.gif.png"),
        "width": 4,
        "height": 2,
        "format": "GIF",
        "frame": 1,
        "frames": 2,
        "status": "done",
        "reason": "",
    }
    assert examples["sub/c d.bmp"]["output"] == "sub/c d.bmp.png"
    assert [examples["sub/c d.bmp"][key] for key in ("width", "height", "format", "frames")] == [20, 10, "BMP", 1]


def test_it_is_the_same_byte_for_byte_with_any_number_of_workers(source: Path, tmp_path: Path) -> None:
    for number in range(20):
        save_noise(source / "many" / f"{number}.jpg", seed=number)
    (source / "bad.gif").write_bytes(b"GIF89a")
    for workers in (1, 5):
        prepare(source, tmp_path / f"ready {workers}", workers=workers, skip_bad=True)
    assert tree(tmp_path / "ready 1") == tree(tmp_path / "ready 5")


def test_a_picture_with_the_name_of_anothers_result_is_refused(source: Path, target: Path) -> None:
    save_noise(source / "sub" / "c d.bmp.png", seed=3)
    with pytest.raises(InputError, match=r"names of other images' results \(got 'sub/c d.bmp.png'\)"):
        prepare(source, target)
    assert not target.exists()


FAULTS = {
    "bad empty.jpg": "the file is empty",
    "bad text.jpg": "",
    "bad cut.jpg": "JPEG: the picture is damaged or cut off: ",
    "bad form.png": "",
    "bad.noending": "",
    "bad link.jpg": "the image is outside the data folder",
    "bad folder": "the image is not a file",
    "bad pipe.jpg": "the image is not a file",
    f"bad {'x' * 230}.jpg": "the name is too long",
}


@pytest.fixture
def spoilt(source: Path) -> Path:
    """The folder with nine pictures that cannot be used, each for another reason."""
    good = (source / "a.jpg").read_bytes()
    (source / "bad empty.jpg").write_bytes(b"")
    (source / "bad text.jpg").write_text("not found")
    (source / "bad cut.jpg").write_bytes(good[: len(good) // 2])
    (source / "bad form.png").write_bytes(b"%PDF-1.7" + bytes(50))
    (source / "bad.noending").write_text("?")
    (source.parent / "secret.jpg").write_bytes(good)
    (source / "bad link.jpg").symlink_to("../secret.jpg")
    (source / "bad folder").symlink_to("sub")
    os.mkfifo(source / "bad pipe.jpg")
    (source / f"bad {'x' * 230}.jpg").write_bytes(good)
    return source


def test_bad_files_are_listed_and_the_command_fails(
    spoilt: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["images", "prepare", str(spoilt), str(target)]) == ExitCode.INPUT
    said = capsys.readouterr()
    reasons = {name: example["reason"] for name, example in manifest(target).items() if example["status"] == "bad"}
    no_format = "this is not a JPEG, PNG, GIF, WEBP, BMP, TIFF, AVIF file (got b'"
    assert reasons.keys() == {*FAULTS}
    for name, reason in reasons.items():
        assert reason.startswith(FAULTS[name] or no_format), name
        assert str(spoilt.parent) not in reason  # the same wherever the folder lies
    for name in reasons:
        assert f"bad: {spoilt / name}: " in said.err
    assert "9 of 13 images cannot be used" in said.err
    assert "fix: replace or remove them, or give --skip_bad" in said.err
    good = [name for name, example in manifest(target).items() if example["status"] == "done"]
    assert sorted(tree(target)) == sorted([*(f"{name}.png" for name in good), "manifest.jsonl"])
    assert len(good) == 4


def test_bad_files_can_be_skipped(spoilt: Path, target: Path) -> None:
    assert main(["images", "prepare", str(spoilt), str(target), "--skip_bad"]) == ExitCode.DONE
    assert sum(example["status"] == "bad" for example in manifest(target).values()) == 9


def test_what_is_up_to_date_is_kept_and_all_else_made_anew(
    source: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(source, target, size=32)
    first = tree(target)
    before = {name: (target / name).stat().st_mtime_ns for name in first}
    prepare(source, target, size=32)
    assert "(4 were already)" in capsys.readouterr().out
    assert tree(target) == first
    unchanged = [name for name in first if (target / name).stat().st_mtime_ns == before[name]]
    assert sorted(unchanged) == sorted(set(first) - {"manifest.jsonl"})

    save_noise(source / "a.jpg", seed=9)  # a new source
    damaged = bytearray(first["sub/b.png.png"])
    damaged[len(damaged) // 2] ^= 1
    (target / "sub/b.png.png").write_bytes(damaged)
    (target / "sub/c d.bmp.png").write_bytes(b"")
    prepare(source, target, size=32)
    assert "(1 were already)" in capsys.readouterr().out
    assert {name for name, data in tree(target).items() if data != first[name]} == {"a.jpg.png", "manifest.jsonl"}

    for change in ({"size": 16}, {"size": 16, "background": "black"}):
        prepare(source, target, **change)
        assert "(0 were already)" in capsys.readouterr().out


def test_a_foreign_file_in_the_place_of_a_result_is_not_believed(source: Path, target: Path) -> None:
    prepare(source, target)
    expected = tree(target)
    for text in ("[]", "no json", '{"made_of": {}, "facts": {}}'):
        foreign = PngInfo()
        foreign.add_text("ftkit", text)
        save_noise(target / "a.jpg.png", pnginfo=foreign)
        prepare(source, target)
        assert tree(target) == expected


def test_a_source_that_went_bad_leaves_no_old_result(source: Path, target: Path) -> None:
    prepare(source, target)
    (source / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError):
        prepare(source, target)
    assert not (target / "a.jpg.png").exists()
    with pytest.raises(InputError, match="does not exist"):
        open_image("a.jpg", target)


SLOWLY = """
import itertools, sys, time
from pathlib import Path
import ftkit.commands.images as command
original, pictures = command.prepare_one, itertools.count()
def slowly(name, settings):
    time.sleep(0.02 if next(pictures) < 10 else 0.5)  # the signal comes long before the last one
    return original(name, settings)
command.prepare_one = slowly
command.prepare(Path(sys.argv[1]), Path(sys.argv[2]), workers=2)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_in_the_middle_a_rerun_completes(
    source: Path, target: Path, tmp_path: Path, how: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(60):
        save_noise(source / "many" / f"{number}.jpg", seed=number)
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(source), str(target)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(target.rglob("*.png"))) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    assert process.wait(30) != 0
    half = len(list(target.rglob("*.png")))
    assert 8 <= half < 64
    assert not (target / "manifest.jsonl").exists()
    for path in target.rglob("*.png"):
        if not path.name.startswith("."):
            open_image(path)  # whole, all of them
    prepare(source, target)
    assert "(0 were already)" not in capsys.readouterr().out
    prepare(source, tmp_path / "clean")
    assert tree(target) == tree(tmp_path / "clean")


def test_stopped_between_two_results_the_pictures_in_the_queue_are_left(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        save_noise(source / "many" / f"{number}.jpg", seed=number)
    begun: list[str] = []

    class Interrupted(int):
        def __radd__(self, other: object) -> int:
            raise KeyboardInterrupt

    def prepare_slowly(name: str, settings: Settings) -> tuple[Prepared, bool]:
        begun.append(name)
        time.sleep(0.02)
        return prepare_one(name, settings)[0], Interrupted()

    monkeypatch.setattr("ftkit.commands.images.prepare_one", prepare_slowly)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt) as stopped:  # what is raised keeps its frames, and a generator in them
        prepare(source, target, workers=2)
    assert threading.active_count() == before
    assert len(begun) < 64, stopped
    assert not (target / "manifest.jsonl").exists()


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_is_not(source: Path, target: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (target / "sub").mkdir(parents=True)
    left = target / "sub" / f".b.png.png.{dead.pid}.0a1b2c3d.partial"
    living = target / f".a.jpg.png.{os.getppid()}.0a1b2c3d.partial"
    somebodys = target / ".notes.partial"
    for path in (left, living, somebodys):
        path.write_bytes(b"half")
    prepare(source, target)
    assert not left.exists()
    assert living.exists()
    assert somebodys.exists()


def test_strange_names_come_through(source: Path, target: Path) -> None:
    names = ["tab\there.jpg", "line\nend.jpg", "広告 1.jpg", "e.jpg.png", "noending"]
    names += [os.fsdecode(b"latin-\xe9.jpg"), f"{'x' * 212}.jpg"]
    for name in names:
        (source / name).write_bytes((source / "a.jpg").read_bytes())
    prepare(source, target)
    examples = manifest(target)
    for name in names:
        assert examples[name]["status"] == "done"
        assert (target / f"{name}.png").exists()
    assert len(examples) == 4 + len(names)
    assert "広告 1.jpg" in (target / "manifest.jsonl").read_text(encoding="utf-8")


def test_transparency_is_laid_on_the_background_that_is_asked_for(tmp_path: Path, target: Path) -> None:
    (tmp_path / "raw").mkdir()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "raw" / "clear.png")
    for colour, expected in (("white", (255, 255, 255)), ("#102030", (16, 32, 48))):
        prepare(tmp_path / "raw", target, background=colour)
        assert open_image("clear.png", target).getpixel((100, 100)) == expected


def test_hidden_files_and_data_files_are_left_alone(
    source: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / ".DS_Store").write_bytes(b"x")
    (source / ".git").mkdir()
    (source / ".git" / "x.png").write_bytes(b"x")
    prepare(source, target)
    assert "2 other files left alone" in capsys.readouterr().out
    assert len(manifest(target)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size: not between 1 and 4096"),
        ({"size": 5_000}, "size: not between 1 and 4096"),
        ({"background": "blak"}, "background: not a color"),
        ({"workers": 0}, "workers: at least one"),
    ],
)
def test_options_that_cannot_be_used(source: Path, target: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(source, target, **options)
    assert not target.exists()


def test_folders_that_cannot_be_used(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "alias").symlink_to(source)
    for one, other, message in (
        (tmp_path / "gone", tmp_path / "ready", "does not exist"),
        (source / "a.jpg", tmp_path / "ready", "does not exist"),
        (tmp_path / "empty", tmp_path / "ready", "no images"),
        (source, source, "one folder lies in the other"),
        (source, source / "ready", "one folder lies in the other"),
        (source / "sub", source, "one folder lies in the other"),
        (source, tmp_path / "alias" / "ready", "one folder lies in the other"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(one, other)


def test_a_target_that_cannot_be_written_is_the_machines_fault(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["images", "prepare", str(source), str(tmp_path / "file" / "ready")]) == ExitCode.ENVIRONMENT
    assert "cannot be written" in capsys.readouterr().err
