"""The published 19-row GPT-2 spam ablation as one plain PyTorch file: test oracle and speed baseline.

It shares no code with ftkit or transformers: attention is spelled out, the loop is a `for`, and every random
draw comes from torch's global generator in the published order. The procedure is that of the folder
`ch06/02_bonus_additional-experiments` of https://github.com/rasbt/LLMs-from-scratch, in our own words.

    python benchmarks/plain_loop.py --row 10 --messages SMSSpamCollection --tokenizer FOLDER --out row10.json
    python benchmarks/plain_loop.py --row 1 --messages FILE --model FOLDER  # GPT-2 in transformers format
"""

import argparse
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from operator import eq
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

SEED, EVAL_EVERY, EVAL_BATCHES = 123, 50, 5
Row = dict[str, Any]
Messages = Sequence[tuple[Sequence[int], int]]  # (token ids, label)


@dataclass(frozen=True)
class Size:
    """A GPT-2's dimensions; the defaults are GPT-2's own vocabulary and context."""

    layers: int
    width: int
    heads: int
    vocab: int = 50257
    context: int = 1024


SIZES = {"small": Size(12, 768, 12), "medium": Size(24, 1024, 16)}
SIZES |= {"large": Size(36, 1280, 20), "xl": Size(48, 1600, 25)}
ROW_1: Row = {
    "size": "small",
    "weights": "pretrained",  # or "random": PyTorch's default initialization, seed 123
    "position": "last",  # "first", "last" or "flexible" (last real token)
    "trainable": "last_block",  # "last_layer", "last_block", "last_two_blocks", "all" or "lora"
    "context": "longest",  # pad to the longest training message, to the "model" context, or "none"
    "batch_size": 8,
    "accumulation": 1,
    "causal": True,
    "ignore_index": -100,
    "mean": False,
    "lora_rank": None,
    "lora_alpha": None,
}
CHANGES: dict[int, Row] = {
    1: {},
    2: {"position": "first"},
    3: {"trainable": "last_layer"},
    4: {"trainable": "last_two_blocks"},
    5: {"trainable": "all"},
    6: {"size": "medium"},
    7: {"size": "large"},
    8: {"size": "xl"},
    9: {"size": "xl", "trainable": "all"},
    10: {"weights": "random", "trainable": "all"},
    11: {"trainable": "lora", "lora_rank": 16, "lora_alpha": 16},
    12: {"size": "xl", "trainable": "lora", "lora_rank": 16, "lora_alpha": 8},
    13: {"context": "model"},
    14: {"context": "none", "batch_size": 1},
    15: {"context": "none", "batch_size": 1, "accumulation": 8},
    16: {"position": "flexible"},
    17: {"causal": False},
    18: {"ignore_index": 50256},
    19: {"mean": True},
}
ROWS: dict[int, Row] = {number: ROW_1 | change for number, change in CHANGES.items()}


class LayerNorm(nn.Module):
    """Layer normalization over the last axis with the biased variance and eps 1e-5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `x` (..., width)."""
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.weight + self.bias


class Block(nn.Module):
    """A pre-norm block; its Linears are registered, and so drawn, in the published order."""

    def __init__(self, size: Size, causal: bool) -> None:
        super().__init__()
        width, self.heads, self.causal = size.width, size.heads, causal
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.norm_1 = LayerNorm(width)
        self.norm_2 = LayerNorm(width)

    def attend(self, x: Tensor) -> Tensor:
        """Self-attention of `x` (B, T, width). Padding is never masked."""
        batch, length, width = x.shape
        query, key, value = (  # each (B, heads, T, head width)
            linear(x).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3)  # (B, heads, T, T)
        if self.causal:
            future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        mixed = torch.softmax(scores / math.sqrt(width // self.heads), dim=-1) @ value
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, width) to (B, T, width)."""
        x = x + self.attend(self.norm_1(x))
        h = self.up(self.norm_2(x))
        gelu = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        return x + self.down(gelu)


class GPT(nn.Module):
    """GPT-2 without dropout and with a classification head (absent until `build` gives it one)."""

    def __init__(self, size: Size, causal: bool = True) -> None:
        super().__init__()
        self.size = size
        self.token_embedding = nn.Embedding(size.vocab, size.width)
        self.position_embedding = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size, causal) for _ in range(size.layers))
        self.final_norm = LayerNorm(size.width)
        self.head: nn.Module = nn.Identity()  # a published LM head is drawn last, then thrown away: left out

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids (B, T) int64 to the head's output at every position, (B, T, classes)."""
        x = self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.final_norm(x))


