"""GLUE's nine data sets: where the official files are and how they are laid out (Wang et al. 2019)."""

from data.files import Fetch, Remote, Row, Table, cells, pick, positions, read_table, text_lines
from model.errors import AttemptError

HOST = "https://dl.fbaipublicfiles.com"


def _members(folder: str) -> dict[str, str]:
    return {"train": f"{folder}/train.tsv", "dev": f"{folder}/dev.tsv"}


MNLI_MEMBERS = {
    "train": "MNLI/train.tsv",
    "dev_matched": "MNLI/dev_matched.tsv",
    "dev_mismatched": "MNLI/dev_mismatched.tsv",
}
PAIR = ("sentence1", "sentence2", "label")

TABLES = {
    # 12 columns in train, 16 in dev (five annotators); the gold label is the last one.
    "mnli": Table(
        Remote(
            f"{HOST}/glue/data/MNLI.zip",
            312783507,
            "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633",
        ),
        MNLI_MEMBERS,
        ("sentence1", "sentence2", "gold_label"),
    ),
    "qqp": Table(
        Remote(
            f"{HOST}/glue/data/QQP-clean.zip",
            41696084,
            "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0",
        ),
        _members("QQP"),
        ("question1", "question2", "is_duplicate"),
        skip_short=True,
    ),
    "qnli": Table(
        Remote(
            f"{HOST}/glue/data/QNLIv2.zip",
            10627589,
            "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5",
        ),
        _members("QNLI"),
        ("question", "sentence", "label"),
    ),
    "sst2": Table(
        Remote(
            f"{HOST}/glue/data/SST-2.zip",
            7439277,
            "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
        ),
        _members("SST-2"),
        ("sentence", "label"),
    ),
    "stsb": Table(
        Remote(
            f"{HOST}/glue/data/STS-B.zip",
            802872,
            "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85",
        ),
        _members("STS-B"),
        ("sentence1", "sentence2", "score"),
    ),
    "rte": Table(
        Remote(
            f"{HOST}/glue/data/RTE.zip",
            697150,
            "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee",
        ),
        _members("RTE"),
        PAIR,
    ),
    "cola": Table(
        Remote(
            f"{HOST}/glue/data/CoLA.zip",
            376971,
            "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff",
        ),
        _members("CoLA"),
        ("sentence", "label"),
        header=("source", "label", "mark", "sentence"),
    ),
    "wnli": Table(
        Remote(
            f"{HOST}/glue/data/WNLI.zip",
            28999,
            "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46",
        ),
        _members("WNLI"),
        PAIR,
    ),
}

MRPC_PAIRS = Remote(
    f"{HOST}/senteval/senteval_data/msr_paraphrase_train.txt",
    1047044,
    "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
)
MRPC_DEV_IDS = Remote(
    f"{HOST}/glue/data/mrpc_dev_ids.tsv",
    6222,
    "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7",
)


def read_glue(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """Every labelled split of one of TABLES."""
    return read_table(name, TABLES[name], fetch)


def read_mrpc(name: str, fetch: Fetch) -> dict[str, list[Row]]:
    """MRPC: dev = the pairs whose ids GLUE lists, train = the rest of Microsoft's training file."""
    pairs_path, ids_path = fetch(*MRPC_PAIRS), fetch(*MRPC_DEV_IDS)
    _, lines = cells(text_lines(ids_path), str(ids_path), ("id1", "id2"))
    listed = {pick(line, [0, 1], 2, where) for where, line in lines}
    columns, lines = cells(text_lines(pairs_path), str(pairs_path), None)
    wanted = positions(columns, ("#1 ID", "#2 ID", "#1 String", "#2 String", "Quality"), str(pairs_path))
    splits: dict[str, list[Row]] = {"train": [], "dev": []}
    for where, line in lines:
        id1, id2, first, second, label = pick(line, wanted, len(columns), where)
        splits["dev" if (id1, id2) in listed else "train"].append(Row((first, second), label, where))
    if len(splits["dev"]) != len(listed):
        raise AttemptError(
            f"{name}: expected the {len(listed)} pairs of {ids_path} in {pairs_path}, found "
            f"{len(splits['dev'])}: get both files again"
        )
    return splits
