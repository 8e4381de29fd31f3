"""Synthetic arithmetic: seeded problems whose operands in validation and test never occur in training."""

import hashlib
import operator
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, Literal

import numpy as np

from ftkit.errors import InputError, at_least
from ftkit.examples.prompt_style import asked, spaced
from ftkit.examples.reader import Example
from ftkit.language.data import LanguageDataModule
from ftkit.run_folder import SplitName

Operation = Literal["+", "-", "*"]
_TENTHS = (*["train"] * 8, "val", "test")  # of the pairs of operands
_RESULTS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_PATIENCE = 200  # draws for each problem asked for


@dataclass(frozen=True)
class Problem:
    """Two whole numbers and an operation.

    Example:
        >>> problem = Problem(47, "+", -5)
        >>> problem.question, problem.answer, problem.columns
        ('47 + -5', '42', {'operation': '+', 'length': '2', 'carry': 'no', 'negative': 'yes'})
    """

    first: int
    operation: Operation
    second: int

    @property
    def question(self) -> str:
        """Return the problem as it is written."""
        return f"{self.first} {self.operation} {self.second}"

    @property
    def answer(self) -> str:
        """Return its result."""
        return str(_RESULTS[self.operation](self.first, self.second))

    @property
    def carries(self) -> bool:
        """Return whether the written calculation has a carry, or a borrow where magnitudes are subtracted."""
        first, second = abs(self.first), abs(self.second)
        digits, others = ([int(digit) for digit in reversed(str(number))] for number in (first, second))
        if self.operation == "*":
            return bool(max(np.convolve(digits, others)) > 9)  # sums of the columns of a long multiplication
        pairs = list(zip_longest(digits, others, fillvalue=0))
        if (self.operation == "+") == ((self.first < 0) == (self.second < 0)):  # the magnitudes are added
            return any(a + b > 9 for a, b in pairs)
        return any(a < b if first >= second else b < a for a, b in pairs)

    @property
    def columns(self) -> dict[str, str]:
        """Return what results are sliced by: operation, digits of the longer operand, carry, a minus sign anywhere."""
        return {
            "operation": self.operation,
            "length": str(max(len(str(abs(self.first))), len(str(abs(self.second))))),
            "carry": "yes" if self.carries else "no",
            "negative": "yes" if "-" in f"{self.first}{self.second}{self.answer}" else "no",
        }


class ArithmeticDataModule(LanguageDataModule):
    """Arithmetic problems such as ``1 + 1 =``, made from a seed.

    A pair of operands, in whatever order and with whatever signs, belongs to one split only, for all operations. The
    problems of a smaller ``train_size`` are the first of a larger one's; validation and test do not depend on it.

    Args:
        train_size: Number of training problems.
        val_size: Number of validation problems; 0 for none.
        test_size: Number of test problems.
        operations: Which operations there are, equally often.
        digits: Largest number of digits of an operand; each number of digits comes equally often.
        negative: Whether an operand can be negative, every second one then.
        carry: Only problems with (true) or without (false) a carry or borrow; null takes both.
        spaced_digits: Write ``4 7 + 5`` for ``47 + 5``, where a tokenizer takes some digits together and others not.
        prompt_style: How a question becomes a prompt, with ``{question}`` in it; kept with the model, as is
            ``spaced_digits``.
        data_seed: Seed of the problems.
        **options: See :class:`ftkit.language.data.LanguageDataModule`.

    Raises:
        InputError: An argument makes no sense, or there are not so many problems.
    """

    def __init__(
        self,
        train_size: int = 1000,
        val_size: int = 200,
        test_size: int = 500,
        operations: Sequence[Operation] = ("+", "-"),
        digits: int = 2,
        negative: bool = False,
        carry: bool | None = None,
        spaced_digits: bool = False,
        prompt_style: str = "{question} =",
        data_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.sizes: dict[SplitName, int] = {"train": train_size, "val": val_size, "test": test_size}
        self.operations, self.digits = tuple(operations), digits
        self.negative, self.carry = negative, carry
        self.spaced_digits = spaced_digits
        self.prompt_style: str = prompt_style
        self.data_seed = data_seed
        at_least(1, train_size=train_size, test_size=test_size, digits=digits)
        at_least(0, val_size=val_size)
        if not operations or len(set(operations)) < len(operations):
            raise InputError("name one or more operations, each once", field="operations", got=list(operations))
        if prompt_style.count("{question}") != 1:
            raise InputError("must hold {question} once", field="prompt_style", got=prompt_style)
        self._problems: dict[SplitName, list[Problem]] = {}

    @property
    def source(self) -> str:
        """Return the problems in words."""
        signs = ", also negative" if self.negative else ""
        carry = {None: "", True: ", with carry", False: ", without carry"}[self.carry]
        return f"made-up arithmetic {' '.join(self.operations)}, {self.digits} digits at most{signs}{carry}"

    def examples(self, split: SplitName) -> list[Example]:
        """Return the problems of a split as examples."""
        return [
            Example(
                id=f"{split}-{number:05d}",
                prompt=asked(problem.question, self.prompt_style, self.spaced_digits),
                completion=f" {spaced(problem.answer) if self.spaced_digits else problem.answer}",
                columns=problem.columns,
            )
            for number, problem in enumerate(self.problems(split))
        ]

    def problems(self, split: SplitName) -> list[Problem]:
        """Return the problems of a split, no two the same.

        Raises:
            InputError: There are not so many.
        """
        if split not in self._problems:
            found: dict[Problem, None] = {}
            for problem in islice(self._draws(split), self.sizes[split] * _PATIENCE):
                if split_of(problem.first, problem.second, self.data_seed) == split:
                    if self.carry in (None, problem.carries):
                        found.setdefault(problem)
                    if len(found) == self.sizes[split]:
                        break
            if len(found) < self.sizes[split]:
                raise InputError(
                    f"there are only about {len(found)} problems of this kind for {split}",
                    field=f"{split}_size",
                    got=self.sizes[split],
                    fix="ask for fewer, or for more digits",
                )
            self._problems[split] = list(found)
        return self._problems[split]

    def _draws(self, split: SplitName) -> Iterator[Problem]:
        """Yield problems without end, from a generator of the split's own."""
        numbers = random.Random(f"{self.data_seed} {split}")
        while True:
            yield Problem(self._operand(numbers), numbers.choice(self.operations), self._operand(numbers))

    def _operand(self, numbers: random.Random) -> int:
        length = numbers.randint(1, self.digits)
        magnitude = numbers.randrange(0 if length == 1 else 10 ** (length - 1), 10**length)
        return -magnitude if self.negative and numbers.random() < 0.5 else magnitude


def split_of(first: int, second: int, seed: int = 0) -> str:
    """Return the split that a pair of operands belongs to, whatever their order and signs."""
    pair = sorted((abs(first), abs(second)))
    place = int.from_bytes(hashlib.sha256(f"{seed} {pair}".encode()).digest()[:4], "big") % len(_TENTHS)
    return _TENTHS[place]