class LoRALinear(nn.Module):
    """A Linear plus `alpha * (x A) B`: the scale is alpha itself, and A's bound is 1 / sqrt(rank)."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear, self.alpha = linear, alpha
        self.a = nn.Parameter(torch.empty(linear.in_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # "fan in" of an (in, rank) matrix is rank
        self.b = nn.Parameter(torch.zeros(rank, linear.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return self.linear(x) + self.alpha * (x @ self.a @ self.b)


def add_lora(model: nn.Module, rank: int, alpha: float) -> None:
    """Wrap every Linear of `model` in module order, the head included; frozen parameters stay frozen."""
    linears = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    for path, linear in linears:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, LoRALinear(linear, rank, alpha))


@torch.no_grad()
def load_gpt2_state(model: GPT, state: Mapping[str, Tensor]) -> None:
    """Copy a transformers GPT-2 state dict into `model`; its Conv1D weights are (in, out), so transposed."""
    state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}

    def copy(module: Any, weight: Tensor, bias: Tensor) -> None:
        module.load_state_dict({"weight": weight, "bias": bias})

    model.token_embedding.load_state_dict({"weight": state["wte.weight"]})
    model.position_embedding.load_state_dict({"weight": state["wpe.weight"]})
    copy(model.final_norm, state["ln_f.weight"], state["ln_f.bias"])
    for i, block in enumerate(model.blocks):
        part = {name.removeprefix(f"h.{i}."): t for name, t in state.items() if name.startswith(f"h.{i}.")}
        qkv = zip(part["attn.c_attn.weight"].chunk(3, 1), part["attn.c_attn.bias"].chunk(3), strict=True)
        for linear, (weight, bias) in zip((block.query, block.key, block.value), qkv, strict=True):
            copy(linear, weight.T, bias)
        for linear, name in ((block.out, "attn.c_proj"), (block.up, "mlp.c_fc"), (block.down, "mlp.c_proj")):
            copy(linear, part[f"{name}.weight"].T, part[f"{name}.bias"])
        copy(block.norm_1, part["ln_1.weight"], part["ln_1.bias"])
        copy(block.norm_2, part["ln_2.weight"], part["ln_2.bias"])


def build(row: Row, size: Size, state: Mapping[str, Tensor] | None = None) -> GPT:
    """The row's model: base weights (`state` unless random), new head, trainable parameters chosen."""
    torch.manual_seed(SEED)
    model = GPT(size, row["causal"])
    if row["weights"] == "pretrained":
        if state is None:
            raise ValueError("a row with pretrained weights needs a GPT-2 state dict")
        load_gpt2_state(model, state)
    model.requires_grad_(False)
    torch.manual_seed(SEED)
    model.head = nn.Linear(size.width, 2)
    if row["trainable"] == "lora":
        add_lora(model, row["lora_rank"], row["lora_alpha"])
    elif row["trainable"] == "all":
        model.requires_grad_(True)
    elif row["trainable"] in ("last_block", "last_two_blocks"):
        count = 1 if row["trainable"] == "last_block" else 2
        for module in (*model.blocks[-count:], model.final_norm):
            module.requires_grad_(True)
    elif row["trainable"] != "last_layer":
        raise ValueError(f"unknown trainable={row['trainable']!r}")
    return model


