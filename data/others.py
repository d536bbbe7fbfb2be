"""The sets outside the collections: WinoGrande, SciTail, PAWS, SNLI, Yelp, IMDb and AG News."""

import csv
from collections.abc import Iterator
from pathlib import Path

from data.files import Fetch, Remote, Row, Table, item, json_lines, place_of, read_table, tar_texts, text_lines
from model.errors import AttemptError

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
IMDB = Remote(  # size and sum: TensorFlow Datasets and Hugging Face list the same ones
    "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    84125825,
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
AG_HOST = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
AG_NEWS = {  # the two files that torchtext and Hugging Face use; sizes and sums: Hugging Face
    "train": Remote(
        f"{AG_HOST}/train.csv",
        29470338,
        "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e",
    ),
    "test": Remote(
        f"{AG_HOST}/test.csv",
        1857427,
        "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699",
    ),
}
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


def read_imdb(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """IMDb: one review a file, in a folder named after its label; the unlabelled ones are left out; no dev set."""
    folders = {f"aclImdb/{split}/{label}": (split, label) for split in ("train", "test") for label in ("neg", "pos")}
    path = fetch(*IMDB)
    found = sorted(tar_texts(path, folders))  # by name: the archive's own order is nobody's promise
    splits: dict[str, list[Row]] = {"train": [], "test": []}
    for member, text in found:
        split, label = folders[member.rpartition("/")[0]]
        review = " ".join(text.replace("<br />", " ").split())
        splits[split].append(Row((review,), label, place_of(path, member)))
    for folder, (split, label) in folders.items():
        if not any(row.label == label for row in splits[split]):
            raise AttemptError(f"expected reviews in {place_of(path, folder)}, found none: get the tar.gz again")
    return splits


def read_yelp(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """Yelp's polarity set: label 1 or 2 and a review, in quotes; it has no dev set.

    A review's line breaks, written as backslash and n, become spaces.
    """
    path = fetch(*YELP)
    return {
        split: [
            Row((review.replace("\\n", " ").replace("\n", " ").strip(),), label.strip(), where)
            for where, (label, review) in csv_rows(path, f"yelp_review_polarity_csv/{split}.csv", 2)
        ]
        for split in ("train", "test")
    }


def read_ag_news(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """AG News: label 1 to 4, title and description, in quotes; it has no dev set. The text is both, as one."""
    return {
        split: [
            Row((clean_news(f"{title} {description}"),), label.strip(), where)
            for where, (label, title, description) in csv_rows(fetch(*remote), None, 3)
        ]
        for split, remote in AG_NEWS.items()
    }


def clean_news(text: str) -> str:
    r"""AG's escapes: `\$` is a dollar; any other backslash is a line break and becomes a space.

    So `records\nearly` is "records nearly": the n is the next word's.
    """
    return " ".join(text.replace("\\$", "$").replace("\\", " ").split())


def csv_rows(path: Path, member: str | None, columns: int) -> Iterator[tuple[str, list[str]]]:
    """(place, cells) of each row of a real CSV: quotes inside a cell are doubled."""
    lines = (f"{line}\n" for _, line in text_lines(path, member))
    reader, place = csv.reader(lines, strict=True), place_of(path, member)
    try:
        for row in reader:
            where = f"{place} line {reader.line_num}"
            if len(row) != columns:
                raise AttemptError(f"{where}: expected {columns} columns, found {len(row)}: get the file again")
            yield where, row
    except csv.Error as error:
        raise AttemptError(f"{place} line {reader.line_num}: expected CSV, found {error}: get it again") from None
