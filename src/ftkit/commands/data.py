"""``ftkit data show``: what a model reads and what it learns, token by token, before anything is trained."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

START, END = "⟦", "⟧"  # around what is learnt
_RUN = 4  # so many equal tokens are written as one with their number


def data_show(config: list[Path], row: int = 0) -> str:
    """Show a training row as the model gets it, with the part that is learnt between ⟦ and ⟧.

    Args:
        config: The config files of the run, as for fit.
        row: Which row of the train split, counted from 0.

    Returns:
        The row decoded, with its tokens counted, and the shapes of the batch's tensors.

    Raises:
        InputError: A config or the data cannot be used, there is no such row, or the model is not trained on answers.
    """
    from ftkit.quiet import quiet_libraries, quiet_lightning

    quiet_libraries()
    quiet_lightning()
    from ftkit.errors import InputError
    from ftkit.lightning_cli import FtkitCLI, config_arguments
    from ftkit.training.generative import GenerativeModule

    cli = FtkitCLI(config_arguments(config), run=False)
    model, data = cli.model, cli.datamodule
    if not isinstance(model, GenerativeModule):
        raise InputError("the model is not trained on answers", field="model", got=type(model).__name__)
    data.trainer = cli.trainer
    cli.trainer.strategy.connect(model)  # so that the data module finds the model; no weights are loaded
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    if not 0 <= row < len(loader.dataset):
        raise InputError(f"the train split has {len(loader.dataset)} rows", field="row", got=row)
    batch = loader.collate_fn([loader.dataset[row]])
    sizes = ", ".join(f"{name} {size:,}" for name, size in data.report["sizes"].items())
    dropped = {name: sum(data.report[name].values()) for name in ("cut", "skipped")}
    lines = [f"Rows: {sizes}; answers cut: {dropped['cut']:,}, rows skipped: {dropped['skipped']:,}"]
    if equal := sum(data.report.get("equal", {}).values()):
        lines.append(f"Pairs left out because both answers are the same: {equal:,}")
    return "\n".join([*lines, *_shown(batch, model.tokenizer, row)]) + "\n"


def _shown(batch: dict[str, Any], tokenizer: Any, row: int) -> list[str]:
    from ftkit.models.losses import IGNORE_INDEX

    inputs = batch["inputs"]
    names = ("chosen", "rejected") if len(inputs["labels"]) == 2 else ("",)
    lines = []
    for name, ids, labels, mask in zip(
        names, inputs["input_ids"], inputs["labels"], inputs["attention_mask"], strict=True
    ):
        read = mask.bool()
        learnt = (labels != IGNORE_INDEX)[read].tolist()
        title = f"Row {row} ({batch['id'][0]}){name and ', '}{name}"
        lines += [
            "",
            f"{title}: {len(learnt)} tokens, {sum(learnt)} learnt, between {START} and {END}",
            marked(ids[read].tolist(), learnt, tokenizer),
        ]
    shapes = (f"  {name}: {tuple(value.shape)} {str(value.dtype)[6:]}" for name, value in inputs.items())
    return [*lines, "", "Tensors", *shapes]


def marked(ids: list[int], learnt: list[bool], tokenizer: Any) -> str:
    """Decode tokens, with ⟦ and ⟧ around those that are learnt; long runs of one token, such as an image's, shortened.

    Args:
        ids: Token ids.
        learnt: Whether each is learnt.
        tokenizer: Decodes them.
    """
    parts = []
    for is_learnt, group in groupby(zip(ids, learnt, strict=True), key=lambda pair: pair[1]):
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
        parts.append(f"{START}{text}{END}" if is_learnt else text)
    return "".join(parts)
