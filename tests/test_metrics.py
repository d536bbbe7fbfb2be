"""Our metrics against scikit-learn's and scipy's."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from runs import result_of

from data import metrics
from data.download import Downloader
from data.metrics import accuracy, f1, matthews, pearson, spearman
from data.splits import paper_splits
from data.tasks import GROUPS, TASKS, Example, Task, load_official
from model.errors import AttemptError

sklearn = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")


def score(task: Task, answers: list[str], gold: list[str], style: str) -> dict[str, float]:
    return metrics.score(task, answers, [Example("", target) for target in gold], style)


def same(ours: float, theirs: float) -> bool:
    return (math.isnan(ours) and math.isnan(theirs)) or math.isclose(ours, 100 * theirs, rel_tol=1e-9, abs_tol=1e-7)


def quiet(function, *args):  # type: ignore[no-untyped-def]
    """scipy warns where a correlation is undefined; ours must not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(*args)[0])


def test_classification_equals_scikit_learn_on_random_labels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        n, share = rng.integers(1, 40), rng.random()
        pred, gold = (rng.random(n) < share).astype(int), (rng.random(n) < rng.random()).astype(int)
        assert same(accuracy([*map(str, pred)], [*map(str, gold)]), sklearn.accuracy_score(gold, pred))
        assert same(f1(pred, gold), sklearn.f1_score(gold, pred, zero_division=0))
        assert same(matthews(pred, gold), quiet(lambda p, g: [sklearn.matthews_corrcoef(g, p)], pred, gold))


@pytest.mark.parametrize("pred", [[0], [1], [0, 0, 0], [1, 1, 1], [0, 1, 1]])
def test_degenerate_classification(pred: list[int]) -> None:
    for gold in ([0] * len(pred), [1] * len(pred), pred, [1 - p for p in pred]):
        assert same(f1(pred, gold), sklearn.f1_score(gold, pred, zero_division=0))
        assert same(matthews(pred, gold), quiet(lambda p, g: [sklearn.matthews_corrcoef(g, p)], pred, gold))


def test_matthews_of_a_set_too_large_for_32_bit_products() -> None:
    gold = np.arange(400_000) % 2
    pred = np.where(np.arange(400_000) % 10 == 0, 1 - gold, gold)
    assert same(matthews(pred, gold), sklearn.matthews_corrcoef(gold, pred))


def test_correlations_equal_scipy_on_random_numbers() -> None:
    rng = np.random.default_rng(0)
    for trial in range(500):
        n = rng.integers(3, 40)
        x = rng.integers(0, 26, n) / 5 if trial % 2 else rng.normal(size=n)  # with many ties, or none
        y = rng.integers(0, 3, n) / 5 if trial % 3 else rng.normal(size=n)
        assert same(pearson(x, y), quiet(stats.pearsonr, x, y))
        assert same(spearman(x, y), quiet(stats.spearmanr, x, y))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1, 1, 1], [1, 2, 3]),
        ([1, 2, 3], [2, 2, 2]),
        ([0.1, 0.1, 0.1], [0.3, 0.3, 0.3]),
        ([1, 2], [2, 1]),
        ([1, 2], [1, 2]),
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, 3], [3, 2, 1]),
        ([1e-200, 2e-200, 5e-200], [1, 2, 3]),
        ([1e200, 2e200, 5e200], [1, 2, 3]),
        ([5, 5, 5, 5.2], [0, 1, 2, 5]),
    ],
)
def test_degenerate_correlations(x: list[float], y: list[float]) -> None:
    assert same(pearson(x, y), quiet(stats.pearsonr, x, y))
    assert same(spearman(x, y), quiet(stats.spearmanr, x, y))


def test_one_pair_has_no_correlation() -> None:
    assert math.isnan(pearson([1.0], [2.0])) and math.isnan(spearman([1.0], [2.0]))


def test_scores_of_right_answers() -> None:
    assert score(TASKS["mrpc"], ["1", "0 "], [" 1", "0"], "digits") == {"accuracy": 100, "f1": 100, "invalid": 0}
    assert score(TASKS["cola"], ["acceptable", "unacceptable"], ["acceptable", "unacceptable"], "words") == {
        "matthews": 100,
        "invalid": 0,
    }
    got = score(TASKS["stsb"], ["0.0", "2.4", "5.0"], ["0.0", "2.4", "5.0"], "digits")
    assert got == pytest.approx({"pearson": 100, "spearman": 100, "invalid": 0})
    assert list(got) == ["pearson", "spearman", "invalid"]


