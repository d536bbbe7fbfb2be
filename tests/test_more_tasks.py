"""Reading and rendering the tasks beyond GLUE."""

import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from glue_files import real_mirror
from task_files import (
    AG_NEWS,
    FILES,
    FIRST,
    IMDB,
    MRQA,
    MRQA_NAMES,
    PAWS,
    RECORD,
    SCITAIL,
    SNLI,
    SQUAD,
    SUPER,
    WINOGRANDE,
    YELP,
    Files,
    both,
    lines,
    mrqa,
    passage,
    squad,
    wsc,
)

from attempt.training import build
from data.batches import TokenSet, batches
from data.download import Downloader
from data.files import json_lines
from data.questions import mrqa_rows
from data.splits import official_splits, paper_splits
from data.superglue import REMOTES, clean_highlights, clean_paragraph, find_span
from data.tasks import GROUPS, SOURCES, TARGETS, TASKS, describe_tasks, expand, load_official
from model.errors import AttemptError

# name: rows per split, as the benchmarks describe them. SciTail's own count is 23,596 training pairs; 23,097,
# which is seen elsewhere, is what a parser that minds quotes leaves of them.
COMPLETE = {
    "boolq": (9427, 3270),
    "cb": (250, 56),
    "copa": (400, 100),
    "multirc": (27243, 4848),
    "super_rte": (2490, 277),
    "wic": (5428, 638),
    "wsc": (554, 104),
    "squad": (87599, 10570),
    "winogrande_xs": (160, 1267),
    "winogrande_s": (640, 1267),
    "winogrande_m": (2558, 1267),
    "winogrande_l": (10234, 1267),
    "scitail": (23596, 1304, 2126),
}
# What the incomplete copies among the fixtures hold: ReCoRD's 32 training queries have 44 distinct answers.
PARTIAL = {"boolq": (867, 3270), "record": (44, 32)}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("name", sorted({*COMPLETE, *PARTIAL}))
def test_row_counts_of_the_real_files(name: str) -> None:
    task = TASKS[name]
    official = load_official(task, Downloader(data_dir=real_mirror()).fetch)
    assert tuple(len(rows) for rows in official.values()) in (COMPLETE.get(name), PARTIAL.get(name))
    for split, examples in official.items():
        assert all(e.source.startswith(f"{name} {task.fields[0]}: ") for e in examples)
        if task.labels:
            assert {e.target for e in examples} == set(task.label_texts("digits"))
            assert not any(e.references for e in examples)
        else:
            assert all(e.target and e.target in e.references for e in examples)
            assert split == "train" or any(len(e.references) > 1 for e in examples)


def test_real_texts() -> None:
    fetch = Downloader(data_dir=real_mirror()).fetch
    expected = {
        "cb": "cb premise: It was a complex language. Not written down but handed down. One might say it was peeled "
        "down. hypothesis: the language was peeled down",
        "copa": "copa premise: My body cast a shadow over the grass. choice1: The sun was rising. choice2: The grass "
        "was cut. question: cause",
        "wic": "wic sentence1: Do you want to come over to my place later? sentence2: A political system with no "
        "place for the less prominent groups. word: place",
        "wsc": "wsc text: * Mark * told Pete many lies about himself, which Pete included in his book. # He # should "
        "have been more skeptical.",
        "winogrande_xs": "winogrande_xs sentence: Ian volunteered to eat Dennis's menudo after already having a bowl "
        "because _ despised eating intestine. option0: Ian option1: Dennis",
        "scitail": "scitail premise: Pluto rotates once on its axis every 6.39 Earth days; hypothesis: Earth rotates "
        "on its axis once times in one day.",
    }
    for name, text in expected.items():
        assert load_official(TASKS[name], fetch)["train"][0].source == text
    dev = load_official(TASKS["squad"], fetch)["dev"][0]
    assert dev.source.startswith("squad question: Which NFL team represented the AFC at Super Bowl 50? context: Super")
    assert (dev.target, dev.references) == ("Denver Broncos", ("Denver Broncos",))


def bare(text: str) -> str:
    """A text of WSC without marks and spaces."""
    return re.sub(r"[*#\s]", "", text)


