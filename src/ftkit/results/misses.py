"""Why free texts are wrong: answers that are right but for their spelling, or but for the same text around each."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ftkit.normalize import normalize

_DIFFERENT = 1_000  # surroundings that are counted
_SHORTEST = 4  # characters around an answer; fewer may be part of it
_SHOWN = 40


@dataclass
class Misses:
    """Counts wrong answers that say the expected text all the same.

    Example:
        >>> misses = Misses()
        >>> misses.add([("blue", "Blue."), ("red", "[INST] red [/INST]"), ("green", "yellow")])
        >>> misses.nearly, dict(misses.around), misses.total
        (1, {('[INST] ', ' [/INST]'): 1}, 3)
    """

    nearly: int = 0  # those that normalize makes right
    # Of the others, how often the expected text stands between the same two texts.
    around: Counter[tuple[str, str]] = field(default_factory=Counter)
    total: int = 0  # all wrong answers

    def add(self, wrong: Iterable[tuple[str, str]]) -> None:
        """Look at pairs of a label and a wrong answer."""
        for label, answer in wrong:
            self.total += 1
            if normalize(label) == normalize(answer):
                self.nearly += 1
            elif (found := _around(label, answer)) and (found in self.around or len(self.around) < _DIFFERENT):
                self.around[found] += 1

    def warnings(self, normalized: bool) -> list[str]:
        """Say what makes many answers wrong that are right otherwise."""
        found = []
        if self.nearly and not normalized:
            found.append(
                f"{self.nearly:,} of {self.total:,} wrong answers are right but for their spelling (case, blanks, "
                "punctuation, marks of a chat template); --normalize-labels counts them as right."
            )
        ((before, after), count), *_ = [*self.around.most_common(1), (("", ""), 0)]
        if count > 1 and count >= self.total / 2:
            sides = ((before, "before"), (after, "behind"))
            shown = ((text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...", side) for text, side in sides if text)
            said = " and ".join(f"{text!r} {side} it" for text, side in shown)
            found.append(f"{count:,} of {self.total:,} wrong answers hold the expected text, each with {said}.")
        return found


def _around(label: str, answer: str) -> tuple[str, str] | None:
    """Return what stands around the label in an answer; None where it is no word or sentence of its own there."""
    before, found, after = answer.partition(label) if label else ("", "", "")
    if not found or len(before) + len(after) < _SHORTEST or before[-1:].isalnum() or after[:1].isalnum():
        return None
    return before, after
