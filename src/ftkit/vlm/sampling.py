"""Choose training examples for a yes/no question: by the ratio of yes to no, and by an earlier model's outcomes.

With a few dozen examples, tuning mostly moves the threshold at which a model says yes, and the choice decides how far.
A practitioner's recipes, of 64 examples each, are these options of the data module::

    {sample: 64, ratio: [1, 1]}  # or [2, 1], [1, 2]
    {sample: 64, outcomes: FILE, keep: [fp, fn, neither]}  # false answers
    {sample: 64, outcomes: FILE, keep: [fp, fn, neither, tn]}  # no true positives
"""

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath

from ftkit.errors import InputError
from ftkit.results.classes import Classes
from ftkit.results.predictions import read_predictions

YES_NO = Classes("yes", "no", normalize=True)
OUTCOMES = frozenset(("tp", "tn", "fp", "fn", "neither"))
_SHOWN = 5


def outcome(label: str, answer: str, classes: Classes = YES_NO) -> str:
    """Return ``tp``, ``tn``, ``fp``, ``fn``, or ``neither`` for an answer that names no class.

    Raises:
        InputError: The label names no class.

    Example:
        >>> [outcome("no", answer) for answer in ("no", "Yes.", "I cannot say")]
        ['tn', 'fp', 'neither']
    """
    target, code = _class_of(label, classes), classes.answer_code(answer)
    if code not in (0, 1):
        return "neither"
    return f"{'t' if code == target else 'f'}{'p' if code else 'n'}"


def read_outcomes(path: str | Path, classes: Classes = YES_NO) -> dict[str, str]:
    """Read the outcome of each labelled example of a prediction file.

    Returns:
        Outcomes by id; and by the path of the image, where the file has one and it tells examples apart.

    Raises:
        InputError: The file is not a prediction file, or a label names neither class.
    """
    found = read_predictions(path)
    by_id, by_image = dict[str, str](), defaultdict[str, set[str]](set)
    images: Sequence[str | None] = found.extra.get("image", [*found.ids])
    try:
        for identity, image, label, answer in zip(found.ids, images, found.labels, found.predictions, strict=True):
            if label and label.strip():
                by_id[identity] = outcome(label, answer or "", classes)
                by_image[PurePath(image or identity).as_posix()].add(by_id[identity])
    except InputError as error:
        raise InputError(str(error), file=path) from error
    return {image: next(iter(results)) for image, results in by_image.items() if len(results) == 1} | by_id


def outcomes_of_examples(
    ids: Sequence[str], labels: Sequence[str], by_id: Mapping[str, str], classes: Classes = YES_NO
) -> list[str]:
    """Return the outcome of each training example, by its id or another key of :func:`read_outcomes`.

    Raises:
        InputError: An example has no outcome, or its label is not the one that the outcome was judged by.
    """
    unknown = [identity for identity in ids if identity not in by_id]
    if unknown:
        raise InputError(
            f"{len(unknown):,} of {len(ids):,} examples are not in the prediction file",
            field="id",
            got=", ".join(unknown[:_SHOWN]),
            fix="predict these examples first, with the same ids or paths of images",
        )
    found = [by_id[identity] for identity in ids]
    for identity, label, result in zip(ids, labels, found, strict=True):
        if result != "neither" and (result in ("tp", "fn")) != _class_of(label, classes):
            raise InputError(
                f"the prediction file has another label for {identity}: its outcome is {result}",
                field="label",
                got=label,
                fix="use the prediction file of these examples",
            )
    return found


def sample_examples(
    labels: Sequence[str],
    sample: int,
    seed: int,
    ratio: tuple[int, int] | None = None,
    outcomes: Sequence[str] | None = None,
    keep: Collection[str] = OUTCOMES,
    classes: Classes = YES_NO,
) -> list[int]:
    """Draw examples without replacement; return their places in ``labels``, in random order.

    For the same seed a larger draw contains a smaller one, so that a run with more examples only adds some.

    Args:
        labels: The examples' true classes.
        sample: How many examples to draw.
        seed: Decides which.
        ratio: Positives to negatives, such as ``(2, 1)``; None draws from all examples alike.
        outcomes: The outcome of each example with an earlier model; needed for ``keep``.
        keep: Only examples with these outcomes are drawn.
        classes: The two classes.

    Raises:
        InputError: There are too few examples; the message says how many there are.
    """
    _check(ratio, outcomes, keep)
    kept = [example for example in range(len(labels)) if outcomes is None or outcomes[example] in keep]
    targets = {example: _class_of(labels[example], classes) for example in kept}
    if ratio is None:
        groups = [(kept, sample, "")]
    else:
        positives = round(sample * ratio[0] / sum(ratio))
        groups = [
            ([example for example in kept if targets[example]], positives, classes.positive),
            ([example for example in kept if not targets[example]], sample - positives, classes.negative),
        ]
    drawn = []
    for examples, wanted, name in groups:
        if wanted > len(examples):
            raise _too_few(wanted, name, len(examples), None if outcomes is None else Counter(outcomes), keep)
        random.Random(f"{seed} {name}").shuffle(examples)
        drawn += examples[:wanted]
    random.Random(seed).shuffle(drawn)
    return drawn


def _check(ratio: tuple[int, int] | None, outcomes: Sequence[str] | None, keep: Collection[str]) -> None:
    if ratio is not None and (min(ratio) < 0 or sum(ratio) == 0):
        raise InputError("must be two numbers, none negative and not both 0", field="ratio", got=ratio)
    if not keep:
        raise InputError("there is no outcome to draw from", field="keep", fix="leave it out, or name some")
    if unknown := set(keep) - OUTCOMES:
        raise InputError("no such outcome", field="keep", got=sorted(unknown), fix=f"use {', '.join(sorted(OUTCOMES))}")
    if outcomes is None and set(keep) != OUTCOMES:
        raise InputError(
            "examples can be chosen by outcome only with a prediction file", field="keep", got=sorted(keep)
        )


def _class_of(label: str, classes: Classes) -> int:
    code = classes.code(label)
    if code not in (0, 1):
        raise InputError(
            "the label names neither class",
            field="label",
            got=label,
            fix=f"use {classes.positive} or {classes.negative}",
        )
    return code


def _too_few(wanted: int, name: str, found: int, outcomes: Counter[str] | None, keep: Collection[str]) -> InputError:
    which = f' labelled "{name}"' if name else ""
    if outcomes is not None:
        which += f" with the outcome {' or '.join(sorted(keep))}"
    counts = (
        "" if outcomes is None else f" (all examples: {', '.join(f'{outcomes[o]:,} {o}' for o in sorted(OUTCOMES))})"
    )
    return InputError(
        f"{wanted:,} examples{which} are requested, but there are {found:,}{counts}",
        field="sample",
        fix="draw fewer, use another ratio, or keep more outcomes",
    )
