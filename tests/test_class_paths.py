"""What is said of a class path that names no usable class."""

import pytest

from ftkit.class_paths import explain_class

PATHS = ["lightning.LightningModule", "ftkit.GPT2Classifier", "ftkit.training.trained_state.TrainedStateModule"]
OWN = "name ftkit.GPT2Classifier, or a class of your own with its module: my_module.MyClass"


def problem(path: str, said: str) -> str:
    return f"Problem with given class_path '{path}':\n        {said}\n    - Expected a <class 'NoneType'>"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Expected a dot import path string: GPT2Clasifier",
            "model: no such class (got 'GPT2Clasifier'); fix: did you mean ftkit.GPT2Classifier?",
        ),
        (
            "Expected a dot import path string: WandbRnu",
            "model: no such class (got 'WandbRnu'); fix: did you mean ftkit.WandbRun?",
        ),
        ("Expected a dot import path string: Zebra", f"model: no such class (got 'Zebra'); fix: {OWN}"),
        (
            "Multiple subclasses with name A. Give the full class path to avoid ambiguity: x.A, y.A.",
            "model: several classes have this name (got 'A'); fix: give one of x.A, y.A",
        ),
        (
            problem("ftkit.nowhere.GPT2Classifier", "No module named 'ftkit.nowhere'"),
            "model: there is no module ftkit.nowhere (got 'ftkit.nowhere.GPT2Classifier'); "
            "fix: did you mean ftkit.GPT2Classifier?",
        ),
        (
            problem("mine.Model", "No module named 'absent'"),
            "model: its module cannot be imported: No module named 'absent' (got 'mine.Model')",
        ),
        (
            "Import path ftkit.SpamDataModule does not correspond to a subclass of LightningModule",
            f"model: is not a LightningModule (got 'ftkit.SpamDataModule'); fix: {OWN}",
        ),
        (
            "Import path does not correspond to a subclass of LightningModule\nGiven value: os.path",
            f"model: is not a LightningModule (got 'os.path'); fix: {OWN}",
        ),
        ("module 'os' has no attribute 'pth'", "model: module 'os' has no attribute 'pth'; fix: did you mean os.path?"),
    ],
)
def test_a_class_that_cannot_be_used(message: str, expected: str) -> None:
    assert str(explain_class(message, "model", PATHS)) == expected


def test_where_modules_are_looked_for() -> None:
    said = str(explain_class(problem("nowhere.Zebra", "No module named 'nowhere'"), "model", PATHS))
    assert said.startswith("model: there is no module nowhere (got 'nowhere.Zebra'); fix: modules are looked for in /")


@pytest.mark.parametrize(
    "message",
    ["Expected a <class 'int'>", "- Expected a <class 'float'>\n- Expected a dot import path string: nan"],
)
def test_what_is_not_about_a_class_is_left_to_others(message: str) -> None:
    assert explain_class(message, "model", PATHS) is None
