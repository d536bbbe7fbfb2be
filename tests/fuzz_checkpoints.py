"""Damages checkpoints, prompts, configurations and runs' files, and reads them: `python tests/fuzz_checkpoints.py`.

Each input must be read, or end in one AttemptError of one short line: no other exception, no crash, no hang, little
memory, nothing executed; what is read has the promised shapes and dtypes. `--count 10000` inputs a reader, `--reader
NAME` for some of them, `--seed N` for others, `--keep DIR` to look at them. tests/test_fuzz_checkpoints.py does it
with some hundred inputs; tests/fuzz_files.py has the readers of data.
"""

import contextlib
import copy
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
import run_files
import torch
from damage_torch import for_file
from fuzz_files import mutated
from fuzzing import command
from hugging_face import V10, V11, random_state, save
from run_files import TINY, tiny_t5
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
from attempt.foreign import read_foreign
from attempt.prompt import SoftPrompt
from model.checkpoint import empty_t5, load_t5
from model.config import T5Config
from model.safetensors import safetensors_bytes
from model.tokenizer import Tokenizer

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

    def pieces(self) -> dict[str, bytes]:
        """What may be put in another's place: a file's content by its name."""
        return {str(path.relative_to(self.folder)): self.valid[path] for path in self.chosen}

    def put(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def restore(self) -> None:
        """The valid files, and no others."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.valid:
                path.unlink()
        for path, content in self.valid.items():
            path.write_bytes(content)

    def damage(self, draw: random.Random) -> None:
        self.restore()
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
        empty_t5(config)


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
    save_prompt(
        folder / "p.safetensors", SoftPrompt(numbers(2, L, D)), PromptConfig("prompt", "m", ["a", "b"], [], "digits")
    )


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
    content = safetensors_bytes({"prompt_embeddings": numbers(2 * L, D)}, {"attempt.tasks": '["a"]'})
    (folder / "adapter_model.safetensors").write_bytes(content)


def make_multitask(folder: Path) -> None:
    tensors = {"prefix_task_cols": numbers(2, 2 * L, 1), "prefix_task_rows": numbers(2, 1, D)}
    config = {**SEQ2SEQ, "peft_type": "MULTITASK_PROMPT_TUNING", "num_tasks": 2}
    write_adapter(folder, {**tensors, "prompt_embeddings": numbers(2 * L, D)}, config)


def make_replication(folder: Path) -> None:
    write_adapter(folder, replication(L, K=2), {**SEQ2SEQ, "peft_type": "attempt", "temperature": 5.5})


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
    **run_files.MADE,
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