def last_real(ids: Tensor, pad_id: int) -> Tensor:
    """The "flexible" position of `ids` (B, T): how many are not `pad_id`, minus 1; so -1 if none is."""
    return (ids != pad_id).sum(dim=1) - 1


def choose(logits: Tensor, ids: Tensor, row: Row, pad_id: int) -> Tensor:
    """The deciding (B, classes) of `logits` (B, T, classes); "flexible" ignores `mean`, as published."""
    if row["position"] == "flexible":
        return logits[torch.arange(len(ids)), last_real(ids, pad_id)]
    if row["mean"]:
        return logits.mean(dim=1)
    return logits[:, 0 if row["position"] == "first" else -1]


def prepare(messages: Messages, max_length: int | None, pad_id: int) -> list[tuple[Tensor, int, int]]:
    """(ids, label, index) of each message, cut and right-padded to `max_length`; None leaves ids alone."""
    prepared = []
    for index, (ids, label) in enumerate(messages):
        if max_length is not None:
            ids = [*ids[:max_length], *[pad_id] * (max_length - len(ids))]
        prepared.append((torch.tensor(ids, dtype=torch.long), label, index))
    return prepared


def padded_length(row: Row, messages: Messages, context: int) -> int | None:
    """The row's padded length, from the training messages; None without padding (nothing is cut then)."""
    longest = max(len(ids) for ids, _ in messages)
    return {"longest": longest, "model": context, "none": None}[row["context"]]


@dataclass
class Result:
    """What a run leaves behind; everything can go into JSON."""

    losses: list[float] = field(default_factory=list)  # of every training batch, undivided
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # (step, train loss, val loss)
    orders: list[list[int]] = field(default_factory=list)  # training messages of each epoch as they came
    epoch_accuracy: list[tuple[float, float]] = field(default_factory=list)  # first batches of train, val
    predictions: dict[str, list[int]] = field(default_factory=dict)  # in data order
    accuracy: dict[str, float] = field(default_factory=dict)  # train: shuffled, rest dropped
    seconds: float = 0.0  # training with its periodic evaluations


def train(
    model: GPT, row: Row, splits: Mapping[str, Messages], pad_id: int, epochs: int = 5, lr: float = 5e-5
) -> Result:
    """Train on `splits["train"]`, watch `splits["val"]`, and predict every split.

    An iterator over a DataLoader draws from the global generator, shuffled or not. So the evaluations decide
    the later epochs' order: what is evaluated, when and on which loader is part of the procedure.
    """
    length = padded_length(row, splits["train"], model.size.context)
    data: dict[str, Any] = {name: prepare(messages, length, pad_id) for name, messages in splits.items()}
    train_loader: DataLoader = DataLoader(data["train"], row["batch_size"], shuffle=True, drop_last=True)
    val_loader: DataLoader = DataLoader(data["val"], row["batch_size"])
    result, step, started = Result(), 0, time.perf_counter()

    def logits_of(ids: Tensor) -> Tensor:
        return choose(model(ids), ids, row, pad_id)

    def loss_of(ids: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits_of(ids), labels, ignore_index=row["ignore_index"])

    @torch.no_grad()
    def mean_loss(loader: DataLoader) -> float:
        return fmean(loss_of(ids, labels).item() for ids, labels, _ in islice(loader, EVAL_BATCHES))

    @torch.no_grad()
    def predict(batches: Iterable) -> list[int]:
        return torch.cat([logits_of(ids).argmax(1) for ids, _, _ in batches]).tolist()

    def accuracy(loader: DataLoader) -> float:
        batches = list(islice(loader, EVAL_BATCHES))
        labels = torch.cat([labels for _, labels, _ in batches]).tolist()
        return fmean(map(eq, predict(batches), labels))

    torch.manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
    for _ in range(epochs):
        result.orders.append([])
        for number, (ids, labels, indices) in enumerate(train_loader, start=1):
            loss = loss_of(ids, labels)
            (loss / row["accumulation"]).backward()
            if number % row["accumulation"] == 0 or number == len(train_loader):
                optimizer.step()
                optimizer.zero_grad()
            result.losses.append(loss.item())
            result.orders[-1] += indices.tolist()
            if step % EVAL_EVERY == 0:
                result.curve.append((step, mean_loss(train_loader), mean_loss(val_loader)))
            step += 1
        result.epoch_accuracy.append((accuracy(train_loader), accuracy(val_loader)))
    result.seconds = time.perf_counter() - started

    kept = [index for _, _, indices in train_loader for index in indices.tolist()]
    for name, examples in data.items():
        predicted = result.predictions[name] = predict(DataLoader(examples, row["batch_size"]))
        counted = kept if name == "train" else range(len(examples))
        result.accuracy[name] = fmean(predicted[i] == examples[i][1] for i in counted)
    return result


