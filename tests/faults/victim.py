"""A process of its own that runs ``ftkit`` and is told to end at a chosen place."""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

CONTEXT = get_context("forkserver")  # imports the libraries once; every victim is forked from it
CONTEXT.set_forkserver_preload(["ftkit.lightning_cli"])


def run(arguments: Sequence[str], where: str = "", number: int = 0, log: Path | None = None, **environment: str) -> int:
    """Run ``ftkit`` in a process of its own.

    Args:
        arguments: The command line.
        where: One of ``PLACES``.
        number: The signal that the process is sent there.
        log: Gets what the process prints.
        **environment: Variables that it finds besides those of the first one.

    Returns:
        The exit code; the negative number of the signal if that killed it.
    """
    process = CONTEXT.Process(target=_live, args=(list(arguments), where, number, str(log or os.devnull), environment))
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{arguments} hung")
    return int(process.exitcode or 0)


def _live(
    arguments: list[str], where: str, number: int, log: str, environment: Mapping[str, str] = MappingProxyType({})
) -> None:
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    import torch

    from ftkit.cli import main

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    if where:
        PLACES[where](lambda: os.kill(os.getpid(), number))
    sys.exit(main(arguments))


def _after(owner: Any, name: str, calls: int, strike: Callable[[], None]) -> None:
    """Strike inside the given call of a method, before its work."""
    real, left = getattr(owner, name), [calls]

    def call(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            strike()
        return real(*args, **kwargs)

    setattr(owner, name, call)


def _before_step_1(strike: Callable[[], None]) -> None:
    from ftkit.classifier.text_classifier import TextClassifier as Classifier

    _after(Classifier, "configure_optimizers", 1, strike)


def _mid_epoch(strike: Callable[[], None]) -> None:
    from ftkit.classifier.text_classifier import TextClassifier as Classifier

    _after(Classifier, "training_step", 6, strike)


def _second_epoch(strike: Callable[[], None]) -> None:
    """In the first batch of a window of two, in the second of epochs of eight batches."""
    from ftkit.classifier.text_classifier import TextClassifier as Classifier

    _after(Classifier, "training_step", 11, strike)


def _last_validation(strike: Callable[[], None]) -> None:
    """In the first batch of the validation after the last step of three epochs."""
    from lightning.pytorch.loops import _EvaluationLoop

    _after(_EvaluationLoop, "run", 3, strike)


def _mid_second_epoch(strike: Callable[[], None]) -> None:
    """In the first batch of a window of two, in the second of epochs of six batches."""
    from ftkit.training.generative import GenerativeModule

    _after(GenerativeModule, "window_loss", 9, strike)


def _second_batch(strike: Callable[[], None]) -> None:
    """In the second batch of the training, whatever the task: within a window of two."""
    from lightning.pytorch.strategies import Strategy

    _after(Strategy, "training_step", 2, strike)


def _after_a_checkpoint(strike: Callable[[], None]) -> None:
    """The third checkpoint has its name, and nothing of what follows it is done."""
    from ftkit.training.checkpoint import AtomicCheckpointIO

    real, left = AtomicCheckpointIO.save_checkpoint, [3]

    def save(self: Any, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            strike()

    AtomicCheckpointIO.save_checkpoint = save  # type: ignore[method-assign]


def _during_save(strike: Callable[[], None]) -> None:
    """Half of the bytes of the second checkpoint are written; the first one is there."""
    import torch

    real, left = torch.save, [2]

    def save(checkpoint: Any, file: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            file.write(b"half of it" * 1000)
            file.flush()
            strike()
            file.seek(0)
            file.truncate()
        real(checkpoint, file)

    torch.save = save  # type: ignore[assignment]


def _inside_a_save(strike: Callable[[], None]) -> None:
    """torch writes a part of the first checkpoint, from C++."""
    import torch

    real, left = torch.save, [2]

    class Striking:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, part: Any) -> int:
            left[0] -= 1
            if left[0] == 0:
                strike()
            return int(self.file.write(part))

        def flush(self) -> None:
            self.file.flush()

    torch.save = lambda checkpoint, file: real(checkpoint, Striking(file))  # type: ignore[assignment]


def _inside_features(strike: Callable[[], None]) -> None:
    """The outputs of frozen layers are being computed and written."""
    from ftkit.models.network import SequenceClassifier

    _after(SequenceClassifier, "run", 1, strike)


def _between_save_and_checksum(strike: Callable[[], None]) -> None:
    real, left = Path.replace, [5]  # of the second checkpoint: its digests, itself, its digest alone

    def replace(self: Path, target: Any) -> Path:
        if str(target).endswith(".ckpt.sha256"):
            left[0] -= 1
            if left[0] == 1:
                strike()
        return real(self, target)

    Path.replace = replace  # type: ignore[method-assign, assignment]


def _during_validation(strike: Callable[[], None]) -> None:
    from ftkit.classifier.text_classifier import TextClassifier as Classifier

    _after(Classifier, "validation_step", 2, strike)


def _during_test(strike: Callable[[], None]) -> None:
    from ftkit.classifier.text_classifier import TextClassifier as Classifier

    _after(Classifier, "test_step", 2, strike)


def _between_rows(strike: Callable[[], None]) -> None:
    from ftkit.ablation import runner

    real = runner.SweepRunner._record

    def record(self: Any, run: Any, status: str, **more: Any) -> None:
        real(self, run, status, **more)
        if status == "done":
            strike()

    runner.SweepRunner._record = record  # type: ignore[method-assign]


PLACES: dict[str, Callable[[Callable[[], None]], None]] = {
    "before step 1": _before_step_1,
    "mid-epoch": _mid_epoch,
    "second epoch": _second_epoch,
    "last validation": _last_validation,
    "generative, mid-epoch": _mid_second_epoch,
    "second batch": _second_batch,
    "after a checkpoint": _after_a_checkpoint,
    "during save": _during_save,
    "between save and checksum": _between_save_and_checksum,
    "inside a save": _inside_a_save,
    "inside features": _inside_features,
    "during validation": _during_validation,
    "during test": _during_test,
    "between rows": _between_rows,
}