def test_every_real_wsc_text_has_both_spans_marked() -> None:
    fetch = Downloader(data_dir=real_mirror()).fetch
    official = load_official(TASKS["wsc"], fetch)
    for split, file in (("train", "train"), ("dev", "val")):
        records = [record for _, record in json_lines(fetch(*REMOTES["wsc"][1]), f"WSC/{file}.jsonl")]
        for example, record in zip(official[split], records, strict=True):
            assert bare(example.source) == bare(f"wsc text: {record['text']}")
            for i, mark in ((1, "*"), (2, "#")):
                _, marked, _ = example.source.split(mark)  # each mark twice, and the span between them
                assert bare(marked).lower() == bare(record["target"][f"span{i}_text"]).lower()
    # this index of the real file is off by one: "iron safe . Some day they might want to use it"
    assert "iron * safe * . Some day they might want to use # it # , but" in official["dev"][42].source
    # and this span has a line break where the text has a space
    assert '" * willow-towered Canopy Huntertropic wrestles * "' in official["train"][234].source


def test_the_real_mrqa_file() -> None:
    rows = list(mrqa_rows(real_mirror() / MRQA / "dev/SQuAD.jsonl.gz"))
    assert len(rows) == 10507
    assert rows[0].fields[0] == "Which NFL team represented the AFC at Super Bowl 50?"
    assert rows[0].fields[1].startswith("Super Bowl 50 was an American football game")
    assert (rows[0].label, rows[0].references) == ("Denver Broncos", ("Denver Broncos",))


@pytest.mark.parametrize("name", FIRST)
def test_rendered_texts(files: Files, name: str) -> None:
    digits, words = (load_official(TASKS[name], files.fetch, style)["train"][0] for style in ("digits", "words"))
    assert (digits.source, digits.target, words.target) == FIRST[name]
    assert words.source == digits.source
    bare = load_official(TASKS[name], files.fetch, task_name=False)["train"][0]
    assert f"{name} {bare.source}" == digits.source


def test_every_task_is_in_one_group_and_has_a_rendered_example() -> None:
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(TASKS)
    assert {*FIRST, *GROUPS["GLUE"]} == set(TASKS)
    assert len(SOURCES) == 6 and len(TARGETS) == len(set(TARGETS)) == 21
    assert {*SOURCES, *TARGETS} <= set(TASKS)
    assert build.SOURCES == SOURCES


def test_names_of_groups_stand_for_their_tasks() -> None:
    assert expand(["rte", "mine"]) == ["rte", "mine"]
    for name in ("GLUE", "glue", "Glue"):
        assert expand(["squad", name, "mine"]) == ["squad", *GROUPS["GLUE"], "mine"]
    for name, tasks in GROUPS.items():
        assert expand([name.upper()]) == [*tasks]
        assert name in describe_tasks().splitlines()[-1]
    assert (expand(["sources"]), expand(["Targets"])) == ([*SOURCES], [*TARGETS])
    with pytest.raises(AttemptError, match=r"--task: expected each task once, found rte again"):
        expand(["rte", "glue"])
    with pytest.raises(AttemptError, match=r"found mnli, qnli, qqp, record, squad, sst2 again"):
        expand(["sources", "sources"])


def test_winogrande_shows_both_options(files: Files) -> None:
    for name in ("winogrande", "winogrande_xs", "winogrande_s", "winogrande_m", "winogrande_l"):
        official = load_official(TASKS[name], files.fetch)
        assert official["train"][0].source.endswith("_ ran. option0: Ann option1: Bob")
        assert (official["train"][0].target, official["dev"][0].target) == ("1", "0")


def test_winogrande_names_say_which_training_set(files: Files) -> None:
    for size in ("xs", "s", "m", "l", "xl"):
        text = lines(*[{"sentence": size, "option1": "A", "option2": "B", "answer": "1"}] * 2)
        files.change(WINOGRANDE, f"winogrande_1.1/train_{size}.jsonl", text)
        name = "winogrande" if size == "xl" else f"winogrande_{size}"
        train = load_official(TASKS[name], files.fetch)["train"]
        assert [e.source for e in train] == [f"{name} sentence: {size} option0: A option1: B"] * 2


