"""Make the built-in demo models: a small byte-level BPE and four growing GPT-2s, pretrained on short English texts.

It needs three sources on disk; nothing is downloaded here::

    apt-get download wordnet-base jargon-text     # then dpkg -x each into DEBIAN
    pip download --no-deps chatterbot-corpus==1.3.3   # then unzip into CHATTERBOT
    python benchmarks/pretrain_demo.py --debian DEBIAN --chatterbot CHATTERBOT --out src/ftkit/assets/gpt2-demo

The same seed gives the same documents and tokenizer; weights differ in the last digits between machines.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import tokenizers
import torch
import torch.nn.functional as F
import transformers
import yaml
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, get_cosine_schedule_with_warmup

from demo_corpus import demo_messages

END = "<|endoftext|>"
VOCABULARY = 2048
POSITIONS = 256
SIZES = {  # name: layers, width, heads
    "small": (4, 64, 4),
    "medium": (4, 80, 5),
    "large": (5, 80, 5),
    "xl": (6, 96, 6),
}
DOMAIN_SEEDS = range(1000, 1016)  # the demo corpus itself is seed 123
DOMAIN_MESSAGES = 4000  # for each seed
HELD_OUT = 0.02
SEED = 123
LICENCES = {
    "messages": "made up by benchmarks/demo_corpus.py, Apache-2.0",
    "wordnet": "example sentences of WordNet 3.0 (Debian wordnet-base), WordNet 3.0 licence, Princeton University",
    "jargon": "the Jargon File 4.4.7 (Debian jargon-text), public domain",
    "chatterbot": "English part of chatterbot-corpus 1.3.3 (PyPI), BSD 3-clause",
}


def read_messages() -> list[str]:
    """Return made-up messages without their labels, none of which is in the default demo corpus."""
    demo = {text for _, text in demo_messages()}
    texts = {text: None for seed in DOMAIN_SEEDS for _, text in demo_messages(DOMAIN_MESSAGES, seed)}
    return [text for text in texts if text not in demo]


def read_wordnet(debian: Path) -> Iterator[str]:
    """Yield the quoted example sentences of WordNet, without those of words marked as offensive."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (debian / f"usr/share/wordnet/data.{part}").read_text("utf-8").splitlines():
            gloss = line.partition(" | ")[2]
            if not re.search(r"offensive|slur|vulgar|obscene|derogat|disparag|sexual", gloss):
                yield from (quote for quote in re.findall(r'"([^"]+)"', gloss) if quote.count(" ") >= 2)


def read_jargon(debian: Path) -> Iterator[str]:
    """Yield the paragraphs of the Jargon File, unwrapped; indexes and headings are too short to count."""
    text = gzip.decompress((debian / "usr/share/doc/jargon-text/jargon.txt.gz").read_bytes()).decode("utf-8")
    for paragraph in re.split(r"\n\s*\n", text):
        if 60 <= len(paragraph) <= 500 and not re.search(r"https?:|-{4}|_{4}|\t", paragraph):
            yield " ".join(paragraph.split())


def read_chatterbot(folder: Path) -> Iterator[str]:
    """Yield each turn of the English conversations."""
    for file in sorted((folder / "chatterbot_corpus/data/english").glob("*.yml")):
        for conversation in yaml.safe_load(file.read_text("utf-8"))["conversations"]:
            yield from (str(turn) for turn in conversation)


