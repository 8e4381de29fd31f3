"""Duplicates of examples: against a slow comparison of all pairs, planted in real messages, and in pictures."""

import itertools
import random
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.examples import duplicates, similarity
from ftkit.examples.duplicates import crossing, find_duplicates, labeled_text, normalized
from ftkit.examples.reader import Example
from ftkit.examples.similarity import Pairs, likely_similar_texts, similar_texts
from ftkit.results.clusters import clusters_of
from ftkit.results.duplicates import LabeledText, count_duplicates

SPLITS = ("train", "val", "test")


def _set(found: Iterator[Pairs]) -> dict[tuple[int, int], float]:
    listed = [pair for pairs in found for pair in zip(*(values.tolist() for values in pairs), strict=True)]
    pairs = {(first, second): value for first, second, value in listed}
    assert len(pairs) == len(listed), "a pair comes twice"
    return pairs


def _grams(text: str) -> set[str]:
    return {text[start : start + 5] for start in range(max(1, len(text) - 4))}


def slow_pairs(texts: Sequence[str], threshold: float) -> dict[tuple[int, int], float]:
    grams, found = [_grams(text) for text in texts], {}
    for (a, one), (b, other) in itertools.combinations(enumerate(grams), 2):
        if len(one & other) / len(one | other) >= threshold:
            found[a, b] = len(one & other) / len(one | other)
    return found


def _sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of made-up words, every second one a variant of an earlier one."""
    rng, made = random.Random(seed), ["a", "日本語", "ok!"]
    words = ["".join(rng.choices("etaoinshrdlü日", k=rng.randint(1, 8))) for _ in range(300)]
    while len(made) < count:
        words_of = rng.choice(made).split() if len(made) % 2 else rng.choices(words, k=rng.randint(3, 14))
        words_of[rng.randrange(len(words_of))] = rng.choice(words)
        made = list(dict.fromkeys([*made, " ".join(words_of)]))
    return made


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.6, 0.9])
def test_similar_texts_are_those_that_a_comparison_of_all_finds(
    threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "_BLOCK", 10_000)  # several blocks
    texts = _sentences(400)
    expected = slow_pairs(texts, threshold)
    found = _set(similar_texts(texts, threshold))
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(value) for pair, value in expected.items())
    assert len(expected) > 10 or threshold >= 0.9


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.8])
def test_minhash_finds_nearly_all_of_them_and_no_others(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_BLOCK", 20_000)
    texts = _sentences(700)
    expected, found = slow_pairs(texts, threshold), _set(likely_similar_texts(texts, threshold))
    assert found.keys() <= expected.keys()
    assert len(found) >= 0.93 * len(expected) > 50


def test_texts_of_one_template_are_connected_without_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Dear customer, the code to confirm your purchase of today is {number:04}" for number in range(2_000)]
    compared = 0
    verified = similarity._verified

    def counted(texts: Sequence[str], first: np.ndarray, second: np.ndarray, threshold: float) -> Pairs:
        nonlocal compared
        compared += len(first)
        return verified(texts, first, second, threshold)

    monkeypatch.setattr(similarity, "_verified", counted)
    pairs = np.array(list(_set(likely_similar_texts(texts, 0.6))))
    assert clusters_of(len(texts), pairs).max() == 0
    assert compared < 0.1 * len(texts) ** 2 / 2


def test_short_texts_are_one_gram_also_with_a_null_character() -> None:
    texts = ["ab", "ab\0\0\0", "a", "\U0001f600", "\U0001f600" * 6, "\U0001f600" * 7, "e\u0301", "\u200b"]
    for threshold in (0.1, 1.0):
        for find in (similar_texts, likely_similar_texts):
            assert _set(find(texts, threshold)).keys() == slow_pairs(texts, threshold).keys() == {(4, 5)}


def test_the_few_compared_with_all_tell_the_recall() -> None:
    texts, few = _sentences(300), np.arange(5, 300, 20)
    expected = {pair for pair in slow_pairs(texts, 0.5) if {*pair} & {*few.tolist()}}
    assert _set(similar_texts(texts, 0.5, few)).keys() == expected
    assert len(expected) > 5


def test_normalized_texts() -> None:
    same = [
        "Straße ﬁne \uff11\uff12",
        "STRASSE  fine\t12 ",
        "strasse\u00a0fine 12",
        unicodedata.normalize("NFD", "straße fine 12"),
    ]
    assert len({normalized(text) for text in same}) == 1
    assert len({normalized(text) for text in ("win 100", "win 200", "win 100!", "win100")}) == 4
    assert normalized("\u00a0\u2003\n") == ""
    assert normalized("\u03f2") == "\u03c3"  # what is composed anew has a case


@settings(max_examples=200)
@given(st.text())
def test_normalizing_again_changes_nothing(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 1)), min_size=1, max_size=14), st.data())
def test_counts_are_those_of_all_pairs(drawn: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Units, edges and labels at random; each count again, pair by pair."""
    drawn.sort()
    split, names, label = map(np.array, zip(*drawn, strict=True))
    numbers: dict[int, int] = {}
    unit = np.array([numbers.setdefault(name, len(numbers)) for name in names.tolist()])
    possible = list(itertools.combinations(range(len(numbers)), 2))
    edges = data.draw(st.sets(st.sampled_from(possible))) if possible else set()
    near = {edge: data.draw(st.sampled_from([0.6, 0.7, 0.8])) for edge in sorted(edges)}
    halves = [list(near)[0::2], list(near)[1::2]]
    given_edges = [
        (*(np.array([pair[side] for pair in half], int) for side in (0, 1)), np.array([near[pair] for pair in half]))
        for half in halves
    ]
    found = count_duplicates(unit, split, label, given_edges)

    def alike(one: int, other: int) -> float:
        a, b = sorted((int(unit[one]), int(unit[other])))
        return 1.0 if a == b else near.get((a, b), 0.0)

    pairs = np.zeros((3, 3), int)
    for one, other in itertools.combinations(range(len(unit)), 2):
        if alike(one, other):
            pairs[split[one], split[other]] += 1
    assert found.pairs.tolist() == pairs.tolist()
    connected = [[one, other] for one, other in itertools.combinations(range(len(unit)), 2) if alike(one, other)]
    clusters = clusters_of(len(unit), np.array(connected, int).reshape(-1, 2))
    assert clusters_of(len(unit), np.stack([np.arange(len(unit)), np.unique(found.cluster, return_index=True)[1][
        np.unique(found.cluster, return_inverse=True)[1]]], axis=1)).tolist() == clusters.tolist()  # fmt: skip
    for place in range(len(unit)):
        in_train = [other for other in np.flatnonzero(split == 0) if other != place and alike(place, other)]
        assert found.in_train[place] == bool(in_train)
        assert found.agrees[place] == (bool(in_train) and all(label[other] == label[place] for other in in_train))
        before = [other for other in range(place) if alike(place, other)]
        chosen = [other for other in before if split[other] == 0] or before
        if not chosen:
            assert found.closest[place] == -1
        else:
            assert found.closest[place] in chosen
            assert found.similarity[place] == alike(place, found.closest[place])
            assert found.similarity[place] == max(alike(place, other) for other in chosen)


