"""The frozen T5 with its tokenizer, on its machine: what turns batches into answers."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from attempt import baselines
from attempt.command.options import Options
from attempt.machine import distributed
from attempt.machine.device import Machine, choose_machine, keep_memory
from attempt.machine.graphs import Graphs, new_graphs
from attempt.prompt import SoftPrompt
from data.batches import Batch
from data.download import Downloader
from model.checkpoint import check_folder, find_checkpoint, load_t5
from model.decoding import generate, label_scores
from model.errors import AttemptError, note
from model.t5 import T5
from model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Backbone:
    """The T5, its tokenizer, and where they run."""

    t5: T5
    tokenizer: Tokenizer
    machine: Machine
    graphs: Graphs | None = None
    """What starts all kernels of an answer at once, on a GPU."""

    @classmethod
    def load(cls, options: Options, downloader: Downloader) -> "Backbone":
        if options.shard and options.method in baselines.METHODS:
            raise AttemptError(f"--shard: expected a frozen T5 to share out, found --method {options.method}")
        if options.shard and options.compile:
            raise AttemptError("expected --shard or --compile, found both: a shared out T5 is not compiled")
        machine = choose_machine(options.device, options.precision)
        if machine.device.type == "cpu" and not options.shard:  # its parts are to be given back after each block
            keep_memory()
        distributed.check_device(machine.device)
        folder = find_checkpoint(options.model, downloader.fetch)
        check_folder(folder)
        tokenizer = Tokenizer(folder / "spiece.model", options.ignore_added_tokens)
        if options.shard:
            from attempt.machine.shard import load_shared_out  # noqa: PLC0415 - PyTorch's FSDP takes 1.6 s to import

            t5 = load_shared_out(folder, machine)
        else:
            t5 = load_t5(folder, machine.device, machine.kept(options)).requires_grad_(False)
        if t5.config.vocab_size < tokenizer.size:
            raise AttemptError(
                f"{folder}: expected an embedding for each of the tokenizer's {tokenizer.size} pieces, "
                f"found {t5.config.vocab_size}; are config.json and spiece.model of the same checkpoint?"
            )
        if t5.config.vocab_size != tokenizer.size and t5.config.vocab_size % 4:  # not rounded up, as T5's 32,128 are
            note(
                f"{folder}: {t5.config.vocab_size} embeddings for {tokenizer.size} pieces and sentinels; tokens "
                "that were added to the vocabulary are read as unknown pieces"
            )
        if options.dropout is not None:
            t5.set_dropout(options.dropout)
        return cls(t5, tokenizer, machine, new_graphs(machine, options))

    def generate(self, prompt: SoftPrompt | None, batch: Batch, length: int, rows: int) -> Tensor:
        """Greedy answers (B,T) of at most `length` tokens to a batch of at most `rows` texts."""
        if self.graphs:
            return self.graphs.generate(self.machine, self.t5, prompt, batch, rows, length)
        batch = batch.to(self.machine.device)
        with self.machine.autocast():
            return generate(self.t5, batch.ids, batch.seen, length, prompt, batch.tasks)

    def label_scores(self, prompt: SoftPrompt | None, batch: Batch, labels: Tensor, rows: int) -> Tensor:
        """The log-probabilities (B,C) of labels (C,T) after a batch of at most `rows` texts."""
        if self.graphs:
            return self.graphs.label_scores(self.machine, self.t5, prompt, batch, rows, labels)
        batch = batch.to(self.machine.device)
        with self.machine.autocast():
            return label_scores(self.t5, batch.ids, batch.seen, labels.to(self.machine.device), prompt, batch.tasks)


def new_downloader(options: Options) -> Downloader:
    """Fetches files from where the options say."""
    return Downloader(mirror=options.mirror, data_dir=Path(options.data_dir) if options.data_dir else None)
