"""Damages checkpoints, prompts, configurations and runs' files at random and reads them: `python tests/fuzz_checkpoints.py`.

Each input must be read, or end in one AttemptError of one short line: no other exception, no crash, no hang, little
memory, nothing executed; what is read has the promised shapes and dtypes. `--count 10000` inputs a reader, `--reader
NAME` for some of them, `--seed N` for others, `--keep DIR` to look at them. tests/test_fuzz_checkpoints.py does the same
with a few hundred inputs; tests/fuzz_files.py has the readers of data.
"""

import contextlib
import copy
import dataclasses
import functools
import io
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from damage import for_file, token_words
from fuzz_files import mutated
from fuzzing import command
from hugging_face import COMMON, V10, V11, random_state, save
from test_foreign import SEQ2SEQ, D, L, authors_run, numbers, replication, write_adapter
from torch import Tensor

from attempt.attention import PromptAttention
from attempt.baselines import TunedWeights
from attempt.checkpoint import (
    PromptConfig,
    load_prompt,
    load_prompts,
    load_sources,
    load_trained,
    read_attention,
    save_prompt,
    save_trained,
)
from attempt.command import parse
from attempt.errors import AttemptError
from attempt.foreign import read_foreign
from attempt.machine import choose_machine
from attempt.options import Options
from attempt.plan import Plan
from attempt.prompt import SoftPrompt
from attempt.run import Run
from attempt.series import SEARCH, compare_tasks, read_result, searched, summarize_seeds
from attempt.trainer import Trainer
from data import hub, token_cache
from data.batches import TokenSet
from data.cache import Sums, is_finished, record_of, resumable, write_record
from data.tasks import Example
from model.checkpoint import empty_t5, load_t5
from model.config import T5Config
from model.t5 import T5
from model.tokenizer import Tokenizer

TINY = COMMON | {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2, "vocab_size": 24}
DEMO = Path(__file__).parent.parent / "demo" / "checkpoint"


class Files:
    """A reader, the valid files that `make` writes into a folder, and those of them that are damaged."""

    def __init__(
        self,
        name: str,
        folder: Path,
        make: Callable[[Path], None],
        read: Callable[[Path], None],
        damaged: str = "*",
        special: Callable[[bytes, random.Random], bytes] | None = None,
    ) -> None:
        self.name, self.folder, self._read, self.special = name, folder, read, special
        make(folder)
        self.valid = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        self.chosen = [path for path in self.valid if path.match(damaged)]

    def paths(self) -> list[Path]:
        return [path for path in self.valid if path.is_file()]

    def damage(self, draw: random.Random) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.valid:
                path.unlink()
        for path, content in self.valid.items():
            path.write_bytes(content)
        path = draw.choice(self.chosen)
        damages = [self.special or for_file(path), mutated]
        content = damages[draw.random() < 0.3](self.valid[path], draw)
        path.write_bytes(mutated(content, draw) if draw.random() < 0.05 else content)

    def read(self) -> None:
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            self._read(self.folder)
        finally:
            os.chdir(before)
            executed = (self.folder / "marker").exists()
        assert not executed, "code in the file was executed"
        assert torch.get_default_dtype() == torch.float32, "code in the file was executed"


