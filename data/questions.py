"""Questions answered with words of a passage: SQuAD v1.1 and the sets of MRQA (Fisch et al. 2019)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.files import (
    Fetch,
    Remote,
    Row,
    as_record,
    checked_text,
    item,
    json_lines,
    parse_json,
    records,
    shown,
    text_lines,
)
from model.errors import AttemptError

SQUAD_HOST = "https://rajpurkar.github.io/SQuAD-explorer/dataset"
SQUAD = {
    "train": Remote(
        f"{SQUAD_HOST}/train-v1.1.json",
        30288272,
        "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955",
    ),
    "dev": Remote(
        f"{SQUAD_HOST}/dev-v1.1.json",
        4854279,
        "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9",
    ),
}

MRQA_HOST = "https://s3.us-east-2.amazonaws.com/mrqa/release/v2"
MRQA = {
    "nq": {
        "train": Remote(
            f"{MRQA_HOST}/train/NaturalQuestionsShort.jsonl.gz",
            116612493,
            "6cdac324664b94b60be3203a077bf361d0bfa68a17af9b71def1186a6958a68c",
        ),
        "dev": Remote(
            f"{MRQA_HOST}/dev/NaturalQuestionsShort.jsonl.gz",
            10424248,
            "2ba8b2181b520f81b49d62c0e4a23819f33d5dec0e8cf4a623edcda0feb73530",
        ),
    },
    "hotpotqa": {
        "train": Remote(
            f"{MRQA_HOST}/train/HotpotQA.jsonl.gz",
            107394872,
            "3a94712c073dc9f29d88ac149faa01ef9c7c089f97ee25d9cbac39387550825d",
        ),
        "dev": Remote(
            f"{MRQA_HOST}/dev/HotpotQA.jsonl.gz",
            10029807,
            "43bb9291525d8b59229ba327b67cca42f0a9c23798c455f6fbe813e9979cca84",
        ),
    },
    "searchqa": {
        "train": Remote(
            f"{MRQA_HOST}/train/SearchQA.jsonl.gz",
            641332495,
            "32cda932667b7b65ab3079a8271d4e5726b4b989d0b862b25c77eb03a661b609",
        ),
        "dev": Remote(
            f"{MRQA_HOST}/dev/SearchQA.jsonl.gz",
            92526612,
            "c84d2cc02cac5aa9d576ce1cd22900e9d75fe8a37bc795901c36cae6ef9e5ff0",
        ),
    },
    "newsqa": {
        "train": Remote(
            f"{MRQA_HOST}/train/NewsQA.jsonl.gz",
            56451248,
            "f1ccbf2d259ce1094aacde21a53592894248e5778814205dac94f0b086dbe968",
        ),
        "dev": Remote(
            f"{MRQA_HOST}/dev/NewsQA.jsonl.gz",
            3142984,
            "66bfb10cab2029bbc7d1afaece20c35fac341b1c179d15b70fde22a207f096ae",
        ),
    },
    "triviaqa": {
        "train": Remote(
            f"{MRQA_HOST}/train/TriviaQA-web.jsonl.gz",
            356784923,
            "61fad6884370408282ad3ed0b5f25a9e932d9a724b6929ea03ea5344ff0cd3f7",
        ),
        "dev": Remote(
            f"{MRQA_HOST}/dev/TriviaQA-web.jsonl.gz",
            44971198,
            "faf8add436de5a5fa81071a4e7190850d7e9a20acc811439e8a127ba8ec25640",
        ),
    },
}


def read_squad(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """SQuAD: one JSON text of articles, paragraphs, questions and answers."""
    return {split: list(squad_rows(fetch(*remote))) for split, remote in SQUAD.items()}


def squad_rows(path: Path) -> Iterator[Row]:
    text = "\n".join(line for _, line in text_lines(path))
    content = as_record(parse_json(text, str(path)), str(path))
    for where, article in records(content, "data", str(path)):
        for place, paragraph in records(article, "paragraphs", where):
            context = item(paragraph, "context", str, place)
            for spot, question in records(paragraph, "qas", place):
                answers = tuple(item(answer, "text", str, at) for at, answer in records(question, "answers", spot))
                yield _row(item(question, "question", str, spot), context, answers, spot)


def read_mrqa(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """One of MRQA's sets, each from files of its own."""
    return {split: list(mrqa_rows(fetch(*remote))) for split, remote in MRQA[name].items()}


def mrqa_rows(path: Path) -> Iterator[Row]:
    """A header line, then a passage with its questions on each line."""
    where = None
    for where, passage in json_lines(path):
        if "header" in passage:
            continue
        context = item(passage, "context", str, where)
        for place, question in records(passage, "qas", where):
            answers = _texts(item(question, "answers", list, place), place)
            yield _row(item(question, "question", str, place), context, answers, place)
    if where is None:
        raise AttemptError(f"{path}: expected passages with questions, found an empty file: get it again")


def _texts(answers: list[Any], where: str) -> tuple[str, ...]:
    if not all(isinstance(answer, str) for answer in answers):
        raise AttemptError(f"{where}: expected answers as texts, found {shown(answers)}: get the file again")
    return tuple(checked_text(answer, where) for answer in answers)


def _row(question: str, context: str, answers: tuple[str, ...], where: str) -> Row:
    if not answers:
        raise AttemptError(f"{where}: expected at least 1 answer, found none: get the file again")
    return Row((question, context), answers[0], where, tuple(dict.fromkeys(answers)))