def test_each_mrqa_name_reads_its_own_files(files: Files) -> None:
    for task, name in MRQA_NAMES.items():
        official = load_official(TASKS[task], files.fetch)
        assert [len(rows) for rows in official.values()] == [1, 1]
        for split in ("train", "dev"):
            assert official[split][0].source == f"{task} question: {split}? context: {name} [SEP] text."
            assert official[split][0].target == "one"
            assert official[split][0].references == ("one", "two")


def test_squad_targets_are_answers_not_dicts(files: Files) -> None:
    official = load_official(TASKS["squad"], files.fetch)
    assert official["train"][0].target == "Saint B"
    assert (official["dev"][0].target, official["dev"][0].references) == ("Ann", ("Ann", "Ann Lee"))


def test_copa_asks_for_cause_or_effect(files: Files) -> None:
    asked = [e.source.rpartition(" ")[2] for e in load_official(TASKS["copa"], files.fetch)["train"]]
    assert asked == ["cause", "effect"]


def test_cb_labels_have_their_own_order(files: Files) -> None:
    for digit, label in enumerate(("entailment", "contradiction", "neutral")):
        files.write(f"{SUPER}/CB.zip", both("CB", lines({"premise": "P", "hypothesis": "H", "label": label})))
        assert load_official(TASKS["cb"], files.fetch)["train"][0].target == str(digit)


def test_scitail_and_paws_have_labelled_test_sets(files: Files) -> None:
    for name, text in (
        ("scitail", "scitail premise: H. hypothesis: I."),
        ("paws", "paws sentence1: H . sentence2: I ."),
    ):
        official = load_official(TASKS[name], files.fetch)
        assert list(official) == ["train", "dev", "test"]
        assert [len(rows) for rows in official.values()] == [2, 1, 1]
        assert (official["test"][0].source, official["test"][0].target) == (text, "1")


def test_yelp_quotes_and_line_breaks(files: Files) -> None:
    official = load_official(TASKS["yelp"], files.fetch)
    assert list(official) == ["train", "test"]
    assert [(e.source, e.target) for e in official["train"]] == [
        ('yelp sentence: Said "go", and went.', "1"),
        ("yelp sentence: Bad, very. Really.", "0"),
    ]


def test_imdb_is_read_in_the_order_of_its_names(files: Files) -> None:
    official = load_official(TASKS["imdb"], files.fetch)
    assert [(e.source, e.target) for e in official["train"]] == [
        ("imdb sentence: Bad, café.", "0"),
        ("imdb sentence: Fine. Yes.", "1"),
        ('imdb sentence: Good. A "must".', "1"),
    ]
    assert [(e.source, e.target) for e in official["test"]] == [
        ("imdb sentence: Cold.", "0"),
        ("imdb sentence: Warm.", "1"),
    ]
    files.write(IMDB, dict(reversed(FILES[IMDB].items())))
    assert load_official(TASKS["imdb"], files.fetch) == official


def test_imdb_reviews_that_are_missing_or_no_text(files: Files) -> None:
    files.write(IMDB, {name: text for name, text in FILES[IMDB].items() if "test/neg" not in name})
    with pytest.raises(AttemptError, match=f"expected reviews in .*{IMDB}/aclImdb/test/neg, found none"):
        load_official(TASKS["imdb"], files.fetch)
    with tarfile.open(files.root / IMDB, "w:gz") as tar:
        entry = tarfile.TarInfo("aclImdb/train/pos/0_9.txt")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"\xff"))
    with pytest.raises(AttemptError, match=r"aclImdb/train/pos/0_9.txt: expected UTF-8 text"):
        load_official(TASKS["imdb"], files.fetch)


def test_ag_news_joins_title_and_description(files: Files) -> None:
    official = load_official(TASKS["ag_news"], files.fetch)
    assert list(official) == ["train", "test"]
    assert (official["train"][1].source, official["train"][1].target) == ("ag_news text: A B #39;s", "3")
    assert [(e.source, e.target) for e in official["test"]] == [("ag_news text: C D", "0"), ("ag_news text: E F", "1")]


