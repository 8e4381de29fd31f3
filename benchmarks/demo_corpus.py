"""Write made-up short messages, ham and spam, by the grammar in ``demo-corpus``.

    python benchmarks/demo_corpus.py > src/ftkit/assets/demo-messages.tsv

writes the demo messages that ftkit ships. They stand in for the SMS Spam Collection where nothing can be downloaded. No
message was ever sent by anybody, and a figure measured on them says nothing about real spam.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from random import Random

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\(([^()]*)\)")
_DIGIT = re.compile(r"[#^]")
_NOT_LETTERS = re.compile(r"[^a-z]+")
_SMS_CHARACTERS = 160
_AMBIGUOUS_SHARE = 0.03

_ABBREVIATIONS = {
    "you": "u", "your": "ur", "are": "r", "to": "2", "for": "4", "please": "pls", "tomorrow": "tmrw",
    "tonight": "2nite", "thanks": "thx", "and": "n", "see": "c", "be": "b", "with": "wiv", "what": "wot",
    "love": "luv", "because": "cos", "text": "txt", "message": "msg", "the": "da", "have": "hav", "great": "gr8",
    "before": "b4", "when": "wen", "that": "dat", "later": "l8r", "about": "bout", "just": "jus", "okay": "k",
    "ok": "k", "good": "gd", "people": "ppl", "week": "wk", "going": "goin", "today": "2day", "back": "bk",
    "how": "hw", "now": "nw", "not": "nt", "from": "frm", "will": "wil",
}  # fmt: skip
_ENDINGS = (".", ".", ".", "", "!", "!!", "..", "...", " :-)", " x")
_JOINTS = (". ", ". ", ", ", "! ", " ", "... ", " - ", ".. ", "\u2026 ", " & ")


def demo_messages(n: int = 1494, seed: int = 123) -> list[tuple[str, str]]:
    """Write ``n`` made-up messages, half of them spam.

    About one message in thirty comes from templates that stand on both sides, so that nobody can sort all of them.

    Args:
        n: How many messages; with an odd number the extra one is ham. Meant for 2 to 5,000, works for more.
        seed: The same seed and number always give the same messages, on every machine.

    Returns:
        ``(label, text)`` pairs in random order; label is ``"ham"`` or ``"spam"``. No two texts are equal, even if case,
        digits and punctuation are left out.

    Example:
        >>> messages = demo_messages(4)
        >>> sorted(label for label, _ in messages)
        ['ham', 'ham', 'spam', 'spam']
    """
    rng = Random(seed)
    seen: set[str] = set()
    messages = [("ham", _new_text(_ham, rng, seen)) for _ in range(n - n // 2)]
    messages += [("spam", _new_text(_spam, rng, seen)) for _ in range(n // 2)]
    rng.shuffle(messages)
    return messages


@cache
def templates(name: str) -> dict[str, tuple[str, ...]]:
    """Read a file of the grammar, whose notation is described in ``slots.txt``.

    Args:
        name: ``ham`` or ``spam``, by topic; ``both``: openers, neutral and ambiguous sentences; or ``slots``.

    Returns:
        The lines of each section, without comments and blank lines.

    Example:
        >>> templates("slots")["short"]
        ('0555#', '0556#', '0557#')
    """
    text = (Path(__file__).parent / "demo-corpus" / f"{name}.txt").read_text(encoding="utf-8")
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            lines = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("# "):
            lines.append(line)
    return {section: tuple(lines) for section, lines in sections.items()}


def _new_text(write: Callable[[Random], list[str]], rng: Random, seen: set[str]) -> str:
    while True:
        text = _scribble([_expand(sentence, rng) for sentence in write(rng)], rng)
        key = _NOT_LETTERS.sub("", text.lower())
        if key not in seen and " " in text and len(text) <= _SMS_CHARACTERS:
            seen.add(key)
            return text


def _ham(rng: Random) -> list[str]:
    """Choose the templates of a genuine message, one for each sentence."""
    if rng.random() < _AMBIGUOUS_SHARE:
        return [rng.choice(templates("both")["ambiguous"])]
    return _greet(_insert_neutral(_on_one_topic(templates("ham"), rng), rng), rng)


def _spam(rng: Random) -> list[str]:
    """Choose the templates of an unsolicited message; one in five begins like a genuine one."""
    if rng.random() < _AMBIGUOUS_SHARE:
        return [rng.choice(templates("both")["ambiguous"])]
    body = _on_one_topic(templates("spam"), rng)
    if rng.random() < 0.2:
        ham = templates("ham")
        body.insert(0, rng.choice(ham[rng.choice(list(ham))]))
    return _greet(_insert_neutral(body, rng), rng)


def _on_one_topic(topics: dict[str, tuple[str, ...]], rng: Random) -> list[str]:
    sentences = topics[rng.choice(list(topics))]
    return rng.sample(sentences, rng.choices((1, 2, 3), (0.35, 0.45, 0.2))[0])


def _insert_neutral(body: list[str], rng: Random) -> list[str]:
    """Put no, one or two sentences of small talk anywhere into ``body``."""
    for _ in range(rng.choices((0, 1, 2), (0.55, 0.3, 0.15))[0]):
        body.insert(rng.randint(0, len(body)), rng.choice(templates("both")["neutral"]))
    return body


def _greet(body: list[str], rng: Random) -> list[str]:
    if rng.random() < 0.5:
        openers = templates("both")["openers"]
        body[0] = f"{rng.choice(openers)} {body[0]}"
    if rng.random() < 0.25:
        body.append("{bye}")
    return body


def _expand(template: str, rng: Random) -> str:
    """Turn a template into plain words: choices and slots first, from the inside out, then digits."""
    text = template
    while _CHOICE.search(text) or _SLOT.search(text):
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
        text = _SLOT.sub(lambda match: rng.choice(templates("slots")[match[1]]), text)
    text = _DIGIT.sub(lambda match: str(rng.randint(match[0] == "^", 9)), text)
    return " ".join(text.split()).replace(" ,", ",").replace(" !", "!").replace(" .", ".")


def _scribble(sentences: list[str], rng: Random) -> str:
    """Join sentences as one writer types: abbreviations, typos, case and punctuation differ from writer to writer."""
    abbreviate = rng.choice((0.0, 0.0, 0.1, 0.3, 0.6))
    typo = rng.choice((0.0, 0.0, 0.01, 0.03, 0.06))
    capitalise = rng.random() < 0.6
    joint = rng.choice(_JOINTS)
    written = []
    for sentence in sentences:
        words = [_mistype(_shorten(word, abbreviate, rng), typo, rng) for word in sentence.split()]
        line = " ".join(words)
        written.append(line[0].upper() + line[1:] if capitalise else line)
    text = "".join(line + _joint(line, joint, rng) for line in written[:-1]) + written[-1]
    text = _change_case(text.rstrip(",:"), rng)
    return text if text[-1] in "?!.x" else text + rng.choice(_ENDINGS)


def _joint(line: str, usual: str, rng: Random) -> str:
    if line[-1] in "?!.:,":
        return " "
    return usual if rng.random() < 0.7 else rng.choice(_JOINTS)


def _change_case(text: str, rng: Random) -> str:
    kind = rng.random()
    if kind < 0.12:
        return text.lower()
    if kind < 0.15:
        return text.upper()
    if kind < 0.30:  # one word is shouted
        words = text.split(" ")
        place = rng.randrange(len(words))
        words[place] = words[place].upper()
        return " ".join(words)
    return text


def _shorten(word: str, chance: float, rng: Random) -> str:
    short = _ABBREVIATIONS.get(word.strip(",.!?").lower())
    if short and rng.random() < chance:
        return word.lower().replace(word.strip(",.!?").lower(), short)
    if "'" in word and rng.random() < chance:
        return word.replace("'", "")
    return word


def _mistype(word: str, chance: float, rng: Random) -> str:
    """Swap, drop or double a letter of a long word; numbers and web addresses stay as they are."""
    if rng.random() >= chance or len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    return rng.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        )
    )


def as_tsv(messages: Iterable[tuple[str, str]]) -> str:
    """Return messages as a file of ``label<TAB>text`` lines."""
    return "".join(f"{label}\t{text}\n" for label, text in messages)


if __name__ == "__main__":
    sys.stdout.buffer.write(as_tsv(demo_messages()).encode())
