"""Reading the files of GLUE and rendering their examples."""

import zipfile
from pathlib import Path

import pytest
from glue_files import HOST, MRPC, PAIR, QQP, ROWS, STSB, Folder, real_mirror

from data.download import Downloader
from data.tasks import GRID, TASKS, get_task, load_official
from model.errors import AttemptError

# name: (train, dev); MNLI: (train, matched, mismatched). The counts of GLUE's own description.
COMPLETE = {
    "sst2": (67349, 872),
    "cola": (8551, 1043),
    "stsb": (5749, 1500),
    "rte": (2490, 277),
    "wnli": (635, 71),
    "mrpc": (3668, 408),
    "qqp": (363846, 40430),
    "qnli": (104743, 5463),
    "mnli": (392702, 9815, 9832),
}
# What the incomplete copies among the fixtures hold.
PARTIAL = {"mnli": (29559, 9815, 1000), "qqp": (19972, 1000), "qnli": (18869, 5463)}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path).write()


@pytest.mark.parametrize("name", COMPLETE)
def test_row_counts_of_the_real_files(name: str) -> None:
    fetch = Downloader(data_dir=real_mirror()).fetch
    official = load_official(TASKS[name], fetch)
    counts = tuple(len(rows) for rows in official.values())
    assert counts in (COMPLETE[name], PARTIAL.get(name))
    texts = set(TASKS[name].label_texts("digits"))
    for examples in official.values():
        assert {e.target for e in examples} <= texts
        assert len({e.target for e in examples}) >= min(len(texts), 20)
        assert all(e.source.startswith(f"{name} {TASKS[name].fields[0]}: ") for e in examples)


def test_real_texts_with_quotes_and_spaces() -> None:
    fetch = Downloader(data_dir=real_mirror()).fetch
    mrpc = load_official(TASKS["mrpc"], fetch)["train"][0]
    assert mrpc.source.startswith('mrpc sentence1: Amrozi accused his brother , whom he called " the witness " , of')
    assert mrpc.target == "1"
    sst2 = load_official(TASKS["sst2"], fetch, "words")["train"][0]
    assert (sst2.source, sst2.target) == ("sst2 sentence: hide new secretions from the parental units", "negative")
    mnli = load_official(TASKS["mnli"], fetch, "words")["dev_matched"][0]
    assert mnli.source == (
        "mnli premise: The new rights are nice enough hypothesis: Everyone really likes the newest benefits"
    )
    assert mnli.target == "neutral"


@pytest.mark.parametrize("name", ROWS)
def test_rendered_texts(folder: Folder, name: str) -> None:
    official = load_official(TASKS[name], folder.fetch)
    train, dev = official["train"][0], next(rows for split, rows in official.items() if split != "train")[0]
    assert (train.source, train.target, dev.source, dev.target) == ROWS[name]


def test_the_task_name_can_be_dropped(folder: Folder) -> None:
    official = load_official(TASKS["rte"], folder.fetch, task_name=False)
    assert official["train"][0].source == "sentence1: A. sentence2: B."


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("mnli", ["entailment", "neutral"]),
        ("qqp", ["duplicate", "not_duplicate"]),
        ("qnli", ["entailment", "not_entailment"]),
        ("sst2", ["positive", "negative", "positive"]),
        ("stsb", ["5.0", "2.4", "0.8"]),
        ("mrpc", ["equivalent", "not_equivalent"]),
        ("rte", ["not_entailment", "entailment"]),
        ("cola", ["acceptable", "unacceptable"]),
        ("wnli", ["entailment"]),
    ],
)
def test_word_labels_and_row_counts(folder: Folder, name: str, targets: list[str]) -> None:
    assert [e.target for e in load_official(TASKS[name], folder.fetch, "words")["train"]] == targets


def test_mnli_takes_the_last_label_and_drops_rows_without_one(folder: Folder) -> None:
    official = load_official(TASKS["mnli"], folder.fetch, "words")
    assert list(official) == ["train", "dev_matched", "dev_mismatched"]
    assert [len(rows) for rows in official.values()] == [2, 1, 1]
    assert [e.target for e in official["dev_matched"]] == ["contradiction"]


def test_quotes_line_separators_and_bom_stay_inside_their_row(folder: Folder) -> None:
    qnli = load_official(TASKS["qnli"], folder.fetch)["train"]
    assert [e.source for e in qnli] == [
        'qnli question: Who said "go? sentence: He \ufeffsaid\u2028it.',
        'qnli question: When" ? sentence: In\r1990.',
    ]
    sst2 = load_official(TASKS["sst2"], folder.fetch)["train"]
    assert [e.source for e in sst2] == [
        'sst2 sentence: "good',
        'sst2 sentence: bad " thing',
        "sst2 sentence: a\x85b\x0cc",
    ]


