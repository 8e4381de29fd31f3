import hashlib
import re
from collections import Counter
from itertools import pairwise

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from demo_corpus import as_tsv, demo_messages, templates
from ftkit.classifier.spam import SpamDataModule

DEFAULT_SHA256 = "e1ade0c726ef90cc19ac2a72e08ac473c10872ff93a9f323664406f564707ebd"
TEMPLATES = [
    template for name in ("ham", "spam", "both", "slots") for lines in templates(name).values() for template in lines
]


@pytest.fixture(scope="module")
def messages():
    return demo_messages()


def letters(text):
    return re.sub(r"[^a-z]+", "", text.lower())


def test_the_default_corpus_never_changes(messages):
    assert hashlib.sha256(as_tsv(messages).encode()).hexdigest() == DEFAULT_SHA256


def test_the_demo_messages_that_ship_are_the_default_corpus(messages):
    read = SpamDataModule("demo").read()["train"]
    assert list(zip(read.labels, read.texts, strict=True)) == messages
    assert SpamDataModule("demo").data_sha256 == DEFAULT_SHA256
    assert SpamDataModule("demo", split="all").read()["train"] == read


def test_same_seed_same_messages_other_seed_other_messages(messages):
    assert demo_messages(40, seed=7) == demo_messages(40, seed=7)
    assert not {text for _, text in demo_messages(200, seed=7)} & {t for _, t in messages if len(t.split()) > 8}


@pytest.mark.parametrize("n", [2, 3, 100, 1494, 5000])
def test_any_size_is_balanced_and_unique(n):
    messages = demo_messages(n, seed=n)
    labels = Counter(label for label, _ in messages)
    assert labels == {"ham": n - n // 2, "spam": n // 2}
    assert len({letters(text) for _, text in messages}) == n  # not even equal without case, digits, punctuation


def test_the_order_does_not_give_the_label_away(messages):
    labels = [label for label, _ in messages]
    changes = sum(a != b for a, b in pairwise(labels))
    assert 0.45 < changes / len(labels) < 0.55


def test_messages_have_the_length_of_short_messages(messages):
    words = [len(text.split()) for _, text in messages]
    assert min(words) >= 2
    assert max(words) <= 60
    assert 14 <= sum(words) / len(words) <= 20
    assert len(set(words)) > 30  # short and long ones, not one shape


def test_texts_are_one_clean_line(messages):
    for _, text in messages:
        assert text == text.strip()
        assert not re.search(r"[\t\n\r{}(|#^\"]|  ", text), text


def test_both_classes_use_the_words_of_the_other(messages):
    ham = " ".join(text.lower() for label, text in messages if label == "ham")
    spam = " ".join(text.lower() for label, text in messages if label == "spam")
    for word in ("free", "won", "prize", "call", "£", "example", "07700", "voucher", "your", "reply"):
        assert ham.count(word) >= 5, word
        assert spam.count(word) >= 5, word
    for word in ("love", "see you", "sorry", "mum", "home", "thanks"):
        assert spam.count(word) >= 5, word


def test_a_bag_of_words_does_well_but_not_perfectly(messages):
    texts = [text for _, text in messages]
    labels = [label for label, _ in messages]
    counts = CountVectorizer()
    model = LogisticRegression(max_iter=2000).fit(counts.fit_transform(texts[:1045]), labels[:1045])
    assert 0.87 <= model.score(counts.transform(texts[1194:]), labels[1194:]) <= 0.96


def test_the_first_word_says_little(messages):
    labels_of = {}
    for label, text in messages[:1045]:
        labels_of.setdefault(text.split()[0].lower(), Counter())[label] += 1
    guesses = [labels_of.get(text.split()[0].lower(), Counter()).most_common(1) for _, text in messages[1194:]]
    hits = [bool(guess) and guess[0][0] == label for guess, (label, _) in zip(guesses, messages[1194:], strict=True)]
    assert sum(hits) / len(hits) < 0.7


def test_some_templates_stand_on_both_sides():
    pattern = re.compile(
        r"\b(one|two|\d) (new )?(voicemail|messages?)\b|\bcode is \w+|still \w+'s number", re.IGNORECASE
    )
    labels = Counter(label for label, text in demo_messages(5000) if pattern.search(text) and len(text.split()) < 12)
    assert min(labels["ham"], labels["spam"]) >= 5


def test_templates_are_well_formed():
    for template in TEMPLATES:
        assert set(re.findall(r"\{(\w+)\}", template)) <= set(templates("slots")), template
        flat = re.sub(r"\([^()]*\)", "", template)
        assert not re.search(r"[()|]", flat), f"choices are one level deep and closed: {template}"


def test_only_numbers_and_domains_reserved_for_fiction():
    text = "\n".join(TEMPLATES)
    for domain in re.findall(r"[\w.-]+\.(?:com|org|net|example|co|uk|info|biz)\b", text):
        assert re.search(r"(^|\.)(example\.(com|org|net)|example)$", domain), domain
    reserved = r"07700 ?900###|0808 ?1 ?57 ?0 ?###|555-01##|020 7946 0###|055[567]#"
    for number in templates("slots")["phone"] + templates("slots")["short"]:
        assert re.fullmatch(reserved, number), number
