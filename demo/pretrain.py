"""Makes the demo's tiny T5 from nothing: python -m demo.pretrain --out demo/checkpoint

A SentencePiece model of the world's text, then span corruption and instructions (demo/mixture.py), half of each.
"""

import argparse
import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentencepiece import SentencePieceTrainer
from torch import Tensor
from torch.nn import functional as F

from data.batches import Batch, TokenSet, batches
from demo.mixture import LETTERS, instruction, text
from demo.spans import corrupt, unigram_loss
from demo.world import World
from model.checkpoint import hugging_face_names
from model.config import T5Config
from model.decoding import generate
from model.files import write_whole
from model.safetensors import safetensors_bytes
from model.t5 import IGNORED, T5, Attention
from model.tokenizer import Tokenizer

CONFIG = T5Config(
    d_model=128,
    d_kv=32,
    d_ff=256,
    num_layers=3,
    num_decoder_layers=2,
    num_heads=4,
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
    dropout_rate=0.0,
)
PIECES = 900
NAME = re.compile(r": [a-z]+ (?=\w+:)")
CHUNK = 64  # batches made at a time, examples of like length together
SHORT = 2  # tokens of a label, without EOS


def train_tokenizer(folder: Path, seed: int) -> Tokenizer:
    """A SentencePiece model whose pieces are mostly whole words; T5's pad, eos and unk."""
    world = World(f"{seed} vocabulary")
    lines = [text(world) for _ in range(8000)]
    # the meaningless names would become pieces: their place is between the colon and the first field
    lines += [NAME.sub(": ", " ".join(instruction(world))) for _ in range(16000)]
    lines += [
        f"word digit {' '.join(LETTERS)} 0 1 2 {' '.join(w)}" for w in (LETTERS, "0123456789") for _ in range(200)
    ]
    model = io.BytesIO()  # not a path, which would become a part of the file
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        hard_vocab_limit=False,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    write_whole(folder / "spiece.model", model.getvalue())
    return Tokenizer(folder / "spiece.model")


