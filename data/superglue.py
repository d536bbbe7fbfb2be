"""SuperGLUE's data sets (Wang et al. 2019, arXiv:1905.00537): JSON lines in zips; val is our dev."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data.files import Fetch, Remote, Row, item, json_lines, records, shown
from model.errors import AttemptError

HOST = "https://dl.fbaipublicfiles.com/glue/superglue/data/v2"

REMOTES = {  # task -> (folder in the zip, the zip)
    "boolq": (
        "BoolQ",
        Remote(f"{HOST}/BoolQ.zip", 4118001, "853fbe7922f70c59629f06a39e8d9ca440c3d740e760fd3b87a5ddf3dcba2436"),
    ),
    "cb": (
        "CB",
        Remote(f"{HOST}/CB.zip", 75482, "8d641383298d54554066ba1c93f56ae7410af75df621b90c63028806bbbbb535"),
    ),
    "copa": (
        "COPA",
        Remote(f"{HOST}/COPA.zip", 43986, "405906cddac74bc1e1ce8220f1107d1025b66a25ef10149d91b10bb30651125f"),
    ),
    "multirc": (
        "MultiRC",
        Remote(f"{HOST}/MultiRC.zip", 1116225, "b3cd440856e72eb166b2edcd37b798455f1ebd51f2c3de64c0c2a4e1971d2737"),
    ),
    "record": (
        "ReCoRD",
        Remote(f"{HOST}/ReCoRD.zip", 51757880, "30c7b651ab21b8bf8fab986495cd1084333010e040548f861b839eec0044ac18"),
    ),
    "super_rte": (
        "RTE",
        Remote(f"{HOST}/RTE.zip", 750920, "6310aab3f000424c9d0318a1ff20692e07c7f4aa15e8f17a5972ea0a35c398b9"),
    ),
    "wic": (
        "WiC",
        Remote(f"{HOST}/WiC.zip", 396213, "ee7e67f4ae9eafbf533780faa198e62167f3cda54256cdf261877be3c0e90900"),
    ),
    "wsc": (
        "WSC",
        Remote(f"{HOST}/WSC.zip", 32751, "2ed6dfa94556b4a128ff0441efe365b2e883124e7e6aa00fb8d3a6cb1fd520a9"),
    ),
}

KEYS = {  # the sets with one example a line: the keys of the text fields
    "boolq": ("question", "passage"),
    "cb": ("premise", "hypothesis"),
    "copa": ("premise", "choice1", "choice2", "question"),
    "super_rte": ("premise", "hypothesis"),
    "wic": ("sentence1", "sentence2", "word"),
}


def read_superglue(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """Both labelled splits of one of REMOTES; ReCoRD's train has a row for each distinct answer."""
    folder, remote = REMOTES[name]
    path = fetch(*remote)
    rows: Callable[[dict[str, Any], str, bool], Iterator[Row]] = {
        "multirc": multirc_rows,
        "record": record_rows,
        "wsc": wsc_rows,
    }.get(name, lambda record, where, train: flat_rows(KEYS[name], record, where))
    return {
        split: [
            row
            for where, record in json_lines(path, f"{folder}/{file}.jsonl")
            for row in rows(record, where, split == "train")
        ]
        for split, file in (("train", "train"), ("dev", "val"))
    }


def flat_rows(keys: tuple[str, ...], record: dict[str, Any], where: str) -> Iterator[Row]:
    yield Row(tuple(item(record, key, str, where) for key in keys), _label(record, where), where)


def multirc_rows(record: dict[str, Any], where: str, train: bool) -> Iterator[Row]:
    """A passage with questions with answers, each of them right or wrong: a row for each answer."""
    passage = item(record, "passage", dict, where)
    paragraph = clean_paragraph(item(passage, "text", str, where))
    number = where.rpartition(" ")[2]  # of the line, which is the passage's
    for q, (place, question) in enumerate(records(passage, "questions", where)):
        asked = item(question, "question", str, place)
        for spot, answer in records(question, "answers", place):
            fields = (asked, item(answer, "text", str, spot), paragraph)
            yield Row(fields, _label(answer, spot), spot, group=f"{number}/{q}")