def published_split(path: Path) -> dict[str, list[tuple[str, int]]]:
    """(text, 1 if spam) of each message: balanced, shuffled and cut 70/10/20 by pandas with seed 123."""
    import pandas as pd  # type: ignore[import-untyped]  # only the command line needs it

    table = pd.read_csv(path, sep="\t", header=None, names=["label", "text"])
    spam = table[table.label == "spam"]
    ham = table[table.label == "ham"].sample(len(spam), random_state=SEED)
    table = pd.concat([ham, spam])
    for _ in range(2):  # shuffled once when balanced and once when split
        table = table.sample(frac=1, random_state=SEED)
    pairs = list(zip(table.text, (table.label == "spam").astype(int).tolist(), strict=True))
    first, second = int(len(pairs) * 0.7), int(len(pairs) * 0.7) + int(len(pairs) * 0.1)
    return {"train": pairs[:first], "val": pairs[first:second], "test": pairs[second:]}


def load_tokenizer(folder: Path) -> Any:
    """A byte-level BPE from `tokenizer.json`, or from GPT-2's own pair of files under either name."""
    from tokenizers import ByteLevelBPETokenizer, Tokenizer

    if (folder / "tokenizer.json").exists():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    for vocab, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / vocab).exists():
            return ByteLevelBPETokenizer.from_file(str(folder / vocab), str(folder / merges))
    raise FileNotFoundError(f"no tokenizer.json, vocab.json or encoder.json in {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description="One row of the published table in plain PyTorch.")
    parser.add_argument("--row", type=int, choices=sorted(ROWS), required=True)
    parser.add_argument("--messages", type=Path, required=True, help="label TAB text, as SMSSpamCollection")
    parser.add_argument("--model", type=Path, help="GPT-2 folder in transformers format; its size wins")
    parser.add_argument("--tokenizer", type=Path, help="folder of the BPE files (default: the model's)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write everything here as JSON")
    args = parser.parse_args()
    if not (args.model or args.tokenizer):
        parser.error("give --model, --tokenizer or both")

    row, state = ROWS[args.row], None
    size = SIZES[row["size"]]
    if args.model:
        config = json.loads((args.model / "config.json").read_text())
        size = Size(*(config[key] for key in ("n_layer", "n_embd", "n_head", "vocab_size", "n_positions")))
        state = load_file(args.model / "model.safetensors")
    tokenizer = load_tokenizer(args.tokenizer or args.model)
    splits = {
        name: [(tokenizer.encode(text).ids, label) for text, label in pairs]
        for name, pairs in published_split(args.messages).items()
    }
    result = train(build(row, size, state), row, splits, tokenizer.token_to_id("<|endoftext|>"), args.epochs)
    if args.out:
        args.out.write_text(json.dumps({"row": args.row, "size": asdict(size), **asdict(result)}))
    figures = ", ".join(f"{name} {100 * value:.2f}%" for name, value in result.accuracy.items())
    print(f"row {args.row}: {figures} in {result.seconds:.1f} s")


if __name__ == "__main__":
    main()
