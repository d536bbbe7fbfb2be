"""Scores, in percent: the benchmarks' metrics over answers and references given as texts (numpy alone)."""

import math
import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data.tasks import Example, Task
from model.errors import AttemptError

MIDDLE = 2.5  # what an STS-B answer that is no number counts as: the middle of the scale


def score(
    task: Task, predictions: Sequence[str], examples: Sequence[Example], style: str = "digits"
) -> dict[str, float]:
    """Each metric of the task, and "invalid", the share of answers that are no label of it; all in percent.

    An answer that is no label is wrong: for F1 and Matthews it counts as the opposite of the reference, for
    STS-B as 2.5. A correlation that is undefined, because all answers are alike, is reported as 0. Where answers
    are free text, the invalid ones are the empty ones.
    """
    if len(predictions) != len(examples):
        raise ValueError(f"{len(predictions)} predictions for {len(examples)} references")
    if not predictions:
        raise AttemptError(f"{task.name}: expected at least 1 answer to score, found none")
    answers = [p.strip() for p in predictions]
    if task.free_text:
        return _score_texts(task, answers, examples)
    gold = [e.target.strip() for e in examples]
    if not task.labels:
        return _score_numbers(task, answers, gold)
    labels = task.label_texts(style)
    result = {}
    for name in task.metrics:
        if name == "accuracy":
            result[name] = accuracy(answers, gold)
        elif name == "macro_f1":
            result[name] = macro_f1(answers, gold, labels)
        elif name == "question_em":
            result[name] = question_em(answers, gold, [e.group for e in examples])
        else:
            result[name] = {"f1": f1, "matthews": matthews}[name](*_binary(answers, gold, labels))
    result["invalid"] = 100 * sum(a not in labels for a in answers) / len(answers)
    return result


def constant_score(
    task: Task, train: Sequence[Example], examples: Sequence[Example], style: str = "digits"
) -> dict[str, float]:
    """The `score` of one answer for all examples: that which is the most common in the training set."""
    answer = Counter(example.target for example in train).most_common(1)[0][0]
    return score(task, [answer] * len(examples), examples, style)


def accuracy(pred: Sequence[str], gold: Sequence[str]) -> float:
    """Percentage of answers equal to their reference after strip."""
    return 100 * sum(p.strip() == g.strip() for p, g in zip(pred, gold, strict=True)) / len(gold)


def f1(pred: ArrayLike, gold: ArrayLike) -> float:
    """Binary F1 of 0/1 labels, class 1 positive: 2 TP / (2 TP + FP + FN); 0 where that is 0/0."""
    p, g = np.asarray(pred, bool), np.asarray(gold, bool)
    tp, wrong = int(np.sum(p & g)), int(np.sum(p != g))
    return 100 * 2 * tp / (2 * tp + wrong) if tp else 0.0


def macro_f1(pred: Sequence[str], gold: Sequence[str], labels: Sequence[str]) -> float:
    """The mean of the labels' F1; a label that is neither answered nor right counts as 0, as in scikit-learn."""
    scores = [f1([p == label for p in pred], [g == label for g in gold]) for label in labels]
    return sum(scores) / len(scores)


def question_em(pred: Sequence[str], gold: Sequence[str], questions: Sequence[str]) -> float:
    """MultiRC: the percentage of questions all of whose answers are judged rightly (Khashabi et al. 2018)."""
    right: dict[str, bool] = defaultdict(lambda: True)
    for p, g, question in zip(pred, gold, questions, strict=True):
        right[question] &= p == g
    return 100 * sum(right.values()) / len(right)


def normalize(text: str) -> str:
    """SQuAD v1.1: lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016)."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def plain(text: str) -> str:
    """The text as it is, but for case and spaces: "-5" is not "5", and "C++" not "C"."""
    return " ".join(text.casefold().split())


def text_em(answer: str, references: Sequence[str], bare: Callable[[str], str] = normalize) -> float:
    """1 where the answer is one of the references, both made `bare`, else 0."""
    return float(bare(answer) in map(bare, references))


def text_f1(answer: str, references: Sequence[str], bare: Callable[[str], str] = normalize) -> float:
    """The largest F1 of the words that the answer shares with a reference: 2 shared / (all of both); 0 for none."""
    return max(_word_f1(bare(answer).split(), bare(r).split()) for r in references)


def _word_f1(answer: list[str], reference: list[str]) -> float:
    shared = sum((Counter(answer) & Counter(reference)).values())
    return 2 * shared / (len(answer) + len(reference)) if shared else 0.0


def matthews(pred: ArrayLike, gold: ArrayLike) -> float:
    """Matthews correlation of 0/1 labels; 0 where either side has one class only, as in scikit-learn.

    (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN))
    """
    p, g = np.asarray(pred, bool), np.asarray(gold, bool)
    tp, tn = int(np.sum(p & g)), int(np.sum(~p & ~g))
    fp, fn = int(np.sum(p & ~g)), int(np.sum(~p & g))
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return 100 * (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0


def pearson(pred: ArrayLike, gold: ArrayLike) -> float:
    """Pearson's correlation; nan where either side is constant, or for a single pair."""
    x, y = np.asarray(pred, np.float64), np.asarray(gold, np.float64)
    if len(x) < 2 or np.all(x == x[0]) or np.all(y == y[0]):
        return math.nan
    with np.errstate(all="ignore"):  # numbers near the largest float overflow to nan
        x, y = x - x.mean(), y - y.mean()
        # Scaled first, as scipy does: squares of tiny or huge deviations would leave the range of floats.
        x, y = x / np.abs(x).max(), y / np.abs(y).max()
        r = float(np.dot(x / np.linalg.norm(x), y / np.linalg.norm(y)))
    return 100 * max(-1.0, min(1.0, r)) if math.isfinite(r) else math.nan


def spearman(pred: ArrayLike, gold: ArrayLike) -> float:
    """Spearman's correlation: Pearson's of the ranks."""
    return pearson(_ranks(np.asarray(pred, np.float64)), _ranks(np.asarray(gold, np.float64)))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 on; equal values share the mean of their ranks."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)  # the highest rank in each group of equal values
    ranks: NDArray[np.float64] = (last - (count - 1) / 2)[group]
    return ranks


def _binary(answers: list[str], gold: list[str], labels: list[str]) -> tuple[list[int], list[int]]:
    """0/1 labels; an answer that is no label becomes the opposite of its reference."""
    truth = [labels.index(g) for g in gold]
    return [labels.index(a) if a in labels else 1 - g for a, g in zip(answers, truth, strict=True)], truth


def _score_numbers(task: Task, answers: list[str], gold: list[str]) -> dict[str, float]:
    numbers = [_number(a) for a in answers]
    pred = [MIDDLE if n is None else n for n in numbers]
    truth = [float(g) for g in gold]
    result = {}
    for name in task.metrics:
        r = {"pearson": pearson, "spearman": spearman}[name](pred, truth)
        result[name] = 0.0 if math.isnan(r) else r
    result["invalid"] = 100 * numbers.count(None) / len(numbers)
    return result


def _score_texts(task: Task, answers: list[str], examples: Sequence[Example]) -> dict[str, float]:
    references = [e.references or (e.target,) for e in examples]
    result = {}
    for name in task.metrics:
        metric = text_f1 if name.endswith("f1") else text_em
        bare = plain if name.startswith("plain_") else normalize
        values = [metric(a, r, bare) for a, r in zip(answers, references, strict=True)]
        result[name] = 100 * sum(values) / len(values)
    return {**result, "invalid": 100 * answers.count("") / len(answers)}


def _number(text: str) -> float | None:
    """The finite number that the text is, if it is one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