def test_empty_texts_are_no_duplicates_of_each_other() -> None:
    found = find_duplicates({"train": [LabeledText("a", " "), LabeledText("b", "")], "test": [LabeledText("c", "")]})
    assert all(kind.pairs.sum() == 0 for kind in found.examples.values())
    assert find_duplicates({"train": []}).examples["near"].pairs.sum() == 0


def test_examples_that_stand_in_train_are_counted_by_split() -> None:
    splits = {
        "train": [LabeledText("a", "Win now", "spam"), LabeledText("b", "win now", "spam"), LabeledText("c", "Bye")],
        "val": [
            LabeledText("d", "win  NOW", "ham"),
            LabeledText("e", "Win now", "spam"),
            LabeledText("f", "hi", "ham"),
        ],
        "test": [LabeledText("g", "hi", "ham"), LabeledText("h", "win now!", "spam")],
    }
    assert crossing(splits) == {"val": {"total": 3, "in_train": 2, "other_label": 1}}
    assert crossing({"train": splits["val"], "test": splits["test"]}) == {
        "test": {"total": 2, "in_train": 1, "other_label": 0}
    }


def test_an_example_whose_duplicates_in_train_have_two_labels_meets_another_label() -> None:
    train = [LabeledText("a", "Call me", "ham"), LabeledText("b", "call ME", "spam")]
    for label in ("ham", "spam"):  # whichever of the two came first
        found = crossing({"train": train, "test": [LabeledText("c", "call me", label)]})
        assert found == {"test": {"total": 1, "in_train": 1, "other_label": 1}}