def initialize(t5: T5, seed: int) -> T5:
    """T5's first values: normal numbers, their deviation 1 in the embedding, else by the width of the input.

    With one difference: in half of the encoder's heads the keys are the queries, and a position does not look at
    itself, so that from the first step on a word sees whether it is said again elsewhere. Comparing two sentences
    begins there, and is slow to be found by chance.
    """
    generator = torch.Generator().manual_seed(seed)
    c = t5.config
    for name, p in t5.named_parameters():
        last = name.split(".")[-2]
        width = {"embedding": 1, "q": c.d_model * c.d_kv, "o": c.num_heads * c.d_kv, "wo": c.d_ff}
        if not last.endswith("norm"):
            torch.nn.init.normal_(p, std=width.get(last, c.d_model) ** -0.5, generator=generator)
    half = c.num_heads // 2 * c.d_kv
    with torch.no_grad():
        t5.encoder.relative_bias.table.weight[0, : c.num_heads // 2] = -8.0  # the bucket of distance 0
        for block in t5.encoder.blocks:
            attention = block.attention
            assert isinstance(attention, Attention)
            attention.k.weight[:half] = attention.q.weight[:half] * c.d_kv**0.5
    return t5


def token_set(pairs: list[tuple[list[int], list[int]]]) -> TokenSet:
    """(source ids, target ids), both without EOS, as the batches' TokenSet."""

    def flat(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.cumsum([0, *(len(row) + 1 for row in rows)])
        return np.array([i for row in rows for i in (*row, 1)], np.int32), offsets

    sources, targets = [s for s, _ in pairs], [t for _, t in pairs]
    longest = max(map(len, sources)) + 1
    none = np.zeros(len(pairs), np.int64)  # no tasks, no parts
    return TokenSet(*flat(sources), *flat(targets), none, none, longest)


def span_pairs(world: World, tokenizer: Tokenizer, count: int) -> list[tuple[list[int], list[int]]]:
    """Texts with spans hidden, and the spans."""
    ids = tokenizer.encode_batch([text(world) for _ in range(count)])
    return [corrupt(row, tokenizer.size, world.rng) for row in ids]


def instruction_pairs(world: World, tokenizer: Tokenizer, count: int) -> list[tuple[list[int], list[int]]]:
    tasks = [instruction(world) for _ in range(count)]
    encode = tokenizer.encode_batch
    return list(zip(encode([t[0] for t in tasks]), encode([t[1] for t in tasks]), strict=True))


def stream(seed: int, tokenizer: Tokenizer, batch_size: int, spans: float) -> Iterator[Batch]:
    """Batches without an end; `spans` is the share of corrupted texts."""
    world, chunk = World(f"{seed} pretraining"), 0
    while True:
        corrupted = round(CHUNK * batch_size * spans)
        tasks = instruction_pairs(world, tokenizer, CHUNK * batch_size - corrupted)
        kinds = [  # of like target length: labels, longer answers, hidden spans
            [pair for pair in tasks if len(pair[1]) <= SHORT],
            [pair for pair in tasks if len(pair[1]) > SHORT],
            span_pairs(world, tokenizer, corrupted),
        ]
        made = [batch for pairs in kinds if pairs for batch in batches(token_set(pairs), batch_size, seed, chunk)]
        world.rng.shuffle(made)
        yield from made
        chunk += 1


def loss_of(t5: T5, batch: Batch) -> Tensor:
    """Cross-entropy in nats: the mean over the examples of the mean over an example's tokens.

    So that an answer of one word counts as much as a hidden span.
    """
    logits = t5(batch.ids, batch.mask, batch.labels)  # (B,T,V)
    nats = F.cross_entropy(logits.transpose(1, 2), batch.labels, ignore_index=IGNORED, reduction="none")  # (B,T)
    return (nats.sum(1) / (batch.labels != IGNORED).sum(1)).mean()


@torch.no_grad()
def span_loss(t5: T5, tokenizer: Tokenizer, count: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Nats per target token on corrupted held-out texts: the model's, and a unigram model's on the same targets."""
    train = span_pairs(World(f"{seed} unigram"), tokenizer, 10 * count)
    held_out = token_set(span_pairs(World(f"{seed} held out", held_out=True), tokenizer, count))
    total, tokens = 0.0, 0
    for batch in batches(held_out, 100, None):
        found = int((batch.labels != IGNORED).sum())
        total += t5.loss(batch.ids, batch.mask, batch.labels).item() * found
        tokens += found
    return total / tokens, unigram_loss(token_set(train).targets, held_out.targets, t5.config.vocab_size)


def accuracies(t5: T5, tokenizer: Tokenizer, count: int = 1000) -> dict[str, float]:
    """Share of exactly right answers on held-out instructions, by the instruction's words."""
    world = World("instructions", held_out=True)
    tasks = [instruction(world) for _ in range(count)]
    encode = tokenizer.encode_batch
    data = token_set(list(zip(encode([t[0] for t in tasks]), encode([t[1] for t in tasks]), strict=True)))
    right: dict[str, list[bool]] = {}
    for batch in batches(data, 100, None):
        answers = generate(t5, batch.ids, batch.mask, 24).tolist()
        for i, row in zip(batch.index.tolist(), answers, strict=True):
            name = tasks[i][0].split(" :")[0]
            right.setdefault(name, []).append(tokenizer.decode(row) == tasks[i][1])
    return {name: sum(found) / len(found) for name, found in sorted(right.items())}


def save(t5: T5, folder: Path) -> None:
    """config.json and model.safetensors (fp16) in Hugging Face's layout."""
    config = asdict(t5.config) | {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
    state, names = t5.state_dict(), hugging_face_names(t5.config)
    tensors = {theirs: state[ours].half() for ours, theirs in names.items()}
    write_whole(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    write_whole(folder / "model.safetensors", safetensors_bytes(tensors, {"format": "pt"}))


def pretrain(options: argparse.Namespace) -> None:
    tokenizer = train_tokenizer(options.out, options.seed)
    config = replace(CONFIG, vocab_size=-(-tokenizer.size // 32) * 32)
    t5 = initialize(T5(config), options.seed).to(options.device).train()
    print(f"{sum(p.numel() for p in t5.parameters()):,} parameters, {tokenizer.size} pieces", flush=True)
    rates = {"embedding": options.embedding_lr, "rest": options.lr}
    groups: list[dict[str, Any]] = [
        {"params": [t5.embedding.weight], "name": "embedding"},
        {"params": [p for p in t5.parameters() if p is not t5.embedding.weight], "name": "rest"},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.01)
    warmup = min(500, options.steps // 10)
    started, losses = time.monotonic(), []
    source = stream(options.seed, tokenizer, options.batch_size, options.spans)
    for step in range(options.steps):
        # a linear rise, then a linear fall to zero
        factor = min((step + 1) / warmup, (options.steps - step) / (options.steps - warmup))
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]] * factor
        loss = loss_of(t5, next(source).to(options.device))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(t5.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if (step + 1) % options.report == 0 or step + 1 == options.steps:
            save(t5, options.out)
            mean, seconds = torch.stack(losses).mean().item(), time.monotonic() - started
            losses.clear()
            print(f"step {step + 1}: loss {mean:.3f} nats/token, {seconds:.0f} s", flush=True)
            score = {name: f"{100 * share:.0f}" for name, share in accuracies(t5, tokenizer).items()}
            print("    right answers, %: " + ", ".join(f"{n} {s}" for n, s in score.items()), flush=True)
    ours, unigram = span_loss(t5.eval(), tokenizer)
    print(f"held-out span corruption: {ours:.3f} nats/token, a unigram model {unigram:.3f}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="demo.pretrain", description="Make the demo's tiny T5.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=10000, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="default: %(default)s examples")
    parser.add_argument("--lr", type=float, default=7e-4, help="AdamW's highest rate (default: %(default)s)")
    # the embedding's numbers are of size 1, those of the matrices about a tenth of that
    parser.add_argument("--embedding-lr", type=float, default=0.006, help="the embedding's (default: %(default)s)")
    parser.add_argument("--spans", type=float, default=0.2, help="share of corrupted texts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--report", type=int, default=1000, metavar="N", help="steps between reports")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    pretrain(parser.parse_args(argv))


if __name__ == "__main__":
    main()
