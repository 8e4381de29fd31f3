"""Which of two classes is the positive one, and how an answer in another word is read."""

# ruff: noqa: RUF001
import pytest

from ftkit.results.pairs import answer_words, is_paired, opposite, positive_of

# Positive first.
PAIRS = [
    ("yes", "no"), ("Yes", "No"), ("YES", "NO"), ("True", "False"), ("TRUE", "FALSE"), ("1", "0"), ("1.0", "0.0"),
    ("1", "-1"), ("1.0", "-1.0"), ("+1", "-1"), ("LABEL_1", "LABEL_0"), ("label1", "label0"), ("class 1", "class 0"),
    ("Y", "N"), ("t", "f"), ("oui", "non"), ("Oui", "Non"), ("ja", "nein"), ("Ja", "Nee"), ("ja", "nej"), ("sí", "no"),
    ("si", "no"), ("Sì", "No"), ("sim", "não"), ("はい", "いいえ"), ("да", "нет"), ("Да", "Нет"), ("так", "ні"),
    ("tak", "nie"), ("ano", "ne"), ("evet", "hayır"), ("是", "否"), ("예", "아니요"), ("हाँ", "नहीं"),
    ("نعم", "لا"), ("כן", "לא"), ("ναι", "όχι"), ("igen", "nem"), ("kyllä", "ei"), ("có", "không"), ("ya", "tidak"),
    ("vrai", "faux"), ("wahr", "falsch"), ("verdadero", "falso"), ("positive", "negative"), ("POSITIVE", "NEGATIVE"),
    ("pos", "neg"), ("positif", "négatif"), ("positiv", "negativ"), ("陽性", "陰性"), ("+", "-"), ("spam", "ham"),
    ("Spam", "Ham"), ("correct", "incorrect"), ("approved", "rejected"), ("toxic", "non-toxic"), ("hate", "not hate"),
    ("duplicate", "not_duplicate"), ("toxic", "nontoxic"), ("spam", "no spam"),
]  # fmt: skip


@pytest.mark.parametrize(("positive", "negative"), PAIRS)
def test_the_positive_one_of_a_pair_is_known_in_any_order(positive: str, negative: str) -> None:
    assert positive_of(positive, negative) == positive
    assert positive_of(negative, positive) == positive


@pytest.mark.parametrize(
    ("one", "two"),
    [("cat", "dog"), ("safe", "unsafe"), ("A", "B"), ("C", "c"), ("LABEL_1", "LABEL_2"), ("a_1", "b_0"), ("10", "11"),
     ("real", "fake"), ("yes", "non"), ("none", "some"), ("yes", "Yes"), ("2", "1"), ("ja", "no")],
)  # fmt: skip
def test_of_other_names_none_is_guessed_to_be_positive(one: str, two: str) -> None:
    assert positive_of(one, two) is positive_of(two, one) is None


def test_the_other_class_is_written_alike() -> None:
    found = {
        name: opposite(name) for name in ("yes", "NO", "True", "1", "0.0", "-1", "LABEL_0", "Oui", "はい", "Spam", "x")
    }
    assert list(found.values()) == ["no", "YES", "False", "0", "1.0", "1", "LABEL_1", "Non", "いいえ", "Ham", None]


def test_one_name_says_enough_if_no_third_class_has_it() -> None:
    assert all(map(is_paired, ("yes", "Non", "0", "spam", "False", "否")))
    assert not any(map(is_paired, ("cat", "t", "N", "right", "normal", "LABEL_1")))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([], ("yes", "no")),
        (["I see a cat", "2"], ("yes", "no")),
        (["no", "no"], ("yes", "no")),
        (["No", "yes", "No", "no"], ("yes", "No")),
        (["YES.", "NO"], ("YES", "NO")),
        (["non", "non", "perhaps"], ("oui", "non")),
        (["Ja", "nee", "ja"], ("Ja", "nee")),
        (["true"], ("true", "false")),
    ],
)
def test_the_words_of_the_answers_are_those_that_most_of_them_are(answers: list[str], words: tuple[str, str]) -> None:
    assert answer_words(answers) == words
