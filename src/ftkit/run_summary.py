"""What a command of a single run ends with: its figures, its folder and the next command."""

from pathlib import Path
from shlex import quote
from typing import Any

import lightning as L

from ftkit.ablation.convergence import learned_nothing
from ftkit.ablation.result import Split
from ftkit.results.answer_counts import labels_and_answers, unanswered
from ftkit.results.preferences import interval_of_counts
from ftkit.run_folder import CONFIG_FILE, predictions_file
from ftkit.training.recorder import RunRecorder


def summary(trainer: L.Trainer) -> str:
    """Return the figures of a training or an evaluation that has ended, where they are kept, and what comes next."""
    folder = Path(trainer.default_root_dir)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    files: list[str] = []
    if trainer.state.fn == "fit":
        lines = [_logged(trainer)]
        command = f"ftkit test --config {quote(str(folder / CONFIG_FILE))}"
    else:
        recorder = next(one for one in trainer.callbacks if isinstance(one, RunRecorder))  # type: ignore[attr-defined]
        name = getattr(trainer.lightning_module, "accuracy_name", "accuracy")
        evaluated = {split: figures for split, figures in recorder.evaluated.items() if "accuracy" in figures}
        lines = [f"{split}: {name} {_accuracy(**figures)}" for split, figures in evaluated.items()]
        trained = "fit" in recorder.result.get("seconds", {}) and not recorder.result.get("baseline")
        if trained:
            lines += [_weakness(folder, split, figures) for split, figures in evaluated.items()]
        files = [predictions_file(split) for split in recorder.evaluated]
        command = f"ftkit evaluate {quote(str(folder / files[-1]))}" if evaluated else ""
    listed = f" ({', '.join(files)})" if files else ""
    lines += [f"run folder: {folder}{listed}", command and f"next: {command}"]
    return "\n".join(filter(None, lines))


def _weakness(folder: Path, split: str, figures: dict[str, Any]) -> str:
    """Return a warning if a trained model does no better than a constant answer, or leaves a class out."""
    counts = Split(figures["n"], figures["correct"], figures.get("ties"))
    read = labels_and_answers(folder / predictions_file(split))
    found = "; ".join(filter(None, (learned_nothing(counts, split, read), unanswered(read))))
    advice = "a longer training or another learning rate (--model.optimizer.lr) may help"
    return found and f"warning: {split}: {found}; {advice}"


def _logged(trainer: L.Trainer) -> str:
    """Return the last losses, accuracies and monitored metrics, and what the module shows beside the progress bar."""
    monitored = {getattr(one, "monitor", None) for one in trainer.callbacks}  # type: ignore[attr-defined]
    logged = {
        name: value
        for name, value in trainer.callback_metrics.items()
        if name in monitored or name.endswith(("loss", "accuracy"))
    }
    return ", ".join(f"{name} {value:.4g}" for name, value in (logged | trainer.progress_bar_metrics).items())


def _accuracy(n: int, correct: int, accuracy: float, ties: int | None = None) -> str:
    """Return an accuracy with its 95% interval and the counts behind it."""
    low, high = interval_of_counts(n, correct, ties)
    counts = f"{correct:,} of {n:,}{f', {ties:,} ties' if ties else ''}"
    return f"{accuracy:.2%} (95% interval {low:.2%} to {high:.2%}; {counts})"