def floats(tensor: Tensor, *shape: int | None) -> None:
    """Fails unless it is a plain fp32 tensor of this shape, on the CPU; None: any length."""
    plain = type(tensor.detach()) in (Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
    assert plain and tensor.dtype == torch.float32 and tensor.device.type == "cpu", f"{tensor.dtype}, {tensor.device}"
    assert tensor.ndim == len(shape), tensor.shape
    assert all(want in (None, n) for n, want in zip(tensor.shape, shape, strict=True)), tensor.shape
    tensor.detach().clone().contiguous().sum().item()


# ---- the T5 ----


def checkpoint(form: str, fields: dict[str, Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        save(folder, TINY | fields, random_state(TINY | fields), form)

    return make


def read_t5(folder: Path) -> None:
    for weight in load_t5(folder).parameters():  # it has checked their shapes
        floats(weight, *weight.shape)


def read_config(folder: Path) -> None:
    config = T5Config.from_json(folder / "config.json")
    assert all(type(getattr(config, name)) is int for name in ("d_model", "d_kv", "d_ff", "num_layers", "vocab_size"))
    if config.num_layers + config.decoder_layers < 50:
        empty_t5(folder)


TEXTS = ["", "The film was good.", "a <extra_id_0> b", "é\u2028中文 \U0001f600 ﬁ ①", "x" * 300, "\0\x01 \ufffd"]


def read_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(folder / "spiece.model")
    for text, ids in zip(TEXTS, tokenizer.encode_batch(TEXTS), strict=True):
        assert all(0 <= i < tokenizer.size for i in ids), text
        tokenizer.decode(ids).encode()
    tokenizer.decode(list(range(2, tokenizer.size)))


def copy_tokenizer(folder: Path) -> None:
    (folder / "spiece.model").write_bytes((DEMO / "spiece.model").read_bytes())


# ---- prompts and weights ----


def attempt_prompt(variant: str, tau: bool) -> SoftPrompt:
    attention = PromptAttention(D, 5, variant=variant, learn_temperature=tau).reset(torch.Generator().manual_seed(0))
    return SoftPrompt(numbers(2, L, D), numbers(3, L, D, seed=1), attention)


def make_prompt(folder: Path) -> None:
    save_prompt(folder / "p.safetensors", SoftPrompt(numbers(2, L, D)), PromptConfig("prompt", "m", ["a", "b"], [], "digits"))


def make_mixture(folder: Path) -> None:
    config = PromptConfig("attempt", "m", ["a", "b"], ["x", "y", "z"], "words")
    for variant in ("sub", "linear"):
        save_prompt(folder / f"{variant}.safetensors", attempt_prompt(variant, variant == "linear"), config)


def read_prompt(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        prompt, config = load_prompt(path)
        floats(prompt.target, 1 if config.shared else len(config.tasks), None, None)
        if prompt.sources is not None:
            floats(prompt.sources, len(config.sources), *prompt.target.shape[1:])
        for tensor in prompt.state_dict().values():
            floats(tensor, *tensor.shape)
        if config.method == "attempt":
            assert prompt.attention is not None and prompt.sources is not None
            text = torch.randn(2, 4, prompt.target.size(2))
            prompt.attention(text, torch.ones(2, 4, dtype=torch.bool), prompt.sources, prompt.target[[0, 0]])
            read_attention(path)
        else:
            load_prompts(path)
            load_sources([path])


@functools.cache
def tiny_t5() -> T5:
    known = {k: v for k, v in (TINY | V10).items() if k in T5Config.__dataclass_fields__}
    torch.manual_seed(0)
    return T5(T5Config(**known)).eval()


def make_weights(folder: Path) -> None:
    for method in ("bitfit", "adapter"):
        config = PromptConfig(method, "m", ["a"], [], "digits")
        save_trained(folder / f"{method}.safetensors", TunedWeights(copy.deepcopy(tiny_t5()), method), config)


def read_weights(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        trained, config = load_trained(path, path.stem, copy.deepcopy(tiny_t5()))
        assert isinstance(trained, TunedWeights) and config.method == path.stem
        for weight in trained.weights.values():
            floats(weight, *weight.shape)


# ---- other programs' prompts ----


def make_bare(folder: Path) -> None:
    torch.save(torch.nn.Parameter(numbers(L, D)), folder / "a_prompt.pt")
    torch.save(numbers(L, D), folder / "old.pt", _use_new_zipfile_serialization=False)
    np.save(folder / "google.npy", numbers(L, D).numpy())


def check_foreign(path: Path) -> None:
    found = read_foreign(path)
    floats(found.target, None, None, None)
    assert torch.isfinite(found.target).all() and len(found.tasks) in (0, len(found.target))
    if found.sources is not None:
        floats(found.sources, None, *found.target.shape[1:])
    if found.attention:
        R, width = found.attention["down.weight"].shape
        PromptAttention(width, R, found.temperature).load_state_dict(found.attention)
    for note in [*found.notes, *found.tasks]:
        assert isinstance(note, str)


def make_peft(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({**SEQ2SEQ, "peft_type": "PROMPT_TUNING"}))
    from model.safetensors import safetensors_bytes  # noqa: PLC0415

    content = safetensors_bytes({"prompt_embeddings": numbers(2 * L, D)}, {"attempt.tasks": '["a"]'})
    (folder / "adapter_model.safetensors").write_bytes(content)


def make_multitask(folder: Path) -> None:
    tensors = {"prefix_task_cols": numbers(2, 2 * L, 1), "prefix_task_rows": numbers(2, 1, D)}
    config = {**SEQ2SEQ, "peft_type": "MULTITASK_PROMPT_TUNING", "num_tasks": 2}
    write_adapter(folder, {**tensors, "prompt_embeddings": numbers(2 * L, D)}, config)


def make_replication(folder: Path) -> None:
    write_adapter(folder, replication(L, K=2), {**SEQ2SEQ, "peft_type": "attempt", "temperature": 5.5})


# ---- a run's own files ----


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


@dataclasses.dataclass
class SmallBatch:
    ids: Tensor
    mask: Tensor
    labels: Tensor
    tasks: Tensor
    tokens: int


def some_batch() -> SmallBatch:
    ids = torch.arange(2, 10).view(2, 4)
    return SmallBatch(ids, torch.ones(2, 4, dtype=torch.bool), ids[:, :2], torch.zeros(2, dtype=torch.long), 4)


def trainer_of(folder: Path) -> Trainer:
    return Trainer(plan_of(folder), tiny_t5().requires_grad_(False), choose_machine("cpu", "fp32"), SoftPrompt(numbers(1, L, D)))


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
    searched(Run(folder), SPOT.stored())


# ---- options, tokens, records ----


def make_options(folder: Path) -> None:
    text = '# a recipe\n--task mnli "my task"\n--method attempt --steps 5 # short\n--lr 0.3\n--seeds 1 2 3\n--separately\n'
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
    for name, record in (("a.zip", {"url": "u", "bytes": 3, "sha256": "0" * 64}), ("b.part", {"url": "u", "etag": '"e"'})):
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
    (snapshot / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "part.bin", "b": "part.bin"}}))


def read_snapshot(folder: Path) -> None:
    os.environ["HF_HUB_CACHE"] = str(folder)
    found = hub.cached_snapshot("t5-small")
    assert found is None or (found.is_dir() and folder in found.parents)


MADE: dict[str, tuple[Any, ...]] = {
    "config": (checkpoint("safetensors", V11), read_config, "config.json"),
    "safetensors": (checkpoint("safetensors", V10), read_t5, "*.safetensors"),
    "shards": (checkpoint("safetensors-sharded", V11), read_t5, "model*"),
    "torch": (checkpoint("torch", V10), read_t5, "*.bin"),
    "torch-old": (checkpoint("torch-legacy", V10), read_t5, "*.bin"),
    "torch-shards": (checkpoint("torch-sharded", V11), read_t5, "pytorch*"),
    "tokenizer": (copy_tokenizer, read_tokenizer),
    "prompt": (make_prompt, read_prompt),
    "mixture": (make_mixture, read_prompt),
    "weights": (make_weights, read_weights),
    "bare": (make_bare, lambda folder: [check_foreign(path) for path in sorted(folder.glob("*.*"))]),
    "authors": (lambda folder: authors_run(folder, ["b", "a"]), check_foreign),
    "peft": (make_peft, check_foreign),
    "multitask": (make_multitask, check_foreign),
    "replication": (make_replication, check_foreign),
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
READERS = tuple(MADE)


@contextlib.contextmanager
def subject(name: str) -> Iterator[Files]:
    make, read, *more = MADE[name]
    with tempfile.TemporaryDirectory() as folder:
        yield Files(name, Path(folder), make, read, *more)


def main() -> int:
    return command(__doc__, READERS, subject)


if __name__ == "__main__":
    sys.exit(main())