@pytest.mark.parametrize("name", ["yelp", "imdb", "ag_news"])
def test_sets_without_dev_cut_it_from_train_and_keep_their_test(files: Files, name: str) -> None:
    official = load_official(TASKS[name], files.fetch)
    assert official_splits(TASKS[name], official)["test"] == official["test"]
    official["train"] *= 600
    splits = paper_splits(TASKS[name], official)
    assert len(splits["dev"]) == 1000 and splits["test"] == official["test"]


def test_snli_drops_pairs_without_a_label(files: Files) -> None:
    official = load_official(TASKS["snli"], files.fetch)
    assert [[e.target for e in rows] for rows in official.values()] == [["1"], ["0"], ["2"]]


def test_multirc_has_a_row_for_each_answer_and_names_its_question(files: Files) -> None:
    dev = load_official(TASKS["multirc"], files.fetch)["dev"]
    assert [(e.group, e.target) for e in dev] == [("1/0", "1"), ("1/0", "0"), ("1/1", "0"), ("2/0", "1")]
    assert clean_paragraph("<b>Sent 1: </b>A.<br>B<br/>C < d.") == "Sent 1: A. B C < d."


def test_record_has_a_row_for_each_answer_in_train_and_each_query_in_dev(files: Files) -> None:
    official = load_official(TASKS["record"], files.fetch)
    assert [(e.target, e.group) for e in official["train"]] == [("Bob Lee", "1/0"), ("Bob", "1/0"), ("Ann", "1/1")]
    assert [e.target for e in official["dev"]] == ["Bob Lee", "Ann"]
    assert [e.references for e in official["dev"]] == [("Bob Lee", "Bob"), ("Ann",)]
    assert "@highlight" not in official["train"][0].source
    assert clean_highlights("No end\n@highlight\nYes?\n@highlight\nC") == "No end. Yes? C"


def test_record_offsets_count_from_the_start_of_the_text(files: Files) -> None:
    moved = {**RECORD, "passage": {"text": "  Ann ran.", "entities": [{"start": 2, "end": 4}]}}
    files.write(f"{SUPER}/ReCoRD.zip", both("ReCoRD", lines(moved)))
    assert " entities: Ann passage: Ann ran." in load_official(TASKS["record"], files.fetch)["dev"][0].source


NESTED = "Tom says the man with his dog left ."


@pytest.mark.parametrize(
    ("text", "span1", "span2", "marked"),
    [
        # characters that mean something in a pattern, or in a replacement
        ("The C++ (new) fan said it.", ("C++ (new)", 1), ("it", 5), "The * C++ (new) * fan said # it #."),
        ("Was \\1 [ok]? It was.", ("\\1 [ok]?", 1), ("It", 3), "Was * \\1 [ok]? * # It # was."),
        # the pronoun first; a possessive; another case; double spaces; the same word twice
        ("After she ran, Ann's dog", ("Ann", 3), ("she", 1), "After # she # ran, * Ann *'s dog"),
        ("I put the cake away.  It stays", ("The cake", 2), ("it", 5), "I put * the cake * away.  # It # stays"),
        ("he he he", ("he", 0), ("he", 2), "* he * he # he #"),
        # an index that is off by one, among words that begin alike
        ("Its item: it is", ("Its", 0), ("it", 3), "* Its * item: # it # is"),
        # one span in the other: at its end, at its beginning, inside, the second outside, both the same; and crossing
        (NESTED, ("the man with his dog", 2), ("dog", 6), "Tom says * the man with his # dog # * left ."),
        (NESTED, ("the man with his dog", 2), ("the man", 2), "Tom says * # the man # with his dog * left ."),
        (NESTED, ("the man with his dog", 2), ("his", 5), "Tom says * the man with # his # dog * left ."),
        (NESTED, ("his", 5), ("the man with his dog", 2), "Tom says # the man with * his * dog # left ."),
        (NESTED, ("his dog", 5), ("the man with his dog", 2), "Tom says # the man with * his dog * # left ."),
        (NESTED, ("man", 3), ("man", 3), "Tom says the * # man # * with his dog left ."),
        (NESTED, ("man with", 3), ("with his", 4), "Tom says the * man # with * his # dog left ."),
    ],
)
def test_wsc_spans(files: Files, text: str, span1: tuple[str, int], span2: tuple[str, int], marked: str) -> None:
    files.write(f"{SUPER}/WSC.zip", both("WSC", lines(wsc(text, span1, span2))))
    assert load_official(TASKS["wsc"], files.fetch)["train"][0].source == f"wsc text: {marked}"


