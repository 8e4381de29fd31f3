"""Classes by name, and what is said of labels that are none of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.metrics import UNPARSED
from ftkit.results.pairs import MEANING
from ftkit.results.prediction_file import ROW, PredictionFile
from ftkit.results.scan import Scan

FREQUENT = 5  # labels that are looked at where there are many


@dataclass(frozen=True)
class ClassNames:
    """Classes by name."""

    names: tuple[str, ...]  # all of them; of two the negative one first
    normalize: bool = False  # whether texts are compared as normalize spells them

    def code(self, text: str) -> int:
        """Return the place of a class among the names, from 0; -1 if the text names none.

        Example:
            >>> Classes("yes", "no").code("Yes."), Classes("yes", "no", normalize=True).code("Yes.")
            (-1, 1)
        """
        text = normalize(text) if self.normalize else text
        return self.names.index(text) if text in self.names else UNPARSED

    def answer_code(self, text: str) -> int:
        """Return the code of an answer."""
        return self.code(text)

    def normalized(self) -> ClassNames | None:
        """Return the same classes without regard to spelling; None if that makes one of two."""
        names = tuple(map(normalize, self.names))
        return ClassNames(names, True) if len(set(names)) == len(names) else None

    def __str__(self) -> str:
        return f"none of the {len(self.names)} classes"


class Classes(ClassNames):
    """Two classes, of which recall, precision and F-measure of the positive one are reported."""

    def __init__(self, positive: str, negative: str, normalize: bool = False) -> None:
        super().__init__((negative, positive), normalize)

    @property
    def positive(self) -> str:
        """The positive class, whose code is 1."""
        return self.names[1]

    @property
    def negative(self) -> str:
        """The other one, whose code is 0."""
        return self.names[0]

    def answer_code(self, text: str) -> int:
        """Return the code of an answer, which may also say the class in another word: true or 1 for yes.

        Labels are never read so, since a file may tell 1 from yes. Without ``normalize`` it is :meth:`code`.

        Example:
            >>> Classes("yes", "no", normalize=True).answer_code("True"), Classes("yes", "no").answer_code("True")
            (1, -1)
        """
        code = self.code(text)
        if code != UNPARSED or not self.normalize:
            return code
        meant = MEANING.get(normalize(text))
        said = [MEANING.get(self.negative), MEANING.get(self.positive)]
        return said.index(meant) if meant is not None and set(said) == {0, 1} else UNPARSED

    def normalized(self) -> Classes | None:
        """Return the same classes without regard to spelling; None if that leaves one."""
        found = super().normalized()
        return None if found is None else Classes(found.names[1], found.names[0], True)

    def __str__(self) -> str:
        return f"neither {self.positive} nor {self.negative}"


def counted(scans: Iterable[Scan], clean: Callable[[str], str]) -> tuple[Counter[str], Counter[str]]:
    """Return how often each label and each answer comes in all files."""
    totals, answers = Counter[str](), Counter[str]()
    for one in scans:
        labels, predictions = one.counted(clean)
        totals.update(labels)
        answers.update(predictions)
    return totals, answers


def merged_labels(one: Scan) -> list[str]:
    """Say which labels of a file are read as one class when spelling is ignored."""
    spellings = defaultdict(set)
    for text in one.labels:
        spellings[normalize(text)].add(text)
    return [
        f"the labels {', '.join(map(repr, sorted(texts)))} are read as one class"
        for texts in spellings.values()
        if len(texts) > 1
    ]


def no_positive(path: Path, positive: str, names: Sequence[str]) -> InputError:
    """Return the error of a positive class that is none of the names."""
    fix = f"use {' or '.join(names[:FREQUENT])}{_or_normalize(positive, names)}"
    return InputError("no label is the positive class", file=path, field="positive", got=positive, fix=fix)


def unknown_label(
    scans: Sequence[Scan],
    clean: Callable[[str], str],
    allowed: set[str],
    problem: str = "unknown label",
    more: str = "",
) -> InputError:
    """Return the error of the first label that is none of the allowed ones, with its line and ``more`` advice."""
    unknown = ((one, code, text) for one in scans for code, text in enumerate(one.labels) if clean(text) not in allowed)
    one, code, text = next(unknown)
    file = PredictionFile(one.path)
    (first,) = file.examples([int(np.argmax(one.label == code))])
    fix = f"use {' or '.join(sorted(allowed))}{_or_normalize(text, allowed) or more}"
    return file.error(first[ROW], problem, field="label", got=text, fix=fix)


def _or_normalize(text: str, allowed: Iterable[str]) -> str:
    """Return what to add to advice where a text is right but for its spelling."""
    helps = normalize(text) in map(normalize, allowed)
    return ", or give --normalize-labels to ignore how labels are spelled" if helps else ""
