"""Image controls: other images for the same questions, and what the answers to them show."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from ftkit import VLMDPO, VLMSFT, VLMDataModule, VLMYesNo, image_controls
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.examples.length import LengthRule
from ftkit.examples.reader import Example, image_bytes, read_examples
from ftkit.report.image_controls import control_lines
from ftkit.results.image_controls import read_image_controls
from ftkit.results.predictions import read_predictions, write_predictions
from ftkit.run_folder import predictions_file
from ftkit.training.recorder import RunRecorder
from ftkit.vlm.controls import with_other_images
from ftkit.vlm.dataset import ExampleDataset
from ftkit.vlm.encoder import ChatEncoder
from ftkit.vlm.images import decode_image, upright_size


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))


def by_bytes(image: Any, example: Example) -> bytes:
    return image_bytes(image)


def test_blank_images_are_gray_and_of_the_same_sizes(vlm_examples: Callable[[str], Path]) -> None:
    examples = read_examples(vlm_examples("messages"))
    for old, new in zip(examples, with_other_images(examples, "blank", by_bytes), strict=True):
        assert (new.id, new.prompt, new.completion) == (old.id, old.prompt, old.completion)
        for was, is_now in zip(old.images, new.images, strict=True):
            picture = decode_image(image_bytes(is_now), (0, 0, 0), "gray").image
            assert picture.size == decode_image(image_bytes(was), (0, 0, 0), "own").image.size
            assert np.unique(np.asarray(picture)).tolist() == [128]


def test_swapped_images_are_those_of_others_and_each_is_used_as_often(vlm_examples: Callable[[str], Path]) -> None:
    examples = read_examples(vlm_examples("messages"))
    swapped = with_other_images(examples, "swapped", by_bytes)
    before, after = ([tuple(map(image_bytes, one.images)) for one in many] for many in (examples, swapped))
    assert sorted(before) == sorted(after)
    assert all(sorted(was) != sorted(is_now) for was, is_now in zip(before, after, strict=True))
    assert [len(one.images) for one in swapped] == [len(one.images) for one in examples]
    with pytest.raises(InputError, match=r"controls: 3 of 4 test examples with 1 image have the same"):
        with_other_images(shown(b"1", b"1", b"1", b"2"), "swapped", by_bytes)
    with pytest.raises(InputError, match=r"controls: no test example has an image"):
        with_other_images([Example("a", "?", "x")], "blank", by_bytes)


def shown(*images: bytes) -> list[Example]:
    """Examples of images of one letter each, and some without."""
    return [Example(str(n), "?", "x", images=tuple(bytes([one]) for one in many)) for n, many in enumerate(images)]


def test_no_example_gets_its_own_images_in_another_order() -> None:
    swapped = with_other_images(shown(b"ab", b"", b"ba", b"c", b"bc", b"d", b"ca"), "swapped", by_bytes)
    found = {one.id: b"".join(one.images) for one in swapped}  # type: ignore[arg-type]
    assert found.keys() == {"0", "2", "3", "4", "5", "6"}  # 1 has no image
    assert {found["0"], found["2"]} == {b"bc", b"ca"}
    assert {found["4"], found["6"]} == {b"ab", b"ba"}
    assert (found["3"], found["5"]) == (b"d", b"c")
    with pytest.raises(InputError, match=r"controls: 2 of 3 test examples with 2 images have the same"):
        with_other_images(shown(b"ab", b"ba", b"cd", b"e", b"f"), "swapped", by_bytes)


def test_sizes_of_blank_images_are_read_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned by EXIF too; a frame of an animation may be larger than its canvas, so animations are decoded."""
    stored, exif = {}, Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for form, options in {
        "PNG": {}, "JPEG": {"exif": exif}, "GIF": {"save_all": True, "append_images": [Image.new("RGB", (5, 3), "red")]}
    }.items():  # fmt: skip
        Image.new("RGB", (5, 3)).save(buffer := io.BytesIO(), form, **options)
        stored[form] = buffer.getvalue()
    sizes = {form: decode_image(data, (0, 0, 0), form).image.size for form, data in stored.items()}
    assert sizes == {"PNG": (5, 3), "JPEG": (3, 5), "GIF": (5, 3)}
    assert {form: upright_size(data, form) for form, data in stored.items()} == sizes
    with pytest.raises(InputError, match=r"damaged.png: the picture is damaged"):
        upright_size(stored["PNG"][:20], "damaged.png")
    monkeypatch.delattr("ftkit.vlm.images._decode")
    assert upright_size(stored["JPEG"], "x") == (3, 5)