def test_a_wsc_span_that_is_nowhere() -> None:
    for span in ("Carol", "Ann.*", " "):
        with pytest.raises(AttemptError, match=r"here: expected .* near word 0, found none in 'Ann met Bob'"):
            find_span("Ann met Bob", span, 0, "here")


@pytest.mark.parametrize(
    ("task", "name", "member", "text", "message"),
    [
        (
            "boolq",
            f"{SUPER}/BoolQ.zip",
            "BoolQ/val.jsonl",
            "{}\n",
            r"line 1: expected a str 'question', found the keys",
        ),
        ("boolq", f"{SUPER}/BoolQ.zip", "BoolQ/val.jsonl", '{"question": 1}\n', "line 1: expected a str .*, found 1"),
        ("boolq", f"{SUPER}/BoolQ.zip", "BoolQ/val.jsonl", "\n[1]\n", "line 2: expected a JSON object"),
        ("boolq", f"{SUPER}/BoolQ.zip", "BoolQ/val.jsonl", '{"question": \n', "line 1: expected JSON"),
        (
            "boolq",
            f"{SUPER}/BoolQ.zip",
            "BoolQ/val.jsonl",
            lines({"question": "q", "passage": "p"}),
            r"line 1: expected a label, found the keys \['question', 'passage'\]",
        ),
        (
            "boolq",
            f"{SUPER}/BoolQ.zip",
            "BoolQ/val.jsonl",
            lines({"question": "q", "passage": "p", "label": 1}),
            "line 1: expected a label of False, True, found '1'",
        ),
        (
            "multirc",
            f"{SUPER}/MultiRC.zip",
            "MultiRC/val.jsonl",
            '{"passage": {"text": ""}}\n',
            "line 1: .*'questions'",
        ),
        (
            "multirc",
            f"{SUPER}/MultiRC.zip",
            "MultiRC/val.jsonl",
            lines(passage(("Q", [("A", 2)]))),
            "line 1 questions 0 answers 0: expected a label of 0, 1, found '2'",
        ),
        (
            "record",
            f"{SUPER}/ReCoRD.zip",
            "ReCoRD/val.jsonl",
            lines({**RECORD, "passage": {"text": "Ann met Bob.", "entities": [{"start": -3, "end": -1}]}}),
            "line 1: expected entities from 0 on, found -3 to -1",
        ),
        (
            "record",
            f"{SUPER}/ReCoRD.zip",
            "ReCoRD/val.jsonl",
            lines({**RECORD, "qas": [{"query": "q", "answers": []}]}),
            "line 1 qas 0: expected at least 1 answer",
        ),
        (
            "winogrande",
            WINOGRANDE,
            "winogrande_1.1/dev.jsonl",
            '{"sentence": "_"}\n',
            "line 1: expected a str 'option1'",
        ),
        ("scitail", SCITAIL, "SciTailV1.1/tsv_format/scitail_1.0_test.tsv", "A\tB\n", "line 1: expected 3 columns"),
        ("paws", PAWS, "final/dev.tsv", "id\tsentence1\tsentence2\tlabel\n1\tA\tB\n", "line 2: expected 4 columns"),
        ("yelp", YELP, "yelp_review_polarity_csv/test.csv", '"1","A"\n"2","B","C"\n', "line 2: expected 2 columns"),
        ("yelp", YELP, "yelp_review_polarity_csv/test.csv", '"3","A"\n', "line 1: expected a label of 1, 2, found '3'"),
        ("yelp", YELP, "yelp_review_polarity_csv/test.csv", '"1","A\n', "line 1: expected CSV"),
        ("snli", SNLI, "snli_1.0/snli_1.0_dev.jsonl", "{}\n", "line 1: expected a str 'sentence1'"),
    ],
)
def test_bad_rows_are_named(files: Files, task: str, name: str, member: str, text: str, message: str) -> None:
    files.change(name, member, text)
    with pytest.raises(AttemptError, match=message) as error:
        load_official(TASKS[task], files.fetch)
    assert f"{name}/{member}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "name", "text", "message"),
    [
        ("squad", f"{SQUAD}/dev-v1.1.json", "{", "expected JSON"),
        ("ag_news", f"{AG_NEWS}/test.csv", '"1","A"\n', "line 1: expected 3 columns, found 2"),
        ("ag_news", f"{AG_NEWS}/test.csv", '"1","A","B"\n"5","A","B"\n', "line 2: expected a label of 1, 2, 3, 4"),
        ("ag_news", f"{AG_NEWS}/test.csv", '"1","A","B\n', "line 1: expected CSV"),
        ("squad", f"{SQUAD}/dev-v1.1.json", "[]", "expected a JSON object"),
        ("squad", f"{SQUAD}/dev-v1.1.json", squad(("Q?", [])), "data 0 paragraphs 0 qas 0: expected at least 1 answer"),
        (
            "nq",
            f"{MRQA}/dev/NaturalQuestionsShort.jsonl.gz",
            mrqa("N", ("Q?", [])),
            "line 2 qas 0: expected at least 1",
        ),
        (
            "nq",
            f"{MRQA}/dev/NaturalQuestionsShort.jsonl.gz",
            json.dumps({"context": "C", "qas": [{"question": "Q", "answers": [{"text": "A"}]}]}),
            "line 1 qas 0: expected answers as texts",
        ),
    ],
)
def test_bad_questions_are_named(files: Files, task: str, name: str, text: str, message: str) -> None:
    files.write(name, text)
    with pytest.raises(AttemptError, match=message) as error:
        load_official(TASKS[task], files.fetch)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("task", ["boolq", "paws", "yelp", "imdb", "newsqa"])
