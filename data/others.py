"""The sets outside the collections: WinoGrande, SciTail, PAWS, Yelp and SNLI."""

import csv
from collections.abc import Iterator
from pathlib import Path

from attempt.errors import AttemptError
from data.files import Fetch, Remote, Row, Table, item, json_lines, place_of, read_table, text_lines

WINOGRANDE = Remote(
    "https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip",
    3395492,
    "3619ab104d8be2977b25c90ff420cb42d491707dcc75362a1e5d22bc082b7318",
)
YELP = Remote(
    "https://s3.amazonaws.com/fast-ai-nlp/yelp_review_polarity_csv.tgz",
    166373201,
    "528f22e286cad085948acbc3bea7e58188416546b0e364d0ae4ca0ce666abe35",
)
SNLI = Remote(
    "https://nlp.stanford.edu/projects/snli/snli_1.0.zip",
    94550081,
    "afb3d70a5af5d8de0d9d81e2637e0fb8c22d1235c2749d83125ca43dab0dbd3e",
)
SPLITS = ("train", "dev", "test")

TABLES = {
    "scitail": Table(
        Remote(
            "http://data.allenai.org.s3.amazonaws.com/downloads/SciTailV1.1.zip",
            14174621,
            "3fccd37350a94ca280b75998568df85fc2fc62843a3198d644fcbf858e6943d5",
        ),
        {split: f"SciTailV1.1/tsv_format/scitail_1.0_{split}.tsv" for split in SPLITS},
        ("premise", "hypothesis", "label"),
        header=("premise", "hypothesis", "label"),
    ),
    "paws": Table(
        Remote(
            "https://storage.googleapis.com/paws/english/paws_wiki_labeled_final.tar.gz",
            4687157,
            "1aad6cbb8a90b15563a0c154752c2b2c8e3bc5bdaa125172214d598bc76bc9fd",
        ),
        {split: f"final/{split}.tsv" for split in SPLITS},
        ("sentence1", "sentence2", "label"),
    ),
}


def read_tables(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """SciTail and PAWS: all three splits have labels."""
    return read_table(name, TABLES[name], fetch)


def read_winogrande(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """WinoGrande with one of its five training sets: winogrande_xs, _s, _m, _l, and xl for the bare name."""
    path, size = fetch(*WINOGRANDE), name.removeprefix("winogrande").removeprefix("_") or "xl"
    splits = {}
    for split, member in (("train", f"winogrande_1.1/train_{size}.jsonl"), ("dev", "winogrande_1.1/dev.jsonl")):
        splits[split] = [
            Row(
                tuple(item(record, key, str, where) for key in ("sentence", "option1", "option2")),
                item(record, "answer", str, where),
                where,
            )
            for where, record in json_lines(path, member)
        ]
    return splits


def read_snli(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """SNLI; pairs without a label that most annotators gave are left out."""
    path = fetch(*SNLI)
    splits = {}
    for split in SPLITS:
        rows = [
            Row(
                (item(record, "sentence1", str, where), item(record, "sentence2", str, where)),
                item(record, "gold_label", str, where),
                where,
            )
            for where, record in json_lines(path, f"snli_1.0/snli_1.0_{split}.jsonl")
        ]
        splits[split] = [row for row in rows if row.label != "-"]
    return splits


def read_yelp(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """Yelp's polarity set: label 1 or 2 and a review, in quotes; it has no dev set."""
    path = fetch(*YELP)
    return {split: list(yelp_rows(path, f"yelp_review_polarity_csv/{split}.csv")) for split in ("train", "test")}


def yelp_rows(path: Path, member: str) -> Iterator[Row]:
    """A real CSV: quotes inside a review are doubled; its line breaks, written as backslash and n, become spaces."""
    lines = (f"{line}\n" for _, line in text_lines(path, member))
    reader, place = csv.reader(lines, strict=True), place_of(path, member)
    try:
        for row in reader:
            where = f"{place} line {reader.line_num}"
            if len(row) != 2:
                raise AttemptError(f"{where}: expected 2 columns, found {len(row)}: get the file again")
            yield Row((row[1].replace("\\n", " ").replace("\n", " ").strip(),), row[0].strip(), where)
    except csv.Error as error:
        raise AttemptError(f"{place} line {reader.line_num}: expected CSV, found {error}: get it again") from None