def train_tokenizer(documents: list[str]) -> GPT2Tokenizer:
    """Train a byte-level BPE; as in GPT-2, ``<|endoftext|>`` has the last id."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(documents, vocab_size=VOCABULARY - 1, min_frequency=2, show_progress=False)
    model = json.loads(bpe.to_str())["model"]
    return GPT2Tokenizer(
        vocab=model["vocab"] | {END: VOCABULARY - 1},
        merges=[tuple(merge) for merge in model["merges"]],
        model_max_length=POSITIONS,
    )


def pack(documents: list[list[int]], rng: random.Random) -> tuple[Tensor, Tensor]:
    """Pack token lists into windows that start with a document and go on with others behind ``<|endoftext|>``.

    The published classifier reads the state at the last padding position, so a third of the documents come with a run
    of more ``<|endoftext|>``, mostly up to 20, sometimes up to 200: half of them at their end, half of them at a random
    place inside, as if the rest had come late. The latter teaches the states at padding to remember the text before
    them. Only the first ``<|endoftext|>`` of a run carries a loss.

    Returns:
        ``input_ids (N, 256)`` int64 and ``targets (N, 256)`` int64 with -100 where there is no loss.
    """
    end = VOCABULARY - 1
    windows, targets = [], []
    window: list[int] = []
    target: list[int] = []
    for ids in documents:
        run = rng.randint(1, rng.choices((20, 200), (9, 1))[0]) if rng.random() < 1 / 3 else 0
        at = rng.randint(1, len(ids)) if rng.random() < 1 / 2 else len(ids)
        late = [*ids[at:], end] if at < len(ids) else []
        window += [*ids[:at], end, *[end] * run, *late] if run else [*ids, end]
        target += [*ids[:at], end, *[-100] * run, *late] if run else [*ids, end]
        if len(window) > POSITIONS:
            windows.append(window[:POSITIONS])
            targets.append(target[1 : POSITIONS + 1])
            window, target = [], []
    return torch.tensor(windows), torch.tensor(targets)


def token_loss(model: GPT2LMHeadModel, ids: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats per token that carries a loss."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids, use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)


@torch.no_grad()
def validation_loss(model: GPT2LMHeadModel, ids: Tensor, targets: Tensor) -> float:
    """Return nats per token over all windows."""
    model.eval()
    total, count = 0.0, 0
    for i in range(0, len(ids), 16):
        n = int((targets[i : i + 16] != -100).sum())
        total += n * token_loss(model, ids[i : i + 16], targets[i : i + 16]).item()
        count += n
    return total / count


def unigram_loss(train_targets: Tensor, val_targets: Tensor) -> float:
    """Return the nats per token of guessing each token by its frequency in training (plus one)."""
    counts = torch.bincount(train_targets[train_targets >= 0], minlength=VOCABULARY) + 1.0
    return -(counts / counts.sum()).log()[val_targets[val_targets >= 0]].mean().item()


def pretrain(size: str, documents: list[list[int]], tokens: int, batch: int, lr: float) -> GPT2LMHeadModel:
    """Train one model on ``tokens`` positions, the documents being shuffled and packed anew in every epoch."""
    layers, width, heads = SIZES[size]
    torch.manual_seed(SEED)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=POSITIONS, n_layer=layers, n_embd=width, n_head=heads,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=VOCABULARY - 1, eos_token_id=VOCABULARY - 1,
            initializer_range=0.08,  # at these widths 0.02 wastes half of a short training on growing the weights
        )
    ).train()  # fmt: skip
    steps = tokens // (batch * POSITIONS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    step, rng = 0, random.Random(SEED)
    loss_of = torch.compile(token_loss)  # twice as fast on a CPU, after a minute or so
    while step < steps:
        ids, targets = pack(rng.sample(documents, len(documents)), rng)
        for i in range(0, len(ids) - batch + 1, batch):
            if step == steps:
                break
            loss = loss_of(model, ids[i : i + batch], targets[i : i + batch])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 1000 == 0:
                print(f"{size} step {step}/{steps} loss {loss.item():.3f}", flush=True)
    return model


CARD = """# gpt2-demo: four very small GPT-2 models

Made by `benchmarks/pretrain_demo.py` so that ftkit can show its work without a network. **For demonstration only**:
they write no sensible text and know next to nothing. English. They stand for GPT-2's small, medium, large and xl; a
figure measured with them says nothing about the real ones.

## Files
- `small/`, `medium/`, `large/`, `xl/`: transformers format (`GPT2LMHeadModel`, tied embeddings, bfloat16,
  {positions} positions, no dropout).
- `tokenizer/`: byte-level BPE with {vocabulary} tokens, the last of which is `<|endoftext|>`.
- `pretraining.json`: all figures of this page and more.

## Data
| corpus | source and licence | documents | tokens |
|---|---|---|---|
{corpora}

- `messages` is domain text: made-up short messages from the demo corpus's own generator with other seeds,
  **unlabelled**, ham and spam mixed. Every message of the demo corpus (`demo_messages()`: its training, validation and
  test messages) was left out by exact match; the phrases it is built from are of course the same. So these models
  know the demo's kind of text better than GPT-2 knows real messages.
- WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. Entries marked as offensive were left out.
- {held_out:.0%} of the documents of each corpus were held out for validation.

## Training
Windows of {positions} tokens, each beginning with a document and going on with others, separated by `<|endoftext|>`.
Because the published classifier reads the hidden state at the last padding position, a third of the documents come with
a run of up to 200 more `<|endoftext|>`, half of them at their end and half of them at a random place inside, as if the
rest had come late; only the first of a run carries a loss. AdamW, peak rate {lr}, cosine, weight decay 0.1, batch
{batch} windows, {tokens:,} positions for each model, {threads} CPU thread(s), bfloat16 autocast.