def found_of(folder: Path, own: str, blank: str, swapped: str) -> Any:
    """What is read of answers of one letter each; half of the labels are y, half n."""
    ids, labels = [str(number) for number in range(len(own))], ["y", "n"] * (len(own) // 2)
    for name, said in (("test", own), ("test-blank", blank), ("test-swapped", swapped)):
        write_predictions(folder / predictions_file(name), ids, labels, list(said))
    return read_image_controls(folder)


@pytest.mark.parametrize(
    ("own", "swapped", "conclusion"),
    [
        ("yn" * 10, "ynny" * 5, "looks at the image"),  # 10 of 20 are lost, p = 0.002
        ("yy" * 36, "yy" * 36, "does not look at the image"),  # none of 72 changes: at most 4.99%
        ("yy" * 35, "yy" * 35, "is not shown to look at the image"),  # none of 70: up to 5.1%
        ("yy", "yy", "is not shown to look at the image"),
        ("yy" * 100, "yy" * 99 + "yn", "does not look at the image"),  # 1 of 200 changes: at most 2.8%
        ("yy" * 10, "yy" * 9 + "yn", "is not shown to look at the image"),  # 1 of 20 changes: up to 24.9%
        ("yn" * 2, "yyyy", "is not shown to look at the image"),  # 4 examples cannot show anything
        ("yynn" * 25, "nnyy" * 25, "is not shown to look at the image"),  # all change, and none for the better
    ],
)
def test_swapped_images_decide(own: str, swapped: str, conclusion: str, tmp_path: Path) -> None:
    found = found_of(tmp_path, own, "n" * len(own), swapped)
    assert found.conclusion == conclusion
    assert control_lines(found)[-1].startswith(f"the model {conclusion}: ")


def test_examples_without_images_do_not_count(tmp_path: Path) -> None:
    """80 questions that need no image, answered alike whatever is shown, beside 8 with images."""
    ids, labels = [str(number) for number in range(88)], ["y", "n"] * 44
    write_predictions(tmp_path / predictions_file("test"), ids, labels, labels)
    for name in ("test-blank", "test-swapped"):
        write_predictions(tmp_path / predictions_file(name), ids[80:], labels[80:], ["y"] * 8)
    found = read_image_controls(tmp_path)
    assert (found.n, found.accuracy, found.controls["swapped"].changed) == (8, 1.0, 4)
    assert found.conclusion == "is not shown to look at the image"
    write_predictions(tmp_path / predictions_file("test-swapped"), ids[79:], labels[79:], ["y"] * 9)
    with pytest.raises(InputError, match=r"predictions-test-swapped.tsv: id: holds other examples"):
        read_image_controls(tmp_path)


def test_the_figures_are_those_of_the_files(tmp_path: Path) -> None:
    found = found_of(tmp_path, "yn" * 10, "y" * 20, "ynny" * 5)
    assert (found.n, found.accuracy) == (20, 1.0)
    blank, swapped = found.controls["blank"], found.controls["swapped"]
    assert (blank.accuracy, blank.changed, blank.judgement.p) == (0.5, 10, pytest.approx(2 / 2**10))
    assert (swapped.accuracy, swapped.changed, swapped.judgement.effect) == (0.5, 10, 0.5)
    write_predictions(tmp_path / predictions_file("test-blank"), ["other"], ["y"], ["y"])
    with pytest.raises(InputError, match=r"predictions-test-blank.tsv: id: holds other examples"):
        read_image_controls(tmp_path)


@pytest.fixture(scope="module")
def blind(idefics3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gets the same vectors of every image of a size."""
    folder = tmp_path_factory.mktemp("blind")
    net = AutoModelForImageTextToText.from_pretrained(idefics3_folder)
    for parameter in net.model.connector.parameters():
        torch.nn.init.zeros_(parameter)
    net.save_pretrained(folder)
    AutoProcessor.from_pretrained(idefics3_folder).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "shape"), [(VLMSFT, "messages"), (VLMDPO, "preference"), (VLMYesNo, "messages")])
def test_a_model_that_sees_nothing_is_named(
    kind: Any, shape: str, blind: Path, vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    path = str(vlm_examples(shape))
    if shape == "messages":  # of one size, so that swapping changes no token
        rows = [{"question": "?", "answer": "no" if n % 2 else "yes", "image": f"{n}.png"} for n in (0, 3)]
        rows = [row | {"id": f"{n}", "image": f"{n % 2}.png"} for n, row in enumerate(rows * 4)]
        path = str(vlm_examples("messages").with_name("small.jsonl"))
        Path(path).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    data = VLMDataModule(path, path, path, batch_size=4, image_options={"size": {"longest_edge": 32}})
    module = kind(base_model=str(blind), max_new_tokens=3, optimizer=lambda p: torch.optim.SGD(p, lr=0.5), seed=1)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, limit_val_batches=0, callbacks=[RunRecorder()],
        enable_checkpointing=False, **quiet,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    before = (tmp_path / predictions_file("test")).read_bytes()
    found = image_controls(trainer, module, data)
    assert found.n == len(read_examples(path))
    assert found.controls["swapped"].changed == 0
    assert found.conclusion == "is not shown to look at the image"  # so few examples cannot show that it does not
    assert (tmp_path / predictions_file("test")).read_bytes() == before
    assert json.loads((tmp_path / "result.json").read_text())["image_controls"]["conclusion"] == found.conclusion
    assert data.predicted_split == "test"
    assert [len(one.images) for one in data.datasets["test"].examples] == [len(e.images) for e in read_examples(path)]


def test_the_command_adds_the_controls_and_leaves_the_predictions(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = vlm_examples("messages")
    command = (
        f"test --untrained --controls --model VLMSFT --model.base_model {idefics3_folder} --model.max_new_tokens 2"
    )
    command += f" --data VLMDataModule --data.train {path} --data.val {path} --data.test {path} --trainer.logger false"
    command += f" --trainer.accelerator cpu --trainer.default_root_dir {tmp_path}"
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert "image controls, 12 test examples with images: own images 0.00%" in said
    assert "  swapped images 0.00%" in said
    assert "; own images +0.00 points, " in said
    files = [predictions_file(name) for name in ("test", "test-blank", "test-swapped")]
    own, *others = (read_predictions(tmp_path / name) for name in files)
    assert all(other.ids == own.ids and other.predictions != own.predictions for other in others)
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["splits"].keys() == {"test", "test-blank", "test-swapped"}
    before = (tmp_path / predictions_file("test")).read_bytes()
    assert main([*command.split(), "--trainer.limit_test_batches", "0.5"]) == 2
    said = capsys.readouterr().err
    assert (
        "controls: image controls need all test examples, but trainer.limit_test_batches leaves some out (got 0.5)"
        in said
    )
    assert (tmp_path / predictions_file("test")).read_bytes() == before  # nothing was tested
    assert main(["test", "--untrained", "--controls", "--model", "GPT2Classifier", "--data", "SpamDataModule"]) == 2
    assert "controls: these data have no images (got 'SpamDataModule')" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("room", "problem"), [(0, "too long with another's images: .* only"), (1, "its answers are cut")]
)
def test_too_long_with_other_images_is_refused_before_a_model_is_asked(
    room: int, problem: str, idefics3_folder: Path, vlm_examples: Callable[[str], Path]
) -> None:
    path, processor = str(vlm_examples("preference")), AutoProcessor.from_pretrained(idefics3_folder)
    square, wide = read_examples(path)[:2]  # a square is cut into more tiles
    large = replace(wide, id="large", images=square.images)
    alone = ChatEncoder(processor, preference=True)
    longest = len(alone.encode(large).prompt)
    assert longest > len(alone.encode(wide).prompt) + 10
    encoder = ChatEncoder(processor, LengthRule(longest + room, room=1), preference=True)
    data = VLMDataModule(path, path, path)
    data.datasets["test"] = ExampleDataset([wide, large], encoder)
    with pytest.raises(InputError, match=f"preference.jsonl:2: controls: {problem}"), data.controlled("swapped"):
        pytest.fail("a model would be asked")
