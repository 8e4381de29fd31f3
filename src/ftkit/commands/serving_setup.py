"""Load the model of a folder for the server: what the folder holds decides how."""

from pathlib import Path
from typing import Any

from ftkit.commands.runs import class_of, is_run, load_run
from ftkit.config_files import read_config
from ftkit.errors import InputError
from ftkit.hub import ADAPTER_FILE, base_of_adapter
from ftkit.models.loading import context_length
from ftkit.results.threshold import Threshold
from ftkit.run_folder import CONFIG_FILE
from ftkit.serving.classifier import BatchClassifier
from ftkit.serving.endpoints import Served
from ftkit.serving.generator import BatchGenerator
from ftkit.serving.limits import Limits
from ftkit.serving.loading import load_generator
from ftkit.serving.prompts import Prompts, longest_token
from ftkit.serving.thread import ModelThread
from ftkit.vlm.classify import ImageClassifier


def load_served(
    model: str,
    name: str | None,
    revision: str | None,
    adapter: Path | None,
    limits: Limits,
    batch_size: int,
    threshold: Path | None = None,
    **loading: Any,
) -> Served:
    """Load the model that a name stands for, ready to be served.

    Raises:
        InputError: The folder holds nothing that can be served.
    """
    folder = Path(model)
    frozen = None if threshold is None else Threshold.load(threshold)
    if threshold is not None and not _has_scores(folder):
        raise InputError("is for classifiers, which have scores", field="threshold", got=threshold)
    style: dict[str, Any] = {}
    name = name or (folder.resolve().name if folder.exists() else model)
    if is_run(folder):
        for field, value in (("revision", revision), ("adapter", adapter)):
            if value is not None:
                raise InputError("comes with the run and cannot be given", field=field, got=value)
        loaded = load_run(folder, **loading)
        if hasattr(loaded, "classify"):
            return Served(name, ModelThread(BatchClassifier(loaded, batch_size, frozen), limits.waiting), None)
        if hasattr(loaded, "first_tokens"):
            images = ImageClassifier(loaded, **_data_options(folder))
            thread = ModelThread(BatchClassifier(images, batch_size, frozen, images.encode), limits.waiting)
            context = loaded.context_length
            characters = context * longest_token(loaded.tokenizer)
            return Served(name, thread, characters, context=context, reads_images=True)
        net, tokenizer = loaded.net, loaded.tokenizer
        style = {"chat": getattr(loaded, "chat", None), "style": getattr(loaded, "prompt_style", None)}
        style["spaced_digits"] = getattr(loaded, "spaced_digits", False)
    else:
        if (folder / ADAPTER_FILE).is_file() and not (folder / "config.json").is_file():
            adapter = folder
            model, revision = base_of_adapter(folder)
        net, tokenizer = load_generator(model, revision, adapter, **loading)
    generator = BatchGenerator(net, tokenizer, batch_size)
    context = context_length(net.config.get_text_config())
    characters = context * longest_token(tokenizer)
    return Served(name, ModelThread(generator, limits.waiting), characters, Prompts(tokenizer, **style), context)


def _has_scores(folder: Path) -> bool:
    """Return whether a folder holds a run that classifies; its model is not loaded."""
    return is_run(folder) and any(hasattr(class_of(folder), name) for name in ("classify", "first_tokens"))


def _data_options(run: Path) -> dict[str, Any]:
    """Return what a run's config says of the chat template and of images, which its checkpoint does not."""
    file = run / CONFIG_FILE
    data = read_config(file).get("data") if file.is_file() else None
    given = (data or {}).get("init_args") or {}
    return {name: given.get(name) for name in ("chat", "image_options")}
