"""``ftkit data audit``: what a data set has more than once, within and between its splits."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.errors import InputError, UnavailableError
from ftkit.library_output import check_before_imports, quiet_lightning, say_imports
from ftkit.report.page import to_html
from ftkit.report.thumbnails import thumbnail_of
from ftkit.run_folder import SPLITS, SplitName
from ftkit.storage import atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image

    from ftkit.examples.reader import Example, ImageReference
    from ftkit.report.audit import Audit
    from ftkit.results.duplicates import LabeledText

# Columns of examples to train on; other records have a text and a label.
_SHAPED = {
    "messages", "conversations", "prompt", "chosen", "prefix", "question", "query", "instruction", "image", "images"
}  # fmt: skip


def audit_command(
    config: list[Path],
    *,
    json: bool = False,
    html: Path | None = None,
    examples: Path | None = None,
    **options: Any,
) -> Audit:
    """Find examples that occur more than once in a data set; count labels, empty texts and lengths.

    Args:
        config: The config files that `ftkit fit` would be given, in the same order; none with `--train`.
        json: Print JSON, with all pairs.
        html: Write a page with the pairs side by side to this file.
        examples: Write the test examples (those of val if there is no test split), with their duplicates and texts,
            to this file (.tsv), for `ftkit evaluate --examples`.
        **options: Those of :func:`audit`.
    """
    found = audit(*(config or ()), **options)
    if html is not None:
        with atomic_write(html) as file:
            file.write(to_html(found.document()))
    if examples is not None:
        split = max(SPLITS, key=lambda name: (len(found.known_examples(name).ids) > 0, SPLITS.index(name)))
        found.known_examples(split).write(examples)
    print(found.to_json() if json else found)
    return found


def audit(
    *config: Path | str,
    train: Any = None,
    val: Any = None,
    test: Any = None,
    columns: dict[str, str | int] | None = None,
    threshold: float = 0.6,
) -> Audit:
    """Find examples that occur more than once in a data set; count labels, empty texts and lengths.

    Args:
        *config: The config files of a run, as for ``ftkit fit``; or else name the data:
        train: A file or folder of training data, in Python also a data set or frame, see
            :func:`ftkit.examples.sources.open_source`: a text and a label, or an example to train on, in each record.
        val: The same for validation.
        test: The same for testing.
        columns: Our name of a column and the one in the data, such as {text: sentence}.
        threshold: Jaccard similarity of character 5-grams from which texts are near-duplicates, above 0 and at most 1.

    Returns:
        What was found: ``print`` and notebooks show it; ``to_dict()``, ``to_pandas()`` and ``pairs()`` hold it.

    Raises:
        FtkitError: A config or the data cannot be used.

    Example:
        >>> train = [{"text": "Call me now", "label": "ham"}, {"text": "See you", "label": "ham"}]
        >>> found = audit(train=train, test=[{"text": "call  me NOW", "label": "spam"}])
        >>> found.to_dict()["duplicates"]["normalized"]["test"]["other_label"]
        1
    """
    given = {name: one for name, one in zip(SPLITS, (train, val, test), strict=True) if one is not None}
    if bool(config) == bool(given) or (given and "train" not in given):
        raise InputError("give config files, or --train and perhaps --val and --test", field="config")
    if not 0 < threshold <= 1:
        raise InputError("must be above 0 and at most 1", field="threshold", got=threshold)
    if config:
        return _of_config([Path(file) for file in config], threshold)
    return _of_sources(given, columns, threshold)


def _of_config(config: Sequence[Path], threshold: float) -> Audit:
    check_before_imports(config)
    from ftkit.classifier.text_classifier import TextClassifier
    from ftkit.lightning_cli import FtkitCLI
    from ftkit.run_config import config_arguments
    from ftkit.training.split_data import SplitDataModule

    quiet_lightning()
    cli = FtkitCLI(config_arguments(config), run=False)
    model, data = cli.model, cli.datamodule
    data.prepare_data()
    images = _Images()
    given = data.labeled_texts(images.key) if isinstance(data, SplitDataModule) else {}
    if not given:
        raise InputError("only ftkit's own data modules can be audited", field="data", got=type(data).__name__)
    splits = {name: list(examples) for name, examples in given.items()}
    data.trainer = cli.trainer
    cli.trainer.strategy.connect(model)  # so that the data module finds the model; no weights are loaded
    tokens: dict[str, dict[str, int]] = {}
    try:
        data.setup("fit")
    except UnavailableError as error:
        print(f"notice: tokens are not counted: {error}", file=sys.stderr)
    else:
        tokens["cut"] = data.report.get("truncated", data.report.get("cut", {}))
        tokens |= {"left out": data.report["skipped"]} if "skipped" in data.report else {}
    if tokens and isinstance(model, TextClassifier):
        tokenizer, longest = model.load_tokenizer(), data.report["max_length"]
        for name in filter(splits.get, SPLITS):
            encoded = tokenizer([one.text for one in splits[name]], add_special_tokens=model.encoder)["input_ids"]
            tokens.setdefault("tokens lost", {})[name] = sum(max(0, len(ids) - longest) for ids in encoded)
    return _audited(str(getattr(data, "source", type(data).__name__)), splits, threshold, images, tokens)


def _of_sources(given: Mapping[SplitName, Any], columns: Mapping[str, str | int] | None, threshold: float) -> Audit:
    from ftkit.examples.sources import open_source

    sources = {name: open_source(one, columns) for name, one in given.items()}
    say_imports()
    from ftkit.classifier.records import labelled, messages_of
    from ftkit.examples.duplicates import labeled_text
    from ftkit.examples.reader import read_examples
    from ftkit.results.duplicates import LabeledText

    splits, seen = {}, _Images()
    for name, source in sources.items():
        if {"text", "label"} <= {*source.columns} or not _SHAPED & {*source.columns}:
            found = messages_of(labelled(source))
            splits[name] = list(map(LabeledText, found.ids, found.texts, found.labels))
        else:
            images = bool({"image", "images"} & {*source.columns})
            examples = read_examples(source, images=images, repeated_ids=True)
            splits[name] = [labeled_text(one, [seen.key(image, one) for image in one.images]) for one in examples]
    return _audited(sources["train"].title, splits, threshold, seen)


def _audited(
    source: str,
    splits: Mapping[SplitName, Sequence[LabeledText]],
    threshold: float,
    images: _Images,
    tokens: Mapping[str, Mapping[str, int]] | None = None,
) -> Audit:
    from ftkit.examples.duplicates import find_duplicates
    from ftkit.report.audit import Audit

    found = find_duplicates(splits, threshold)
    examples = [one for name in SPLITS for one in splits.get(name, ())]
    return Audit(
        source, examples, found.examples, threshold, found.images, found.recall, tokens or {}, images.thumbnail
    )


class _Images:
    """The images of a data set, each decoded once for its key, and again for a small picture."""

    def __init__(self) -> None:
        self.keys: dict[ImageReference, tuple[bytes, int]] = {}
        self.by_key: dict[Hashable, ImageReference] = {}

    def key(self, image: ImageReference, example: Example) -> tuple[bytes, int]:
        """Return the key of an image; an error names its example."""
        from ftkit.examples.reader import image_bytes, naming
        from ftkit.examples.similarity import image_key

        if image not in self.keys:
            with naming(example):
                data = image_bytes(image)
                self.keys[image] = image_key(data, _decoded(data))
            self.by_key[self.keys[image]] = image
        return self.keys[image]

    def thumbnail(self, key: Hashable) -> str:
        """Return the thumbnail of an image as a ``data:`` URL."""
        from ftkit.examples.reader import image_bytes

        return thumbnail_of(_decoded(image_bytes(self.by_key[key])))


def _decoded(data: bytes) -> Image:
    from ftkit.vlm.images import WHITE, decode_image

    return decode_image(data, WHITE, "image").image