Held-out loss in nats per token, first that of guessing by token frequency:

| model | layers x width x heads | parameters | all | messages | wordnet | jargon | chatterbot | minutes |
|---|---|---|---|---|---|---|---|---|
{models}
"""


def write_card(record: dict, out: Path) -> None:
    """Write the model card from the record of the training."""
    columns = ("all", *record["corpora"])
    rows = [("unigrams", "", "", *(f"{record['unigram_loss'][name]:.2f}" for name in columns), "")]
    for size, facts in record["models"].items():
        shape = f"{facts['layers']} x {facts['width']} x {facts['heads']}"
        losses = (f"{facts['validation_loss'][name]:.2f}" for name in columns)
        rows.append((size, shape, f"{facts['parameters']:,}", *losses, f"{facts['seconds'] / 60:.1f}"))
    corpora = [
        (name, facts["licence"], f"{facts['documents']:,}", f"{facts['tokens']:,}")
        for name, facts in record["corpora"].items()
    ]
    settings = record["settings"]
    card = CARD.format(
        positions=POSITIONS,
        vocabulary=VOCABULARY,
        held_out=HELD_OUT,
        corpora="\n".join(f"| {' | '.join(row)} |" for row in corpora),
        models="\n".join(f"| {' | '.join(row)} |" for row in rows),
        **{name: settings[name] for name in ("lr", "batch", "tokens", "threads")},
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    (out / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_corpora(debian: Path, chatterbot: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the training and the held-out documents of each corpus, without repetitions, in random order."""
    sources = {
        "messages": read_messages(),
        "wordnet": read_wordnet(debian),
        "jargon": read_jargon(debian),
        "chatterbot": read_chatterbot(chatterbot),
    }
    rng = random.Random(SEED)
    train, held_out = {}, {}
    for name, texts in sources.items():
        unique = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
        rng.shuffle(unique)
        cut = math.ceil(HELD_OUT * len(unique))
        held_out[name], train[name] = unique[:cut], unique[cut:]
    return train, held_out


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--debian", type=Path, required=True, help="where the two Debian packages were unpacked")
    parser.add_argument("--chatterbot", type=Path, required=True, help="where the wheel was unpacked")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=2_500_000, help="training positions for each model")
    parser.add_argument("--batch", type=int, default=2, help="windows of 256 tokens")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    train, held_out = read_corpora(args.debian, args.chatterbot)
    tokenizer = train_tokenizer([text for texts in train.values() for text in texts])
    tokenizer.save_pretrained(args.out / "tokenizer")
    encoded = {name: tokenizer(texts)["input_ids"] for name, texts in train.items()}
    documents = [ids for corpus in encoded.values() for ids in corpus]
    windows = {name: pack(tokenizer(texts)["input_ids"], random.Random(2)) for name, texts in held_out.items()}
    windows["all"] = tuple(torch.cat(parts) for parts in zip(*windows.values(), strict=True))
    train_targets = pack(documents, random.Random(1))[1]
    record = {
        "corpora": {
            name: {
                "licence": LICENCES[name],
                "documents": len(train[name]),
                "held_out_documents": len(held_out[name]),
                "tokens": sum(map(len, encoded[name])),
            }
            for name in train
        },
        "settings": {name: getattr(args, name) for name in ("tokens", "batch", "lr", "threads")} | {"seed": SEED},
        "unigram_loss": {name: round(unigram_loss(train_targets, t), 4) for name, (_, t) in windows.items()},
        "models": {},
        "versions": {package.__name__: package.__version__ for package in (torch, transformers, tokenizers)},
    }
    print(json.dumps(record, indent=1))
    for size in args.sizes:
        layers, width, heads = SIZES[size]
        start = time.perf_counter()
        model = pretrain(size, documents, args.tokens, args.batch, args.lr)
        record["models"][size] = {
            "layers": layers,
            "width": width,
            "heads": heads,
            "parameters": model.num_parameters(),
            "seconds": round(time.perf_counter() - start, 1),
            "validation_loss": {name: round(validation_loss(model, *pair), 4) for name, pair in windows.items()},
        }
        model.to(torch.bfloat16).save_pretrained(args.out / size)
        (args.out / size / "generation_config.json").unlink()
        print(size, record["models"][size], flush=True)
        write_card(record, args.out)


if __name__ == "__main__":
    main()