def clean_paragraph(text: str) -> str:
    """MultiRC's paragraphs without their HTML: <br> becomes a space, <b> and </b> vanish."""
    return re.sub(r"</?b>", "", re.sub(r"<br ?/?>", " ", text)).strip()


def wsc_rows(record: dict[str, Any], where: str, train: bool) -> Iterator[Row]:
    """A text with two marked spans: does the pronoun (span2) mean the noun (span1)?"""
    text, target = item(record, "text", str, where), item(record, "target", dict, where)
    spans = [
        find_span(text, item(target, f"span{i}_text", str, where), item(target, f"span{i}_index", int, where), where)
        for i in (1, 2)
    ]
    yield Row((mark_spans(text, spans),), _label(record, where), where)


def mark_spans(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text with "* " and " *" around the first span, "# " and " #" around the second.

    One span may lie in the other: the outer one's marks are then the outer ones, of equal spans the first one's.
    """
    outer_first = sorted(zip(spans, "*#", strict=True), key=lambda marked: (marked[0][0], -marked[0][1]))
    marks = [(start, f"{mark} ") for (start, _), mark in outer_first]
    marks += [(end, f" {mark}") for (_, end), mark in reversed(outer_first)]
    marks.sort(key=lambda placed: placed[0])
    for place, mark in reversed(marks):  # the last first: no place moves
        text = f"{text[:place]}{mark}{text[place:]}"
    return text


def find_span(text: str, span: str, index: int, where: str) -> tuple[int, int]:
    """(start, end) of a span that begins at word `index`, counted between spaces.

    Some indices are off by a word: then the nearest word that begins with the span's text, whatever its case,
    is taken. Span texts have characters that mean something in a pattern, and line breaks for spaces.
    """
    pattern = re.compile(r"\s+".join(re.escape(word) for word in span.split()) + r"(?!\w)", re.IGNORECASE)
    words = [pattern.match(text, word.start()) for word in re.finditer(r"\S+", text)]
    fits = [(abs(i - index), *match.span()) for i, match in enumerate(words) if match and span]
    if not fits:
        raise AttemptError(
            f"{where}: expected {shown(span)} near word {index}, found none in {shown(text)}: get the file again"
        )
    _, start, end = min(fits)
    return start, end


def record_rows(record: dict[str, Any], where: str, train: bool) -> Iterator[Row]:
    """A passage with queries, each with the entity that fills its gap at several places, maybe spelled differently."""
    passage = item(record, "passage", dict, where)
    item(passage, "text", str, where)
    raw: str = passage["text"]  # not stripped: the offsets count from its start
    spans = [
        (item(entity, "start", int, at), item(entity, "end", int, at))
        for at, entity in records(passage, "entities", where)
    ]
    for start, end in spans:
        if not 0 <= start <= end:  # a negative one would count from the text's end
            raise AttemptError(f"{where}: expected entities from 0 on, found {start} to {end}: get the file again")
    entities = ", ".join(dict.fromkeys(raw[start : end + 1] for start, end in spans))  # distinct ones, in order
    text, number = clean_highlights(raw).strip(), where.rpartition(" ")[2]
    for q, (place, query) in enumerate(records(record, "qas", where)):
        fields = (item(query, "query", str, place), entities, text)
        answers = tuple(dict.fromkeys(item(a, "text", str, spot) for spot, a in records(query, "answers", place)))
        if not answers:
            raise AttemptError(f"{place}: expected at least 1 answer, found none: get the file again")
        for answer in answers if train else answers[:1]:
            yield Row(fields, answer, place, answers, f"{number}/{q}")


def clean_highlights(text: str) -> str:
    """ReCoRD's passages end in lines of bullet points; each becomes a sentence (Raffel et al. 2020's program)."""
    text = re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", text)
    return text.replace("\n@highlight\n", ". ")


def _label(record: dict[str, Any], where: str) -> str:
    """The label as text: a word, 0 or 1, or True or False."""
    if not isinstance(record.get("label"), (str, int)):
        raise AttemptError(f"{where}: expected a label, found the keys {shown(list(record))}: get the file again")
    return str(record["label"]).strip()