def test_above_20000_texts_the_recall_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = _sentences(600)
    splits = {
        "train": [LabeledText(text, text) for text in texts[:400]],
        "test": [LabeledText(text, text) for text in texts[400:]],
    }
    exact = find_duplicates(splits)
    assert exact.recall is None
    monkeypatch.setattr(duplicates, "EXACT_TEXTS", 599)
    found = find_duplicates(splits)
    assert found.recall is not None
    assert (
        0.97 * found.recall[1]
        <= found.recall[0]
        <= found.recall[1]
        == len(slow_pairs([normalized(text) for text in texts], 0.6))
    )
    assert found.examples["near"].pairs.sum() == found.recall[0]  # all of them are in the sample
    assert (found.examples["near"].in_train <= exact.examples["near"].in_train).all()


def test_an_examples_text_is_its_prompt_and_its_label_the_answer() -> None:
    asked = Example("a", [{"role": "user", "content": [{"type": "text", "text": "2+2?"}]}], "4")
    assert labeled_text(asked) == LabeledText("a", "2+2?", "4")
    assert labeled_text(Example("b", "", "Once upon a time")) == LabeledText("b", "Once upon a time")


def test_examples_with_images_are_duplicates_by_prompt_and_picture() -> None:
    first, again, second = (b"1", 0b1111), (b"1 again", 0b0011), (b"2", 2**64 - 1)
    one = LabeledText("a", "What is it?", "cat", (first,))
    splits = {
        "train": [one, LabeledText("b", "Is it red?", "no", (first, second))],
        "test": [
            one._replace(id="c"),
            one._replace(id="d", images=(again,)),  # looks like the first
            one._replace(id="e", images=(second,)),
            one._replace(id="f", text="Which is it?"),
            LabeledText("g", "is it RED?", "yes", (again, second)),
        ],
    }
    found = find_duplicates(splits)
    assert found.examples["normalized"].in_train.tolist()[2:] == [True, False, False, False, False]
    assert found.examples["near"].in_train.tolist()[2:] == [True, True, False, False, True]
    assert found.examples["near"].agrees.tolist()[2:] == [True, True, False, False, False]
    assert found.examples["near"].similarity[3] == 1 - 2 / 64
    assert found.images["image"].in_train[3:].tolist() == [True, False, True, True, False, True]
    assert found.images["image"].split.tolist() == [0, 0, 0, 2, 2, 2, 2, 2, 2]
    assert found.images["similar image"].in_train[3:].all()


def test_hashes_of_pictures_survive_what_does_not_change_what_is_seen() -> None:
    image = pytest.importorskip("PIL.Image")
    enhance = pytest.importorskip("PIL.ImageEnhance")
    rng = np.random.default_rng(0)
    pictures = [
        image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((240, 180), image.Resampling.BICUBIC)
        for _ in range(60)
    ]
    hashes = [similarity.image_key(b"", picture)[1] for picture in pictures]
    assert next(similarity.similar_hashes(hashes)).first.size == 0
    for change in (
        lambda picture: picture.resize((96, 72)),
        lambda picture: picture.resize((480, 360)),
        lambda picture: enhance.Brightness(picture).enhance(0.8),
    ):
        changed = [similarity.image_key(b"", change(picture))[1] for picture in pictures]
        found = {
            (first, second - 60)
            for first, second in _set(similarity.similar_hashes([*hashes, *changed]))
            if first < 60 <= second
        }
        assert sum(first == second for first, second in found) >= 57
        assert all(first == second for first, second in found)
    plain = [image.new("RGB", (50, 50), "white"), image.new("L", (9, 9), 200)]
    assert len({similarity.image_key(b"", picture) for picture in plain}) == 1


def test_hashes_may_differ_in_four_bits() -> None:
    assert _set(similarity.similar_hashes([0, 0b1111, 0b11111 << 40])) == {(0, 1): 1 - 4 / 64}


def test_a_short_text_has_one_gram_that_is_part_of_no_other() -> None:
    assert _set(similar_texts(["ab", "ab   ", "ab   c", "abc"], 0.1)) == {(1, 2): 0.5}


def test_any_image_of_an_example_may_look_like_the_other_s() -> None:
    first, second, like_second, other = ((b"1", 0), (b"2", 2**40 - 1), (b"3", 2**40 - 2), (b"4", 2**63))
    train = [LabeledText("a", "Which is it?", "x", (first, second))]
    test = [
        LabeledText(name, "Which is it?", "x", (first, image)) for name, image in (("b", like_second), ("c", other))
    ]
    found = find_duplicates({"train": train, "test": test}).examples["near"]
    assert found.in_train.tolist() == [False, True, False]