def test_an_answer_that_is_no_label_is_wrong() -> None:
    # as 0 1 1 0 against 0 1 0 1: TP 1, FP 1, FN 1, TN 1
    got = score(TASKS["mrpc"], ["0", "1", "?", "equivalent"], ["0", "1", "0", "1"], "digits")
    assert got == {"accuracy": 50, "f1": 50, "invalid": 50}
    got = score(TASKS["cola"], ["", "1", "", "1"], ["1", "1", "0", "0"], "digits")
    assert got == {
        "matthews": pytest.approx(100 * sklearn.matthews_corrcoef([1, 1, 0, 0], [0, 1, 1, 1])),
        "invalid": 50,
    }


def test_equality_is_exact() -> None:
    got = score(TASKS["sst2"], ["Positive", "positive.", "1", " positive\n"], ["positive"] * 4, "words")
    assert got == {"accuracy": 25, "invalid": 75}


def test_stsb_answers_that_are_no_number_count_as_the_middle() -> None:
    answers, gold = ["1.0", "nan", "inf", "", "four", "4.7"], ["1.0", "0.2", "4.0", "3.0", "4.0", "5.0"]
    got = score(TASKS["stsb"], answers, gold, "digits")
    numbers = [1.0, 2.5, 2.5, 2.5, 2.5, 4.7]
    assert same(got["pearson"], stats.pearsonr(numbers, [*map(float, gold)])[0])
    assert same(got["spearman"], stats.spearmanr(numbers, [*map(float, gold)])[0])
    assert got["invalid"] == pytest.approx(100 * 4 / 6)


@pytest.mark.parametrize("answers", [["2.0"] * 3, ["x"] * 3, ["1e308", "-1e308", "1e308"]])
def test_an_undefined_correlation_is_reported_as_zero(answers: list[str]) -> None:
    got = score(TASKS["stsb"], answers, ["1.0", "2.0", "3.0"], "digits")
    assert abs(got["pearson"]) < 1e-9 and math.isfinite(got["spearman"])


@pytest.mark.parametrize("name", GROUPS["GLUE"])
def test_one_answer_and_none(name: str) -> None:
    label = TASKS[name].label_texts("words")[1]
    got = score(TASKS[name], [label], [label], "words")
    assert list(got) == [*TASKS[name].metrics, "invalid"]
    assert all(math.isfinite(v) for v in got.values()) and got["invalid"] == 0
    with pytest.raises(AttemptError, match=f"{name}: expected at least 1 answer"):
        score(TASKS[name], [], [], "words")


def test_answers_and_references_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        score(TASKS["rte"], ["0", "1"], ["0"], "digits")


@pytest.mark.parametrize("task", ["mrpc", "cola", "mnli", "stsb", "squad"])
def test_a_constant_answer_is_scikit_learns_dummy(task: str) -> None:
    dummies = pytest.importorskip("sklearn.dummy")
    rng, kind = np.random.default_rng(1), TASKS[task]
    labels = kind.label_texts("digits") or ["1.0", "2.4", "5.0"]
    train, test = (rng.choice(labels, size).tolist() for size in (31, 17))
    found = metrics.constant_score(kind, *([Example("", text) for text in texts] for texts in (train, test)))
    assert list(found) == [*kind.metrics, "invalid"]
    model = dummies.DummyClassifier().fit(np.zeros((31, 1)), train)
    expected = score(kind, model.predict(np.zeros((17, 1))).tolist(), test, "digits")
    counts = sorted((train.count(text) for text in set(train)), reverse=True)
    assert counts[0] > counts[1] and found == expected  # no tie, which the two break in their own way


def test_a_run_keeps_what_a_constant_answer_has(prompt_run: Path, glue: Path) -> None:
    splits = paper_splits(TASKS["cola"], load_official(TASKS["cola"], Downloader(data_dir=glue).fetch))
    for found, split in zip(result_of(prompt_run)["constant"], ("dev", "test"), strict=True):
        own = metrics.constant_score(TASKS["cola"], splits["train"], splits[split])
        assert found == {"task": "cola", "split": split, "metrics": own}
