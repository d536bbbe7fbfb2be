"""What comes before the first step, ours and Hugging Face's: python -m benchmarks.loading --model FOLDER --task sst2

Whole processes: importing, and from the start to the loss of the first batch. Within a process: texts to token ids,
and an epoch of batches. Both read the task's files with our reader, as `datasets` is not needed here.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from attempt.command.flags import Parser, positive
from benchmarks.machine import REPOSITORY, announced, save
from benchmarks.peer_tokenizer import hugging_face_tokenizer
from benchmarks.recipe import PADDED
from benchmarks.timing import Work, alternate, figure, markdown, sampled, seconds, span
from data.batches import TokenSet, batches
from data.download import Downloader
from data.splits import paper_splits
from data.tasks import Example, get_task, load_official
from model.errors import AttemptError, exit_status
from model.tokenizer import Tokenizer

LIMIT = 0.99  # least share of texts with equal tokens
IMPORTS = {
    "hugging face": "import transformers, peft; transformers.T5ForConditionalGeneration, peft.PromptTuningConfig",
    "ours": "import train",
}


def new_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.loading", description="What comes before the first step.")
    add = parser.add_argument
    add("--model", required=True, metavar="FOLDER", help="a T5 checkpoint in Hugging Face's layout")
    add("--task", default="sst2", help="default: %(default)s")
    add("--data-dir", metavar="DIR", help="folder that has the task's files, at DIR/HOST/PATH")
    add("--mirror", metavar="URL", help="server that has them")
    add("--batch-size", type=positive, default=32, metavar="N", help="default: 32")
    add("--rounds", type=positive, default=5, metavar="N", help="samples of each row (default: 5)")
    add("--threads", type=positive, metavar="N", help="default: PyTorch's")
    add("--out", type=Path, metavar="FILE", help="write every sample, as JSON")
    add("--dry-run", action="store_true", help="say what would be measured, and stop")
    add("--only", action="store_true", help=argparse.SUPPRESS)  # the other program's process
    return parser


def examples_of(given: argparse.Namespace) -> list[Example]:
    """The training set, as train.py has it."""
    downloader = Downloader(mirror=given.mirror, data_dir=Path(given.data_dir) if given.data_dir else None)
    task = get_task(given.task)
    return paper_splits(task, load_official(task, downloader.fetch))["train"]


def first_loss(given: argparse.Namespace) -> None:
    """Hugging Face's way to the first loss: the whole training set tokenised and padded, the T5, the first batch."""
    transformers, peft = (import_module(name) for name in ("transformers", "peft"))
    transformers.logging.set_verbosity_error()
    tokenizer = hugging_face_tokenizer(Path(given.model) / "spiece.model")
    examples = examples_of(given)
    rows = encode_theirs(tokenizer, examples)
    t5 = transformers.T5ForConditionalGeneration.from_pretrained(given.model, dtype=torch.float32)
    settings = peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=100, num_transformer_submodules=1)
    model = peft.get_peft_model(t5, settings)
    first = {name: torch.tensor(column[: given.batch_size]) for name, column in rows.items()}
    labels = tokenizer([e.target for e in examples[: given.batch_size]], padding=True, return_tensors="pt")
    with torch.no_grad():
        print(model(**first, labels=labels["input_ids"]).loss.item())


def encode_theirs(tokenizer: Any, examples: list[Example]) -> dict[str, list[list[int]]]:
    found = tokenizer([e.source for e in examples], padding="max_length", max_length=PADDED, truncation=True)
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def processes(given: argparse.Namespace) -> dict[str, dict[str, Work]]:
    """Programs to be started, by what they do."""
    place = ["--data-dir", os.path.abspath(given.data_dir)] if given.data_dir else []
    place += ["--mirror", given.mirror] if given.mirror else []
    common = ["--task", given.task, "--model", os.path.abspath(given.model), "--batch-size", str(given.batch_size)]
    commands = {
        "hugging face": ["-W", "ignore", "-m", "benchmarks.loading", "--only"],
        "ours": ["train.py", "--method", "prompt", "--device", "cpu", "--dry-run"],
    }
    return {
        "import": {name: partial(start, ["-c", text]) for name, text in IMPORTS.items()},
        "start to first loss": {name: partial(start, [*w, *common, *place]) for name, w in commands.items()},
    }


def start(words: list[str]) -> None:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if done.returncode:
        raise AttemptError(f"{shlex.join(words)}: expected it to end well, found\n{done.stderr}")


def within(given: argparse.Namespace) -> tuple[dict[str, dict[str, Work]], float]:
    """Texts to ids, and ids to batches; and the share of texts that have the same ids."""
    folder, examples = Path(given.model), examples_of(given)
    ours, theirs = Tokenizer(folder / "spiece.model"), hugging_face_tokenizer(folder / "spiece.model")
    limit = get_task(given.task).max_source
    build = partial(TokenSet.build, examples, ours.encode_batch, limit)
    tokens, rows = build(), encode_theirs(theirs, examples)
    lengths = [sum(mask) for mask in rows["attention_mask"]]
    same = [tokens.source(i).tolist() == rows["input_ids"][i][:n] for i, n in enumerate(lengths) if n < PADDED]
    share = sum(same) / len(same)
    if share < LIMIT:
        raise AttemptError(f"expected both tokenizers to agree, found {100 * share:.1f} % of the texts equal")
    listed = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    collate = import_module("transformers").default_data_collator
    loader: Any = DataLoader(listed, given.batch_size, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]

    epoch = partial(batches, tokens, given.batch_size, 0)
    works: dict[str, dict[str, Work]] = {
        "tokenise": {"hugging face": partial(encode_theirs, theirs, examples), "ours": build},
        "epoch of batches": {
            "hugging face": lambda: list(loader),
            "ours": lambda: list(epoch()),
        },
    }
    return works, share


def measure_all(argv: Sequence[str] | None) -> None:
    parser = new_parser()
    given = parser.parse_args(argv)
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.only:
        first_loss(given)
        return
    if given.dry_run:
        names = "import, start to first loss, tokenise, epoch of batches"
        print(f"{given.task}, {given.model}: {given.rounds} samples for each program of: {names}")
        return
    cpu = torch.device("cpu")
    about = announced(parser.prog, argv, cpu)
    works, share = within(given)
    results = []
    for what, pair in {**processes(given), **works}.items():
        samples = alternate({name: partial(seconds, work, cpu) for name, work in pair.items()}, given.rounds, 1)
        results += [sampled(f"{what}: {name}", samples[name], samples["hugging face"]) for name in pair]
    print(f"{given.task}: {100 * share:.2f} % of the training texts have the same tokens in both programs")
    rows = [[row["name"], span(row["seconds"]), figure(row["speedup"])] for row in results]
    print(markdown([["what: program", "s (extremes)", "times as fast"], *rows]))
    save(given.out, {**about, "equal_tokens": share, "rows": results})


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m benchmarks.loading", lambda: measure_all(argv))


if __name__ == "__main__":
    sys.exit(main())
