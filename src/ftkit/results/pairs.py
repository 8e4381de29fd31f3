"""Names of classes that come in pairs, and which one of a pair is the positive one."""

# ruff: noqa: RUF001
import re
from collections import Counter
from collections.abc import Iterable

from ftkit.normalize import normalize

# Positive first, normalized: answers to a question, names that no third class has, and words that are rarely alone.
_ANSWERS = (
    ("yes", "no"), ("true", "false"), ("oui", "non"), ("ja", "nein"), ("sí", "no"), ("si", "no"), ("sì", "no"),
    ("sim", "não"), ("sim", "nao"), ("はい", "いいえ"), ("да", "нет"), ("так", "ні"), ("да", "не"), ("da", "ne"),
    ("da", "nu"), ("ja", "nee"), ("ja", "nej"), ("ja", "nei"), ("tak", "nie"), ("ano", "ne"), ("áno", "nie"),
    ("kyllä", "ei"), ("jah", "ei"), ("igen", "nem"), ("evet", "hayır"), ("bai", "ez"), ("ναι", "όχι"), ("نعم", "لا"),
    ("بله", "خیر"), ("כן", "לא"), ("हाँ", "नहीं"), ("हां", "नहीं"), ("是", "否"), ("是", "不是"), ("是的", "不是"),
    ("예", "아니요"), ("예", "아니오"), ("네", "아니요"), ("네", "아니오"), ("ya", "tidak"), ("có", "không"),
    ("ใช่", "ไม่ใช่"), ("vrai", "faux"), ("wahr", "falsch"), ("richtig", "falsch"), ("verdadero", "falso"),
    ("verdadeiro", "falso"), ("vero", "falso"), ("waar", "onwaar"), ("prawda", "fałsz"), ("верно", "неверно"),
    ("истина", "ложь"), ("правда", "ложь"), ("真", "假"), ("真", "偽"), ("对", "错"), ("참", "거짓"), ("y", "n"),
    ("t", "f"),
)  # fmt: skip
_CLASSES = (
    ("1", "0"), ("1", "-1"), ("+", "-"), ("spam", "ham"), ("positive", "negative"), ("pos", "neg"),
    ("positif", "négatif"), ("positiv", "negativ"), ("positivo", "negativo"), ("positiva", "negativa"),
    ("positief", "negatief"), ("pozytywny", "negatywny"), ("положительный", "отрицательный"),
    ("позитивный", "негативный"), ("позитив", "негатив"), ("ポジティブ", "ネガティブ"), ("肯定", "否定"),
    ("陽性", "陰性"), ("阳性", "阴性"), ("正面", "负面"), ("积极", "消极"), ("긍정", "부정"), ("양성", "음성"),
    ("إيجابي", "سلبي"),
)  # fmt: skip
_DESCRIPTIONS = (
    ("correct", "incorrect"), ("right", "wrong"), ("relevant", "irrelevant"),
    ("present", "absent"), ("approve", "reject"), ("approved", "rejected"), ("accept", "reject"),
    ("accepted", "rejected"), ("malignant", "benign"), ("abnormal", "normal"), ("fraud", "legitimate"),
)  # fmt: skip
_PAIRS = (*_ANSWERS, *_CLASSES, *_DESCRIPTIONS)
_FAMILIAR = frozenset(word for pair in (*_ANSWERS, *_CLASSES) for word in pair)
# One answer in many words: 1 for yes, 0 for no.
MEANING = dict.fromkeys(("yes", "true", "1", "y", "t", "label_1"), 1)
MEANING |= dict.fromkeys(("no", "false", "0", "n", "f", "label_0"), 0)
_NUMBERED = re.compile(r"(.*\D)([01])", re.DOTALL)  # LABEL_1 and LABEL_0, class 1 and class 0
_NEGATED = re.compile(r"(?:(?:not|no)[\s_-]+|non[\s_-]*|nicht[\s_-]+|не[\s_-]+|非|不)(.+)", re.DOTALL)


def positive_of(first: str, second: str) -> str | None:
    """Return the one of two classes that is usually the positive one; None if nothing says so.

    Example:
        >>> positive_of("0.0", "1.0"), positive_of("Oui", "Non"), positive_of("LABEL_0", "LABEL_1")
        ('1.0', 'Oui', 'LABEL_1')
        >>> positive_of("not toxic", "toxic"), positive_of("cat", "dog")
        ('toxic', None)
    """
    if _is_positive(normalize(first), normalize(second)):
        return first
    return second if _is_positive(normalize(second), normalize(first)) else None


def opposite(name: str) -> str | None:
    """Return the usual name of the other class, written alike; None where there is none.

    Example:
        >>> [opposite(name) for name in ("yes", "No", "1.0", "LABEL_1", "cat")]
        ['no', 'Yes', '0.0', 'LABEL_0', None]
    """
    word = normalize(name)
    for positive, negative in _PAIRS:
        if word in (positive, negative):
            return _written_like(negative if word == positive else positive, name)
    if numbered := _NUMBERED.fullmatch(name):
        return numbered[1] + ("0" if numbered[2] == "1" else "1")
    return None


def is_paired(name: str) -> bool:
    """Return whether a name alone says that it is one of two; a letter says too little."""
    word = normalize(name)
    return word in _FAMILIAR and (len(word) > 1 or not word.isalpha() or not word.isascii())


def answer_words(answers: Iterable[str]) -> tuple[str, str]:
    """Return the words for yes and no that most of the answers are, as they write them; ``yes`` and ``no`` if none is.

    Example:
        >>> answer_words(["Yes", "I see a cat", "Yes."]), answer_words(["non", "non"])
        (('Yes', 'No'), ('oui', 'non'))
    """
    found = Counter(answers)
    words = Counter[str]()
    for text, count in found.items():
        words[normalize(text)] += count
    pair = max(_ANSWERS, key=lambda pair: words[pair[0]] + words[pair[1]])
    # Written without full stops and the like.
    written = {text.casefold(): text for text, _ in reversed(found.most_common()) if text.casefold() in pair}
    positive, negative = (written.get(word) for word in pair)
    return (
        positive or (_written_like(pair[0], negative) if negative else pair[0]),
        negative or (_written_like(pair[1], positive) if positive else pair[1]),
    )


def _is_positive(word: str, other: str) -> bool:
    if (word, other) in _PAIRS:
        return True
    one, zero = _NUMBERED.fullmatch(word), _NUMBERED.fullmatch(other)
    if one and zero:
        return one[1] == zero[1] and one[2] > zero[2]
    negated = _NEGATED.fullmatch(other)
    return negated is not None and normalize(negated[1]) == word


def _written_like(word: str, example: str) -> str:
    if "." in example and word in ("0", "1", "-1"):
        return f"{word}.0"
    return word.upper() if len(example) > 1 and example.isupper() else word.title() if example.istitle() else word
