"""``ftkit data show``: a training example token by token, with supervised tokens marked."""

from itertools import groupby
from pathlib import Path
from typing import Any

from ftkit.library_output import check_before_imports

START, END = "⟦", "⟧"  # around supervised tokens
_RUN = 4  # so many equal tokens are written as one with their number


def data_show(config: list[Path], example: int = 0) -> str:
    """Show a training example as the model gets it, with supervised tokens between ⟦ and ⟧.

    Of a classifier, whose target is the label, the pooled positions are marked.

    Args:
        config: The config files that `ftkit fit` would be given, in the same order.
        example: Which example of the train split, counted from 0.

    Returns:
        Which turns of conversations are supervised, the example decoded with its tokens counted, and the shapes of the
        batch's tensors.

    Raises:
        InputError: A config or the data cannot be used, there is no such example, or the model is none of ftkit's.
    """
    from ftkit.library_output import quiet_lightning

    quiet_lightning()
    check_before_imports(config)
    from ftkit.classifier.data import TextClassificationDataModule
    from ftkit.classifier.text_classifier import TextClassifier
    from ftkit.errors import InputError
    from ftkit.examples.supervision import examples_lines
    from ftkit.lightning_cli import FtkitCLI
    from ftkit.run_config import config_arguments
    from ftkit.training.generative import GenerativeModule

    cli = FtkitCLI(config_arguments(config), run=False)
    model, data = cli.model, cli.datamodule
    classifies = isinstance(model, TextClassifier) and isinstance(data, TextClassificationDataModule)
    if not classifies and not isinstance(model, GenerativeModule):
        got = f"{type(model).__name__} on {type(data).__name__}"
        raise InputError("only examples of ftkit's own models and data are known", field="model", got=got)
    data.trainer = cli.trainer
    cli.trainer.strategy.connect(model)  # so that the data module finds the model; no weights are loaded
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    there = len(loader.dataset)
    if not 0 <= example < there:
        problem, fix = f"the train split has {there} examples", f"give 0 to {there - 1}"
        raise InputError(problem, field="example", got=example, fix=fix)
    sizes = ", ".join(f"{name} {size:,}" for name, size in data.report["sizes"].items())
    if classifies:
        lines = [f"Examples: {sizes}; cut: {sum(data.report['truncated'].values()):,}"]
        return "\n".join([*lines, *_shown_message(loader.dataset[example], model, data, example)]) + "\n"
    batch = loader.collate_fn([loader.dataset[example]])
    dropped = {name: sum(data.report[name].values()) for name in ("cut", "skipped")}
    lines = [f"Examples: {sizes}; answers cut: {dropped['cut']:,}, examples skipped: {dropped['skipped']:,}"]
    if equal := sum(data.report.get("equal", {}).values()):
        lines.append(f"Pairs left out because both answers are the same: {equal:,}")
    return "\n".join([*lines, *examples_lines(data.report), *_shown(batch, model.tokenizer, example)]) + "\n"


def _shown(batch: dict[str, Any], tokenizer: Any, example: int) -> list[str]:
    from ftkit.models.losses import IGNORE_INDEX

    inputs = batch["inputs"]
    names = ("chosen", "rejected") if len(inputs["labels"]) == 2 else ("",)
    lines = []
    for name, ids, labels, mask in zip(
        names, inputs["input_ids"], inputs["labels"], inputs["attention_mask"], strict=True
    ):
        read = mask.bool()
        supervised = (labels != IGNORE_INDEX)[read].tolist()
        title = f"Example {example} ({batch['id'][0]}){name and ', '}{name}"
        lines += [
            "",
            f"{title}: {len(supervised)} tokens, {sum(supervised)} supervised, between {START} and {END}",
            marked(ids[read].tolist(), supervised, tokenizer),
        ]
    return [*lines, *_shapes(inputs)]


def _shown_message(batch: dict[str, Any], model: Any, data: Any, example: int) -> list[str]:
    import torch

    from ftkit.models.pooling import pool, unpadded

    ids, length = batch["input_ids"][0], int(batch["length"])
    pooling = model.pooling if data.encoding.pad_to_max else unpadded(model.pooling)
    shares = pool(torch.eye(len(ids))[None], batch["length"], pooling)[0]  # (T,): each position's part in the decision
    read = (shares > 0).tolist()
    padding = f", {len(ids) - length} of them padding" if len(ids) > length else ""
    label = data.encoding.labels[int(batch["label"])]
    tokens = f"{len(ids)} tokens{padding}"
    title = f"Example {example} ({batch['id'][0]}): {tokens}; label {label}, pooled between {START} and {END}"
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    return ["", title, marked(ids.tolist(), read, model.load_tokenizer()), *_shapes(tensors)]


def _shapes(tensors: dict[str, Any]) -> list[str]:
    shapes = (f"  {name}: {tuple(value.shape)} {str(value.dtype)[6:]}" for name, value in tensors.items())
    return ["", "Tensors", *shapes]


def marked(ids: list[int], supervised: list[bool], tokenizer: Any) -> str:
    """Decode tokens, with ⟦ and ⟧ around supervised ones; shorten long runs of one token, such as an image's."""
    parts = []
    for is_supervised, group in groupby(zip(ids, supervised, strict=True), key=lambda pair: pair[1]):
        pieces: list[str] = []
        pending: list[int] = []
        for token, run in groupby(token for token, _ in group):
            count = len(list(run))
            if count < _RUN:
                pending += [token] * count
                continue
            pieces += [tokenizer.decode(pending), f"{tokenizer.decode([token])}(x{count})"]
            pending = []
        text = "".join([*pieces, tokenizer.decode(pending)])
        parts.append(f"{START}{text}{END}" if is_supervised else text)
    return "".join(parts)
