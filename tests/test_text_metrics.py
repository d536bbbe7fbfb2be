"""Macro F1, MultiRC's EM and SQuAD's F1 and EM, against scikit-learn and plain recomputation."""

import collections
import random
import re
import string

import pytest

from data.metrics import macro_f1, normalize, plain, question_em, score, text_em, text_f1
from data.tasks import TASKS, Example, Task
from model.errors import AttemptError

sklearn = pytest.importorskip("sklearn.metrics")


def test_macro_f1_equals_scikit_learn() -> None:
    draw, labels = random.Random(0), ["0", "1", "2"]
    for trial in range(400):
        gold = [draw.choice(labels[: 1 + trial % 3]) for _ in range(draw.randint(1, 30))]
        pred = [draw.choice([*labels, "none"][: 1 + trial % 4]) for _ in gold]
        theirs = sklearn.f1_score(gold, pred, labels=labels, average="macro", zero_division=0)
        assert macro_f1(pred, gold, labels) == pytest.approx(100 * theirs)


def test_macro_f1_is_over_all_classes_of_the_task() -> None:
    examples = [Example("", "0"), Example("", "0"), Example("", "1")]
    got = score(TASKS["cb"], ["0", "0", "1"], examples)
    assert got == {"macro_f1": pytest.approx(200 / 3), "accuracy": 100, "invalid": 0}
    assert list(got) == ["macro_f1", "accuracy", "invalid"]
    got = score(TASKS["cb"], ["neutral", "", "nothing"], [Example("", "neutral")] * 3, "words")
    assert got["invalid"] == pytest.approx(200 / 3)
    assert got["macro_f1"] == pytest.approx(100 * (2 * 1 / (2 * 1 + 2)) / 3)


def test_multirc() -> None:
    gold, groups = ["1", "0", "1", "0", "1"], ["1/0", "1/0", "1/1", "2/0", "2/0"]
    examples = [Example("", g, group=group) for g, group in zip(gold, groups, strict=True)]
    # questions 1/0 and 1/1 are wholly right; 1/0's and 2/0's numbers must not be confused
    got = score(TASKS["multirc"], ["1", "0", "1", "0", "?"], examples)
    assert got == {"f1": pytest.approx(80), "question_em": pytest.approx(200 / 3), "invalid": 20}
    assert list(got) == ["f1", "question_em", "invalid"]


def test_question_em_equals_a_recomputation() -> None:
    draw = random.Random(0)
    for _ in range(200):
        n = draw.randint(1, 30)
        gold, pred, question = ([draw.choice(choices) for _ in range(n)] for choices in ("01", "01", "abcdef"))
        right = [
            all(p == g for p, g, q in zip(pred, gold, question, strict=True) if q == name) for name in set(question)
        ]
        assert question_em(pred, gold, question) == pytest.approx(100 * sum(right) / len(right))


def official_normalize(text: str) -> str:
    """SQuAD v1.1's rule, step by step."""
    text = text.lower()
    for mark in string.punctuation:
        text = text.replace(mark, "")
    for article in ("a", "an", "the"):
        text = re.sub(rf"\b{article}\b", " ", text)
    return " ".join(text.split())


def official_f1(answer: str, reference: str) -> float:
    got, want = official_normalize(answer).split(), official_normalize(reference).split()
    same = sum(min(n, collections.Counter(want)[word]) for word, n in collections.Counter(got).items())
    if same == 0:
        return 0.0
    precision, recall = same / len(got), same / len(want)
    return 2 * precision * recall / (precision + recall)


def test_text_scores_equal_a_recomputation() -> None:
    draw = random.Random(0)
    words = [
        "the",
        "The",
        "a",
        "An",
        "Ann",
        "ann.",
        "lee",
        "Lee,",
        "U.S.",
        "1984",
        "it's",
        "\u00e9t\u00e9",
        "-",
        "  ",
        "\u2019",
        "x-y",
    ]
    for _ in range(2000):
        answer, *references = (" ".join(draw.choices(words, k=draw.randint(0, 5))) for _ in range(draw.randint(2, 5)))
        assert normalize(answer) == official_normalize(answer)
        assert text_f1(answer, references) == pytest.approx(max(official_f1(answer, r) for r in references))
        assert text_em(answer, references) == max(
            official_normalize(answer) == official_normalize(r) for r in references
        )


@pytest.mark.parametrize(
    ("answer", "references", "f1", "em"),
    [
        ("the Denver Broncos!", ["Denver Broncos"], 1, 1),
        ("Denver", ["Carolina", "Denver Broncos", "nothing at all of it"], 2 / 3, 0),
        ("", ["Ann"], 0, 0),
        ("the", ["a"], 0, 1),  # v1.1: both are empty once normalised; no word is shared
        ("an apple a day", ["apple day"], 1, 1),
        ("another theory", ["other ory"], 0, 0),  # articles are words, not parts of words
        ("Ann Ann", ["Ann"], 2 / 3, 0),
    ],
)
def test_text_scores(answer: str, references: list[str], f1: float, em: float) -> None:
    assert (text_f1(answer, references), text_em(answer, references)) == (pytest.approx(f1), em)


@pytest.mark.parametrize(
    ("answer", "reference", "f1", "em"),
    [
        ("5", "-5", 0, 0),  # SQuAD's way: the same, as all of these
        ("C", "C++", 0, 0),
        ("C++", "C++", 1, 1),
        ("A", "A", 1, 1),  # an article
        ("", "A", 0, 0),
        ("x = 2", "x != 2", 2 / 3, 0),
        ("the end", "The  END", 1, 1),
        ("Straße", "STRASSE", 1, 1),
        ("yes.", "yes", 0, 0),
    ],
)
def test_plain_text_scores(answer: str, reference: str, f1: float, em: float) -> None:
    got = text_f1(answer, [reference], plain), text_em(answer, [reference], plain)
    assert got == (pytest.approx(f1), em)
    task = Task("mine", ("text",), (), ("plain_f1", "plain_em"), "given", (), free_text=True)
    found = score(task, [answer, "x"], [Example("", reference), Example("", "x")])
    assert found == pytest.approx(
        {"plain_f1": 50 + 50 * f1, "plain_em": 50 + 50 * em, "invalid": 50 if answer == "" else 0}
    )


@pytest.mark.parametrize("name", ["squad", "nq", "hotpotqa", "searchqa", "newsqa", "triviaqa", "record"])
def test_answers_are_judged_by_the_best_reference(name: str) -> None:
    examples = [Example("", "Ann", ("Ann", "Ann Lee")), Example("", "1984"), Example("", "x", ("x",))]
    got = score(TASKS[name], ["the Ann Lee", "1984 maybe", " "], examples)
    assert got == pytest.approx({"f1": 100 * (1 + 2 / 3 + 0) / 3, "em": 100 / 3, "invalid": 100 / 3})
    assert list(got) == ["f1", "em", "invalid"]


@pytest.mark.parametrize("name", TASKS)
def test_right_answers_and_none(name: str) -> None:
    task = TASKS[name]
    for style in ("digits", "words"):
        texts = task.label_texts(style) or ["Ann", "Bob Lee"]
        got = score(task, texts, [Example("", text, group=str(i)) for i, text in enumerate(texts)], style)
        assert list(got) == [*task.metrics, "invalid"]
        assert got.pop("invalid") == 0
        assert all(value == pytest.approx(100) for value in got.values())
        with pytest.raises(AttemptError, match=f"{name}: expected at least 1 answer"):
            score(task, [], [], style)