def test_qqp_counts_the_short_rows_it_skips(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(load_official(TASKS["qqp"], folder.fetch)["train"]) == 2
    assert "skipped 2 rows with fewer than 6 columns" in capsys.readouterr().err


def test_mrpc_dev_is_the_listed_ordered_pairs(folder: Folder) -> None:
    official = load_official(TASKS["mrpc"], folder.fetch)
    assert [e.source for e in official["dev"]] == ["mrpc sentence1: X . sentence2: Y ."]
    assert official["train"][1].source == 'mrpc sentence1: "Same ids turned . sentence2: Z .'


def test_mrpc_without_a_listed_pair_is_an_error(folder: Folder) -> None:
    (folder.root / HOST / "glue/data/mrpc_dev_ids.tsv").write_text("20\t21\n98\t99\n")
    with pytest.raises(AttemptError, match=r"expected the 2 pairs .* found 1"):
        load_official(TASKS["mrpc"], folder.fetch)


def test_mrpc_columns_are_found_by_name(folder: Folder) -> None:
    path = folder.root / HOST / "senteval/senteval_data/msr_paraphrase_train.txt"
    path.write_text(MRPC.replace("#1 String", "Text") + "1\t20\t21\tA\tB\n")
    with pytest.raises(AttemptError, match=r"msr_paraphrase_train.txt line 1: expected the columns"):
        load_official(TASKS["mrpc"], folder.fetch)


@pytest.mark.parametrize(
    ("score", "target"),
    [
        ("0", "0.0"),
        ("0.1", "0.0"),  # halves go to the even neighbour
        ("0.3", "0.4"),
        ("0.5", "0.4"),
        ("0.25", "0.2"),
        ("1.3", "1.2"),
        ("3.556", "3.6"),
        ("4.9", "4.8"),
        ("4.95", "5.0"),
        ("5.000", "5.0"),
    ],
)
def test_stsb_scores_on_the_grid(tmp_path: Path, score: str, target: str) -> None:
    text = STSB + f"0\tg\tf\t2012\t1\tnone\tnone\tA.\tB.\t{score}\n"
    folder = Folder(tmp_path).write({"STS-B.zip": {"STS-B/dev.tsv": text}})
    assert load_official(TASKS["stsb"], folder.fetch)["dev"][0].target == target
    assert target in GRID


@pytest.mark.parametrize(
    ("name", "archive", "member", "text", "message"),
    [
        (
            "rte",
            "RTE.zip",
            "RTE/dev.tsv",
            PAIR + "0\tA\tB\tentailment\n1\tA\tB\n",
            "line 3: expected 4 columns, found 3",
        ),
        ("rte", "RTE.zip", "RTE/dev.tsv", PAIR + "0\tA\tB\tC\tentailment\n", "line 2: expected 4 columns, found 5"),
        ("rte", "RTE.zip", "RTE/dev.tsv", PAIR + "0\tA\tB\tmaybe\n", "line 2: expected a label .* found 'maybe'"),
        ("rte", "RTE.zip", "RTE/dev.tsv", PAIR + "0\tA\tB\t1\n", "line 2: expected a label .* found '1'"),
        ("rte", "RTE.zip", "RTE/dev.tsv", PAIR + "0\tA\udcff\tB\tentailment\n", "line 2: expected UTF-8"),
        ("rte", "RTE.zip", "RTE/dev.tsv", "0\tA\tB\tentailment\n", "line 1: expected the columns"),
        ("rte", "RTE.zip", "RTE/dev.tsv", "", "line 1: expected the columns|empty file"),
        ("wnli", "WNLI.zip", "WNLI/dev.tsv", PAIR + "0\tA\tB\tentailment\n", "line 2: expected a label of 0, 1"),
        ("cola", "CoLA.zip", "CoLA/dev.tsv", "a\t1\t\tb\n\na\t1\t\tb\n", "line 2: expected 4 columns, found 1"),
        ("qqp", "QQP-clean.zip", "QQP/dev.tsv", QQP + "1\t2\t3\ta\tb\tc\t0\n", "line 2: expected 6 columns, found 7"),
        ("stsb", "STS-B.zip", "STS-B/dev.tsv", STSB + "\t" * 9 + "5.1\n", "line 2: expected a score .* '5.1'"),
        ("stsb", "STS-B.zip", "STS-B/dev.tsv", STSB + "\t" * 9 + "nan\n", "line 2: expected a score .* 'nan'"),
        ("stsb", "STS-B.zip", "STS-B/dev.tsv", STSB + "\t" * 9 + "x\n", "line 2: expected a score .* 'x'"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, name: str, archive: str, member: str, text: str, message: str) -> None:
    folder = Folder(tmp_path).write({archive: {member: text}})
    with pytest.raises(AttemptError, match=message) as error:
        load_official(TASKS[name], folder.fetch)
    assert archive in str(error.value) and member in str(error.value)
    assert "\n" not in str(error.value)


def test_a_zip_that_is_none_or_lacks_a_member(folder: Folder) -> None:
    path = folder.root / HOST / "glue/data/RTE.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("RTE/train.tsv", PAIR)
    with pytest.raises(AttemptError, match=r"expected RTE/dev.tsv in .*RTE\.zip"):
        load_official(TASKS["rte"], folder.fetch)
    path.write_text("<html>not found</html>")
    with pytest.raises(AttemptError, match=r"expected a zip .*RTE\.zip"):
        load_official(TASKS["rte"], folder.fetch)


def test_a_damaged_zip_member_is_an_error(folder: Folder) -> None:
    path = folder.root / HOST / "glue/data/RTE.zip"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"not_entailment", b"not_entailmenX", 1))  # stored uncompressed: the CRC is wrong
    with pytest.raises(AttemptError, match=r"expected a zip .*RTE\.zip"):
        load_official(TASKS["rte"], folder.fetch)


def test_label_texts() -> None:
    assert TASKS["mnli"].label_texts("digits") == ["0", "1", "2"]
    assert TASKS["mnli"].label_texts("words") == ["entailment", "neutral", "contradiction"]
    for style in ("digits", "words"):
        assert TASKS["stsb"].label_texts(style) == [f"{i / 5:.1f}" for i in range(26)]
    with pytest.raises(AttemptError, match="digits, words"):
        TASKS["rte"].label_texts("letters")


def test_task_names() -> None:
    assert all(get_task(name).name == name for name in TASKS)
    with pytest.raises(AttemptError, match=r"unknown task 'sst-2' \(did you mean sst2\?\).*mnli, qqp"):
        get_task("sst-2")
    with pytest.raises(AttemptError, match="unknown task 'zzzzzz': expected one of"):
        get_task("zzzzzz")
