"""Small self-made files in the layout of the data sets beyond GLUE, and the first examples they must become."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from glue_files import zipped

from model.errors import AttemptError

SUPER = "dl.fbaipublicfiles.com/glue/superglue/data/v2"
MRQA = "s3.us-east-2.amazonaws.com/mrqa/release/v2"
WINOGRANDE = "storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip"
SCITAIL = "data.allenai.org.s3.amazonaws.com/downloads/SciTailV1.1.zip"
PAWS = "storage.googleapis.com/paws/english/paws_wiki_labeled_final.tar.gz"
YELP = "s3.amazonaws.com/fast-ai-nlp/yelp_review_polarity_csv.tgz"
SNLI = "nlp.stanford.edu/projects/snli/snli_1.0.zip"
IMDB = "ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
AG_NEWS = "raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
SQUAD = "rajpurkar.github.io/SQuAD-explorer/dataset"


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def both(folder: str, text: str) -> dict[str, str]:
    return {f"{folder}/train.jsonl": text, f"{folder}/val.jsonl": text}


def passage(*questions: tuple[str, list[tuple[str, int]]], text: str = "P.") -> dict[str, Any]:
    """A line of MultiRC."""
    asked = [
        {
            "question": q,
            "answers": [{"text": a, "idx": i, "label": label} for i, (a, label) in enumerate(answers)],
            "idx": 0,
        }
        for q, answers in questions
    ]
    return {"idx": 0, "version": 1.1, "passage": {"text": text, "questions": asked}}


RECORD_TEXT = "Ann met Bob Lee.\n@highlight\nAnn paid\n@highlight\nBob left"
RECORD = {
    "source": "CNN",
    "passage": {
        "text": RECORD_TEXT,
        "entities": [
            {"start": 0, "end": 2},
            {"start": 8, "end": 14},
            {"start": 28, "end": 30},
            {"start": 48, "end": 50},
        ],
    },
    "qas": [
        {
            "query": "@placeholder left early",
            "answers": [
                {"start": 8, "end": 14, "text": "Bob Lee"},
                {"start": 48, "end": 50, "text": "Bob"},
                {"start": 48, "end": 50, "text": "Bob"},
            ],
            "idx": 0,
        },
        {"query": "@placeholder paid", "answers": [{"start": 0, "end": 2, "text": "Ann"}], "idx": 1},
    ],
    "idx": 0,
}


def wsc(text: str, span1: tuple[str, int], span2: tuple[str, int], label: bool = True) -> dict[str, Any]:
    target = {"span1_text": span1[0], "span1_index": span1[1], "span2_text": span2[0], "span2_index": span2[1]}
    return {"text": text, "target": target, "idx": 0, "label": label}


def squad(*questions: tuple[str, list[str]]) -> str:
    qas = [
        {"question": q, "id": "x", "answers": [{"answer_start": 0, "text": a} for a in answers]}
        for q, answers in questions
    ]
    return json.dumps({"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": "C.", "qas": qas}]}]})


def mrqa(name: str, *questions: tuple[str, list[str]]) -> str:
    qas = [
        {"qid": "q", "question": q, "answers": answers, "detected_answers": [{"text": a} for a in answers]}
        for q, answers in questions
    ]
    return lines(
        {"header": {"dataset": name, "split": "dev"}}, {"id": "", "context": f"{name} [SEP] text.", "qas": qas}
    )


WINO = {"qID": "1", "sentence": "A saw B so _ ran.", "option1": "Ann", "option2": "Bob", "answer": "2"}
PAWS_ROWS = "id\tsentence1\tsentence2\tlabel\n"
SNLI_ROW = {"gold_label": "neutral", "sentence1": "A.", "sentence2": "B.", "annotator_labels": ["neutral"]}
MRQA_NAMES = {
    "nq": "NaturalQuestionsShort",
    "hotpotqa": "HotpotQA",
    "searchqa": "SearchQA",
    "newsqa": "NewsQA",
    "triviaqa": "TriviaQA-web",
}

FILES: dict[str, Any] = {
    f"{SUPER}/BoolQ.zip": both("BoolQ", lines({"question": "is it", "passage": "It -- is.", "idx": 0, "label": True})),
    f"{SUPER}/CB.zip": both("CB", lines({"premise": "P.", "hypothesis": "H", "label": "contradiction", "idx": 0})),
    f"{SUPER}/COPA.zip": both(
        "COPA",
        lines(
            {"premise": "P.", "choice1": "X.", "choice2": "Y.", "question": "cause", "label": 1, "idx": 0},
            {"premise": "P.", "choice1": "X.", "choice2": "Y.", "question": "effect", "label": 0, "idx": 1},
        ),
    ),
    f"{SUPER}/MultiRC.zip": both(
        "MultiRC",
        lines(
            passage(("Who?", [("Ann", 1), ("Bob", 0)]), ("When?", [("Now", 0)]), text="<b>Sent 1: </b>A.<br>B. "),
            passage(("Who?", [("Cy", 1)])),
        ),
    ),
    f"{SUPER}/RTE.zip": both("RTE", lines({"premise": "P.", "hypothesis": "H.", "label": "not_entailment", "idx": 0})),
    f"{SUPER}/WiC.zip": both(
        "WiC",
        lines(
            {"word": "place", "sentence1": "A place.", "sentence2": "Place it.", "idx": 0, "label": False, "start1": 2}
        ),
    ),
    f"{SUPER}/WSC.zip": both("WSC", lines(wsc("Mark told Pete. He lied.", ("Pete", 2), ("He", 3)))),
    f"{SUPER}/ReCoRD.zip": both("ReCoRD", lines(RECORD)),
    f"{SQUAD}/train-v1.1.json": squad(("Who?", ["Saint B"])),
    f"{SQUAD}/dev-v1.1.json": squad(("Who?", ["Ann", "Ann", "Ann Lee"])),
    WINOGRANDE: {
        **{f"winogrande_1.1/train_{size}.jsonl": lines({**WINO, "qID": size}) for size in ("xs", "s", "m", "l", "xl")},
        "winogrande_1.1/dev.jsonl": lines({**WINO, "answer": "1"}),
    },
    SCITAIL: {
        "SciTailV1.1/tsv_format/scitail_1.0_train.tsv": 'A "b.\tC.\tneutral\nD.\tE".\tentails\n',
        "SciTailV1.1/tsv_format/scitail_1.0_dev.tsv": "F.\tG.\tentails\n",
        "SciTailV1.1/tsv_format/scitail_1.0_test.tsv": "H.\tI.\tneutral\n",
    },
    PAWS: {
        "final/train.tsv": PAWS_ROWS + '1\tA "b .\tC .\t1\n2\tD .\tE" .\t0\n',
        "final/dev.tsv": PAWS_ROWS + "1\tF .\tG .\t0\n",
        "final/test.tsv": PAWS_ROWS + "1\tH .\tI .\t1\n",
    },
    YELP: {
        "yelp_review_polarity_csv/train.csv": '"2","Said ""go"", and\\nwent."\n"1","Bad, very.\nReally."\n',
        "yelp_review_polarity_csv/test.csv": '"1","Cold."\n',
    },
    SNLI: {
        "snli_1.0/snli_1.0_train.jsonl": lines(SNLI_ROW, {**SNLI_ROW, "gold_label": "-"}),
        "snli_1.0/snli_1.0_dev.jsonl": lines({**SNLI_ROW, "gold_label": "entailment"}),
        "snli_1.0/snli_1.0_test.jsonl": lines({**SNLI_ROW, "gold_label": "contradiction"}),
    },
    IMDB: {  # not in the order of their names, and with what is no labelled review
        "aclImdb/README": "Large Movie Review Dataset",
        "aclImdb/test/pos/0_10.txt": "Warm.",
        "aclImdb/train/unsup/0_0.txt": "Not judged.",
        "aclImdb/train/pos/1_7.txt": 'Good.<br /><br />A "must".\n',
        "aclImdb/train/neg/2_1.txt": "Bad,  caf\u00e9.",
        "aclImdb/train/pos/0_9.txt": "Fine.\u2028Yes.",
        "aclImdb/train/urls_pos.txt": "http://example.com",
        "aclImdb/test/neg/0_2.txt": "Cold.",
    },
    f"{AG_NEWS}/train.csv": '"3","Oil at US\\$46 a ""barrel""","Reuters - Records\\nearly fell,\\\\at  last."\n'
    '"4","A","B #39;s"\n',
    f"{AG_NEWS}/test.csv": '"1","C","D"\n"2","E","F"\n',
    **{
        f"{MRQA}/{split}/{name}.jsonl.gz": mrqa(name, (f"{split}?", ["one", "two"]))
        for name in MRQA_NAMES.values()
        for split in ("train", "dev")
    },
}

