"""The demo's world: its labels against brute force, its files, its splits, and the tiny T5 that knows it."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from conftest import REPOSITORY
from demo_models import relation
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from data.download import Downloader
from data.splits import paper_splits
from data.tasks import TASKS, load_official
from demo import mixture, pairs, singles
from demo.data import CORPORA, SEED, SOURCES, TARGETS, demo_folder
from demo.data import examples as examples_of
from demo.pretrain import span_loss
from demo.spans import corrupt
from demo.words import ancestors
from demo.world import Made, World, is_held_out, without
from model.checkpoint import load_t5
from model.tokenizer import Tokenizer

CHECKPOINT = Path(__file__).parent.parent / "demo" / "checkpoint"
SENTENCE = re.compile(r"[^.?]+[.?]")


def examples(task: str, split: str) -> list[Made]:
    return examples_of(task, split, SEED)  # as the files' own, which are made once


def dev(task: str) -> list[Made]:
    return examples(task, "dev_matched" if task == "mnli" else "dev")


@pytest.fixture(scope="module")
def folder() -> Path:
    return demo_folder()


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    """In any process, whatever the order of its sets is; of fewer rows here."""
    script = "import sys, pathlib; from demo import data\n"
    script += "data.CORPORA.update({task: c._replace(train=300, dev=300) for task, c in data.CORPORA.items()})\n"
    script += "data.write_folder(pathlib.Path(sys.argv[1]))\n"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script, str(tmp_path / seed)], env=environment, check=True)
    first, second = ((tmp_path / seed / "checksums.tsv").read_text() for seed in ("1", "2"))
    assert first == second and first.count("\n") > 10
    assert examples_of("rte", "dev", 2) != examples("rte", "dev")


@pytest.mark.parametrize("task", [*SOURCES, *TARGETS])
def test_the_files_are_read_like_the_real_ones(folder: Path, task: str) -> None:
    fetch = Downloader(data_dir=folder).fetch
    official = load_official(TASKS[task], fetch)
    assert len(official["train"]) == CORPORA[task].train
    splits = paper_splits(TASKS[task], official)
    sizes = {name: len(split) for name, split in splits.items()}
    assert sizes["train"] >= 1000 and sizes["dev"] >= 400 and sizes["test"] >= 400
    if TASKS[task].labels:
        counts = Counter(example.target for example in splits["test"])
        assert len(counts) == len(TASKS[task].labels) and max(counts.values()) < 1.3 * min(counts.values())
    if task == "squad":
        assert all(example.target in example.source for example in official["dev"])


def test_no_held_out_sentence_is_in_any_training_set() -> None:
    train: set[str] = set()
    held_out: set[str] = set()
    for task, corpus in CORPORA.items():
        splits = ("train", "dev_matched", "dev_mismatched") if task == "mnli" else ("train", "dev")
        found = {split: [made.fields for made in examples(task, split)] for split in splits}
        for split, fields in found.items():
            assert len(set(fields)) == len(fields) == (corpus.train if split == "train" else corpus.dev)
            for text in (text for row in fields for text in row):
                (train if split == "train" else held_out).add(text)
                if task == "squad":  # its passages are of several sentences
                    sentences = {found.strip() for found in SENTENCE.findall(text)}
                    (train if split == "train" else held_out).update(sentences)
    assert len(held_out) > 5000 and not train & held_out


def test_no_held_out_sentence_is_in_the_pretraining() -> None:
    world, seen = World("any"), 0
    for _ in range(1500):
        source, _ = mixture.instruction(world)
        fields = re.split(r"\w+: ", source.split(" : ", 1)[1])[1:]
        for sentence in (s.strip() for text in [*fields, mixture.text(world)] for s in SENTENCE.findall(text)):
            if not re.search(r"^\d|paid|asked|how much", sentence):  # prices are said nowhere else
                seen += 1
                assert not is_held_out(sentence), sentence
    assert seen > 5000


FOLLOWS = {"entailment": {True}, "contradiction": {False}, "neutral": {True, False}}


def test_entailment_labels_are_true_in_every_small_world() -> None:
    rng, unseen = Random(0), 0
    for made in dev("mnli")[:120]:
        found = relation(rng, *made.meaning)
        if made.label == "neutral":  # both cases exist, but chance must find them
            unseen += found != FOLLOWS["neutral"]
        else:
            assert found == FOLLOWS[made.label], made
    for made in dev("rte")[:80]:
        follows = relation(rng, *made.meaning[:2]) == {True}
        if made.label == "entailment":
            assert follows, made
        else:
            unseen += follows
    assert unseen <= 5


def test_paraphrases_mean_the_same_and_others_do_not() -> None:
    rng, unseen = Random(0), 0
    for made in dev("mrpc")[:80]:
        s, t = made.meaning
        same = relation(rng, s, t) == {True} == relation(rng, t, s)
        assert same if made.label == "1" else True, made
        unseen += same and made.label == "0"
    assert unseen <= 5
    for made in dev("qqp"):
        s, slot, t, other = made.meaning
        assert (made.label == "1") == (slot == other and without(s, slot) == without(t, slot)), made


def test_a_sentence_answers_a_question_if_the_answer_follows() -> None:
    rng, unseen = Random(0), 0
    for made in dev("qnli")[:80]:
        asked, slot, said = made.meaning
        # what the question takes for granted, with the sentence's answer in it
        claim = type(asked)(**{**vars(asked), slot: getattr(said, slot)})
        follows = relation(rng, said, claim) == {True}
        assert follows if made.label == "entailment" else True, made
        unseen += follows and made.label != "entailment"
    assert unseen <= 5


def polarity(clause: str) -> bool:
    words = clause.split()
    good = bool(set(words) & {*singles.GOOD, *singles.LIKED, *(singles.BASE[w] for w in singles.LIKED)})
    return good != bool({"not", "nobody"} & set(words))


def test_sentiment_is_that_of_the_clause_that_counts() -> None:
    for made in dev("sst2"):
        text = made.fields[0]
        if text.startswith("although"):
            clause = text.split(" , ")[1]
        else:
            clause = text.split(" although ")[0].split(" but ")[-1]
        assert all(polarity(c) == (made.label == "1") for c in clause.split(" and ")), made


def test_likeness_is_the_points_of_the_parts() -> None:
    for made in dev("stsb"):
        s, t = (vars(statement) for statement in made.meaning)
        points = 0.0
        for name in ("subject", "predicate", "object", "place", "time"):
            a, b = (x if isinstance(x, str) else x.noun for x in (s[name], t[name]))
            person = "person" in (a, b) and (s[name] if isinstance(s[name], str) else s[name].quantifier) != b
            kin = a in ancestors(b) or b in ancestors(a) or (person and a != b and points_to_name(s[name], t[name]))
            points += 1.0 if a == b else 0.6 if kin else 0.0
        assert float(made.label) == pytest.approx(points), made


def points_to_name(a: object, b: object) -> bool:
    """Is one of the two a proper name, and the other just a person?"""
    return {getattr(a, "quantifier", ""), getattr(b, "quantifier", "")} == {"name", "a"}


def test_broken_sentences_are_broken() -> None:
    """No sentence of the grammar is ever made by breaking one."""
    world = World("any", held_out=None)
    good = {world.speaker.say(world.draw.event()) for _ in range(20000)}
    good |= {made.fields[0] for made in dev("cola") if made.label == "1"}
    bad = {made.fields[0] for made in dev("cola") if made.label == "0"}
    assert len(bad) > 300 and not good & bad


@pytest.mark.parametrize("task", ["mnli", "qqp", "qnli", "rte", "mrpc", "stsb"])
def test_counting_words_tells_little(task: str) -> None:
    """A linear model on the word counts of each sentence stays near the majority; for STS-B, near no correlation."""
    train, test = examples(task, "train"), dev(task)
    counters = [CountVectorizer(token_pattern=r"\S+").fit([made.fields[i] for made in train]) for i in (0, 1)]

    def counts(rows: list[Made]) -> np.ndarray:
        columns = [counter.transform([row.fields[i] for row in rows]) for i, counter in enumerate(counters)]
        return np.hstack([c.toarray() for c in columns])

    if task == "stsb":
        model = Ridge(10.0).fit(counts(train), [float(made.label) for made in train])
        assert abs(np.corrcoef(model.predict(counts(test)), [float(m.label) for m in test])[0, 1]) < 0.25
        return
    model = LogisticRegression(C=0.1, max_iter=300).fit(counts(train), [made.label for made in train])
    labels = [made.label for made in test]
    majority = max(Counter(labels).values()) / len(labels)
    assert model.score(counts(test), labels) < majority + 0.1


def test_the_targets_take_no_part_in_the_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a target's generator was called")

    for module, name in ((pairs, "rte"), (pairs, "mrpc"), (pairs, "stsb"), (singles, "cola"), (singles, "violated")):
        monkeypatch.setattr(module, name, forbidden)
    world, seen = World("any"), Counter[tuple[str, str]]()
    for _ in range(3000):
        source, target = mixture.instruction(world)
        name, rest = source.split(" : ", 1)
        fields = [text.strip() for text in re.split(r"\w+: ", rest)[1:]]
        statements = [text for text in fields if text.endswith(" .")]
        label = target in ("0", "1", "2", "yes", "no", "maybe", "good", "bad")
        kind = f"{len(fields)} texts, {len(statements)} statements, {'label' if label else 'text'}"
        seen[kind, name.split()[0]] += 1
        # two statements are judged by three labels alone: neither rte nor mrpc. One: only a review, never cola
        if label and len(statements) == 2:
            assert name.startswith("follow") and " and " not in rest and " said " not in rest
        if label and len(fields) == 1:
            assert name.startswith("mood")
    assert {name for _, name in seen} >= {"follow", "same", "answers", "mood", "find"}


def test_spans_are_hidden_and_found_again() -> None:
    rng, vocabulary = Random(0), 1000
    hidden = total = 0
    for _ in range(500):
        ids = [rng.randrange(3, 800) for _ in range(rng.randint(4, 40))]
        source, target = corrupt(ids, vocabulary, rng)
        spans = {}
        for i in target:
            if i >= 900:
                spans[i] = current = []
            else:
                current.append(i)
        assert [j for i in source for j in spans.get(i, [i])] == ids
        assert list(spans) == list(range(999, 999 - len(spans), -1)) and spans[target[-1]] == []
        hidden, total = hidden + sum(map(len, spans.values())), total + len(ids)
    assert 0.12 < hidden / total < 0.18


def test_the_tiny_t5_is_a_language_model_of_its_world() -> None:
    t5 = load_t5(CHECKPOINT)
    assert sum(p.numel() for p in t5.parameters()) < 3_000_000
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 8_000_000
    tokenizer = Tokenizer(CHECKPOINT / "spiece.model")
    assert t5.config.vocab_size >= tokenizer.size
    ours, unigram = span_loss(t5, tokenizer, count=300)
    assert ours < unigram / 2