def test_damaged_archives_are_named(files: Files, task: str) -> None:
    names = {"boolq": f"{SUPER}/BoolQ.zip", "paws": PAWS, "yelp": YELP, "imdb": IMDB}
    name = names.get(task, f"{MRQA}/dev/NewsQA.jsonl.gz")
    whole = (files.root / name).read_bytes()
    cut = len(whole) // 2 if task in ("paws", "yelp", "imdb") else 9  # what follows a tar's last file is not read
    for content in (b"<html>", b"", whole[:-cut]):
        (files.root / name).write_bytes(content)
        with pytest.raises(AttemptError) as error:
            load_official(TASKS[task], files.fetch)
        assert name in str(error.value) and "\n" not in str(error.value)
    if task != "newsqa":
        files.write(name, {"other": ""})
        with pytest.raises(AttemptError, match="found none"):
            load_official(TASKS[task], files.fetch)


def test_sets_with_different_fields_mix_in_one_batch(files: Files) -> None:
    names = ("multirc", "squad", "record", "winogrande", "yelp", "wsc")
    examples = [load_official(TASKS[name], files.fetch)["train"] for name in names]

    def encode(texts: list[str]) -> list[list[int]]:
        return [[2 + ord(c) for c in text] for text in texts]

    joined = TokenSet.join([TokenSet.build(rows, encode, 256, None, task) for task, rows in enumerate(examples)])
    whole = next(batches(joined, len(joined), seed=1))
    assert sorted(whole.tasks.tolist()) == [i for i, rows in enumerate(examples) for _ in rows]
    flat = [(i, e) for i, rows in enumerate(examples) for e in rows]
    for ids, mask, task, index in zip(whole.ids, whole.mask, whole.tasks, whole.index, strict=True):
        text = "".join(chr(i - 2) for i in ids[mask].tolist()[:-1])
        assert (int(task), text) == (flat[int(index)][0], flat[int(index)][1].source)


def test_all_self_made_files_belong_to_a_task(files: Files) -> None:
    asked = set()

    def fetch(url: str, size: int | None, sha256: str | None) -> Path:
        assert size and sha256 and len(sha256) == 64
        asked.add(url.partition("://")[2])
        return files.fetch(url)

    for name in FIRST:
        load_official(TASKS[name], fetch)
    assert asked == set(FILES)