WINO_TEXT = "sentence: A saw B so _ ran. option0: Ann option1: Bob"
FIRST = {  # the first example of train: its text, its target as a digit and as a word
    "boolq": ("boolq question: is it passage: It -- is.", "1", "True"),
    "cb": ("cb premise: P. hypothesis: H", "1", "contradiction"),
    "copa": ("copa premise: P. choice1: X. choice2: Y. question: cause", "1", "choice2"),
    "multirc": ("multirc question: Who? answer: Ann paragraph: Sent 1: A. B.", "1", "True"),
    "super_rte": ("super_rte premise: P. hypothesis: H.", "1", "not_entailment"),
    "wic": ("wic sentence1: A place. sentence2: Place it. word: place", "0", "False"),
    "wsc": ("wsc text: Mark told * Pete *. # He # lied.", "1", "True"),
    "record": (
        "record query: @placeholder left early entities: Ann, Bob Lee, Bob "
        "passage: Ann met Bob Lee. Ann paid. Bob left",
        "Bob Lee",
        "Bob Lee",
    ),
    "squad": ("squad question: Who? context: C.", "Saint B", "Saint B"),
    **{
        task: (f"{task} question: train? context: {name} [SEP] text.", "one", "one")
        for task, name in MRQA_NAMES.items()
    },
    **{
        name: (f"{name} {WINO_TEXT}", "1", "option1")
        for name in ("winogrande", "winogrande_xs", "winogrande_s", "winogrande_m", "winogrande_l")
    },
    "scitail": ('scitail premise: A "b. hypothesis: C.', "1", "neutral"),
    "paws": ('paws sentence1: A "b . sentence2: C .', "1", "paraphrase"),
    "yelp": ('yelp sentence: Said "go", and went.', "1", "positive"),
    "snli": ("snli premise: A. hypothesis: B.", "1", "neutral"),
    "imdb": ("imdb sentence: Bad, café.", "0", "negative"),
    "ag_news": ('ag_news text: Oil at US$46 a "barrel" Reuters - Records nearly fell, at last.', "2", "Business"),
}


def tarred(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for member, text in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    return content.getvalue()


class Files:
    """FILES in a folder; `fetch` has Downloader.fetch's signature and checks no sums."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, content in FILES.items():
            self.write(name, content)

    def write(self, name: str, content: Any) -> "Files":
        """A text as a plain or gzipped file, members as a zip or tar."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
        elif name.endswith(".zip"):
            path.write_bytes(zipped({member: text.encode() for member, text in content.items()}))
        else:
            path.write_bytes(tarred({member: text.encode() for member, text in content.items()}))
        return self

    def change(self, name: str, member: str, text: str) -> "Files":
        """One member of an archive of FILES with another text."""
        return self.write(name, {**FILES[name], member: text})

    def fetch(self, url: str, size: int | None = None, sha256: str | None = None) -> Path:
        path = self.root / url.partition("://")[2]
        if not path.exists():
            raise AttemptError(f"no {path}")
        return path
