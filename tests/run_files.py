"""A run's own small files, options, tokens and records: how they are made, and read, by fuzz_checkpoints.py."""

import contextlib
import dataclasses
import functools
import io
import json
import os
from pathlib import Path

import numpy as np
import torch
from damage import token_words
from hugging_face import COMMON, V10
from test_foreign import D, L, numbers

from attempt.command.options import Options
from attempt.machine.device import choose_machine
from attempt.prompt import SoftPrompt
from attempt.runs.folder import Run
from attempt.runs.parsing import parse
from attempt.runs.plan import Plan
from attempt.training.series import SEARCH, compare_tasks, read_result, searched, summarize_seeds
from attempt.training.trainer import Trainer
from data import hub, token_cache
from data.batches import Batch, TokenSet
from data.cache import Sums, is_finished, record_of, resumable, write_record
from data.tasks import Example
from model.config import T5Config
from model.errors import AttemptError
from model.t5 import T5

TINY = COMMON | {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2, "vocab_size": 24}


@functools.cache
def tiny_t5() -> T5:
    known = {k: v for k, v in (TINY | V10).items() if k in T5Config.__dataclass_fields__}
    torch.manual_seed(0)
    return T5(T5Config(**known)).eval()


def make_run(folder: Path) -> None:
    run = Run(folder)
    run.create(plan_of(folder))
    trainer = trainer_of(folder)
    for _ in range(2):
        trainer.train_step(some_batch())
    trainer.evaluated = 1
    run.save_state(trainer.state())
    run.append_metrics({"step": 1, "loss": 2.5, "scores": [{"metrics": {"accuracy": 50.0}}]})
    run.append_metrics({"step": 2, "loss": 2.0, "scores": []})


def plan_of(folder: Path) -> Plan:
    return dataclasses.replace(
        Plan.complete(Options(["a"], method="prompt", steps=50, prompt_length=L, model="m"), 40, None), out=str(folder)
    )


def some_batch() -> Batch:
    ids, zeros = torch.arange(2, 10).view(2, 4), torch.zeros(2, dtype=torch.long)
    return Batch(ids, torch.ones(2, 4, dtype=torch.bool), ids[:, :2], zeros, zeros, 4)


def trainer_of(folder: Path) -> Trainer:
    return Trainer(
        plan_of(folder), tiny_t5().requires_grad_(False), choose_machine("cpu", "fp32"), SoftPrompt(numbers(1, L, D))
    )


def read_plan(folder: Path) -> None:
    plan = Plan.read(folder / "config.json")
    plan.differences(plan_of(folder))
    json.dumps(plan.stored())


def read_state(folder: Path) -> None:
    """A state that is accepted lets the run go on."""
    trainer = trainer_of(folder)
    trainer.restore(Run(folder).load_state())
    trainer.mean_loss()
    trainer.first_bad()
    trainer.train_step(some_batch())
    torch.save(trainer.state(), io.BytesIO())


def read_metrics(folder: Path) -> None:
    Run(folder).load_state()
    for record in Run(folder).read_metrics():
        assert type(record["step"]) is int


def make_results(folder: Path) -> None:
    for seed in (1, 2):
        run = Run(folder / f"seed-{seed}")
        scores = [
            {"task": "a", "split": split, "metrics": {"accuracy": 50.0 + seed, "f1": 0.0}} for split in ("dev", "test")
        ]
        run.write_json(run.result, {"task": ["a"], "scores": scores, "mean": {"dev": 50.0, "test": 49.5}})
        run.best.write_bytes(b"")
    read_summaries(folder)


def read_results(folder: Path) -> None:
    read_result(Run(folder / "seed-1"))
    compare_tasks([folder / "seed-1"], seeds=False)
    compare_tasks([folder], seeds=True)
    read_summaries(folder)


def read_summaries(folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        summarize_seeds(folder, [1, 2])


SPOT = Options(["a"], method="spot", steps=5, model="m")


def make_search(folder: Path) -> None:
    run = Run(folder)
    run.write_json(folder / SEARCH, SPOT.stored())


def read_search(folder: Path) -> None:
    searched(Run(folder), SPOT)


# ---- options, tokens, records ----


def make_options(folder: Path) -> None:
    text = (
        '# a recipe\n--task mnli "my task"\n--method attempt --steps 5 # short\n--lr 0.3\n--seeds 1 2 3\n--separately\n'
    )
    (folder / "recipe.args").write_text(text)


def read_options(folder: Path) -> None:
    """argparse ends the program: its line on stderr is the message."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            found = parse([f"@{folder / 'recipe.args'}"])
    except SystemExit as end:
        if end.code == 2:
            raise AttemptError(f"expected: {told.getvalue().removesuffix(chr(10))}") from None
        return
    json.dumps(found.options.stored())


def make_tokens(folder: Path) -> None:
    examples = [Example(f"text {i}", "yes") for i in range(9)]
    tokens = TokenSet.build(examples, lambda texts: [list(map(ord, text)) for text in texts], 5, None)
    token_cache.write(folder / "a.npy", tokens)


def read_tokens(folder: Path) -> None:
    tokens = token_cache.read(folder / "a.npy", 5, 0)
    if tokens is None:
        raise AttemptError("expected a set")  # it is tokenised again
    for i in range(len(tokens)):
        assert len(tokens.source(i)) == tokens.lengths[i] > 0 and len(tokens.target(i)) > 0
    assert tokens.sources.dtype in (np.uint16, np.int32) and len(tokens.source_offsets) == len(tokens) + 1


def make_record(folder: Path) -> None:
    for name, record in (
        ("a.zip", {"url": "u", "bytes": 3, "sha256": "0" * 64}),
        ("b.part", {"url": "u", "etag": '"e"'}),
    ):
        (folder / name).write_bytes(b"abc")
        write_record(folder / name, record)


def read_records(folder: Path) -> None:
    for want in (Sums(None, None), Sums(3, "0" * 64), Sums(3, None)):
        assert type(is_finished(folder / "a.zip", want, ("u", "v"))) is bool
        have, etag = resumable(folder / "b.part", "u", want)
        assert have in (0, 3) and etag.isprintable() and etag.isascii(), "no header"
    assert record_of(folder / "a.zip").exists()


def make_snapshot(folder: Path) -> None:
    base = folder / "models--t5-small"
    snapshot = base / "snapshots" / ("ab" * 20)
    snapshot.mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("ab" * 20)
    for name in ("config.json", "spiece.model", "part.bin"):
        (snapshot / name).write_text("x")
    (snapshot / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"a": "part.bin", "b": "part.bin"}})
    )


def read_snapshot(folder: Path) -> None:
    os.environ["HF_HUB_CACHE"] = str(folder)
    found = hub.cached_snapshot("t5-small")
    assert found is None or (found.is_dir() and folder in found.parents)


MADE = {
    "plan": (make_run, read_plan, "config.json"),
    "state": (make_run, read_state, "state.pt"),
    "metrics": (make_run, read_metrics, "metrics.jsonl"),
    "results": (make_results, read_results, "*.json"),
    "search": (make_search, read_search),
    "options": (make_options, read_options),
    "tokens": (make_tokens, read_tokens, "*", token_words),
    "records": (make_record, read_records, ".*.json"),
    "snapshot": (make_snapshot, read_snapshot, "m*"),
}
