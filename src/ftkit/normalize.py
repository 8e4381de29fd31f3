"""One spelling for labels and answers that differ only in how they were typed, the same wherever ftkit reads one."""

import re
import unicodedata
from decimal import Context, Decimal

# What chat templates write around an answer: marks of turns, and a thought, which may be empty.
_MARK = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:bos|eos|pad)>|<(?:start|end)_of_(?:turn|utterance)>")
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_LONGEST_MARK = 44
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,4})?")
_EXACT = Context(prec=10**6, Emax=10**7, Emin=-(10**7))
_PLAIN_DIGITS = 20  # larger and smaller numbers are written with an exponent
_DASHES = "-\u2010\u2012\u2013\u2014\u2015\u2022"  # and the bullet
_EMPHASIS = "*_`~"
# These tell names apart (C and C#, 5 and 5%, A and A-), and U+2026 says that an answer goes on.
_KEPT = frozenset("#%&@/\\*-_\u2010\u2030\u2031\u066a\u2020\u2021\xa7\xb6\u2032\u2033\u2034\u2026")
_AROUND = frozenset({"Ps", "Pe", "Pi", "Pf", "Po", "Pd", "Pc", "Zs", "Cc", "Cf"})


def normalize(text: str) -> str:
    r"""Return the one spelling that stands for all ways to type a label or an answer.

    Ignored are case, the width and form of letters (NFKC), surrounding punctuation of any script, white space around
    and the amount of it inside, emphasis such as ``**yes**``, how a number is written, and what a chat template puts
    around an answer (``<think></think>``, ``<|im_end|>``). Kept is what tells names apart: a sign, ``#``, ``%``, a dash
    or a star that touches a word on one side, and the ``…`` of an unfinished answer. Punctuation alone stays as it is.

    Example:
        >>> [normalize(text) for text in (" Yes. ", "\uff59es\uff01", "«да»", "**yes**", "はい。", "1.0", "A-", "!")]
        ['yes', 'yes', 'да', 'yes', 'はい', '1', 'a-', '!']
    """
    if text.isascii() and text.isalpha():
        return text.lower()
    while (simpler := _simplified(text)) != text:
        text = simpler
    return text


def _simplified(text: str) -> str:
    if not text.isascii():
        # NFKC would turn the mark of an unfinished answer into three full stops.
        text = "…".join(unicodedata.normalize("NFKC", part) for part in text.replace("\u2212", "-").split("…"))
    text = " ".join(text.casefold().split())
    if not _NUMBER.fullmatch(text):
        start, end = _core(text)
        return text[start:end] if start < end else text
    value = Decimal(text).normalize(_EXACT)
    if not value:
        return "0"
    return f"{value:f}" if abs(value.adjusted()) < _PLAIN_DIGITS else str(value).lower()


def _core(text: str) -> tuple[int, int]:
    """Return start and end of the word or sentence inside its punctuation; the same place twice if there is none."""
    start, end = 0, len(text)
    while start < end:
        first, last = text[start], text[end - 1]
        if _is_around(first, second := text[start + 1 : start + 2]) and not (first == "." and second.isdecimal()):
            start += 1
        elif _is_around(last, text[end - 2 : end - 1]):
            end -= 1
        elif first == "<" and (mark := _MARK.match(text, start, end) or _THOUGHT.match(text, start, end)):
            start = mark.end()
        elif last == ">" and _MARK.fullmatch(text, opened := _last_opened(text, start, end), end):
            end = opened
        elif first == last and first in _EMPHASIS and end - start > 2:
            start, end = start + 1, end - 1
        else:
            break
    return start, end


def _is_around(letter: str, neighbor: str) -> bool:
    """Return whether a first or last letter says nothing about the word that its neighbor belongs to."""
    if letter in _KEPT:
        return letter in _DASHES and neighbor.isspace()
    return letter == "\u2022" or unicodedata.category(letter) in _AROUND


def _last_opened(text: str, start: int, end: int) -> int:
    return max(start, text.rfind("<", max(start, end - _LONGEST_MARK), end))
