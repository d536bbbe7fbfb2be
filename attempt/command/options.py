"""What a training run can be told: one field a flag, with its default, unit and source.

Those of its tasks and their examples stand in data_options.py.
"""

import argparse
import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attempt import baselines, spot
from attempt.attention import POOLS, VARIANTS
from attempt.command.data_options import DataOptions
from attempt.command.flags import above_zero, flag, natural, number, positive, seed_number, share

# These may differ between a run and its continuation: they do not change what is computed, rounding aside.
MACHINE_FLAGS = {"out", "mirror", "data_dir", "log_every", "device"}
MACHINE_FLAGS |= {"tensorboard", "wandb", "plain", "graphs", "compile", "recompute", "accumulate", "shard"}


def spelled(name: str) -> str:
    """An option's name as a flag."""
    return "--" + name.replace("_", "-")


def spoken(value: object) -> str:
    """An option's value as it is given."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def difference(name: str, now: object, was: object) -> str:
    """How an option differs from a run's: "--lr 0.1 (was 0.3)"; now None: it is not given any more."""
    return f"{spelled(name)} {'left out' if now is None else spoken(now)} (was {spoken(was)})"


@dataclass(frozen=True)
class Options(DataOptions):
    """All that decides a run, as the user said it. What is None depends on the data, and a Plan has it."""

    method: str = flag(
        "method",
        "prompt: prompt tuning (Lester et al.); spot: prompt tuning from another task's prompt (Vu et al.); "
        "attempt: a mixture of prompts (Asai et al.); finetune, adapter (Houlsby et al.), bitfit (Ben Zaken et al.)",
        "attempt",
        choices=["prompt", "spot", "attempt", *baselines.METHODS],
    )
    model: str = flag(
        "method", "a checkpoint's name or folder: the T5 (t5-base: Asai et al.)", "t5-base", metavar="NAME"
    )
    ignore_added_tokens: bool = flag(
        "method",
        "take a T5 to whose vocabulary tokens were added, though texts with them are read as unknown pieces",
        False,
        action="store_true",
    )

    init: str | None = flag(
        "prompt",
        "first value of the prompt: vocab, uniform, labels, text:WORDS, source (the first source prompt), "
        "or a prompt file or run folder (default: vocab, this program's; with --method attempt source, as in Asai et "
        "al.'s program; with spot what --transfer finds)",
        None,
    )
    prompt_length: int | None = flag(
        "prompt",
        "rows of the prompt, L (default: as long as the sources, else 100: Lester et al.)",
        None,
        type=positive,
        metavar="L",
    )
    shared_prompt: bool = flag("prompt", "one prompt for all tasks, instead of one each", False, action="store_true")
    source_prompts: list[str] = flag(
        "sources",
        "prompts to mix or to start from: run folders of --method prompt or spot, .safetensors, .pt, .npy files, or "
        "PEFT's adapters "
        "(default: the runs of the paper's six sources under runs/)",
        [],
        nargs="+",
        metavar="PATH",
    )

    transfer: str = flag(
        "transfer",
        "as in Vu et al.; best: train from each of the --top-k sources nearest to the target, keep the best on dev; "
        "average: start from their mean, weighted by similarity; mixture: from one prompt trained on their tasks and "
        "the target's",
        "best",
        choices=list(spot.TRANSFERS),
    )
    top_k: int = flag("transfer", "how many sources", 3, type=positive, metavar="K")
    similarity: str = flag(
        "transfer",
        "of two prompts: average, the cosine of their mean rows; tokens, the mean cosine of their rows",
        "average",
        choices=list(spot.SIMILARITIES),
    )
    early_prompt: str | None = flag(
        "transfer",
        "run or file with the target's own prompt to compare with (default: it is trained, as in Vu et al.)",
        None,
        metavar="PATH",
    )
    early_steps: int | None = flag(
        "transfer",
        "steps of the prompt to compare with (default: 10,000, Vu et al., but at most as many as the run's)",
        None,
        type=positive,
        metavar="N",
    )

    attention: str = flag(
        "mixture",
        "how G weighs the prompts: sub (Asai et al.), linear, dot, token (a weight per position), constant (no G)",
        "sub",
        choices=list(VARIANTS),
    )
    bottleneck: int = flag("mixture", "width of G's middle, R (100: Asai et al.)", 100, type=positive, metavar="R")
    temperature: float | None = flag(
        "mixture", "of the softmax (default: D*e, Asai et al.'s 2087 at D = 768)", None, type=above_zero, metavar="X"
    )
    learn_temperature: bool = flag(
        "mixture", "train the temperature, D*exp(clamp(tau, 0.005, 5))", False, action="store_true"
    )
    fix_attention: bool = flag("mixture", "keep G at its first values", False, action="store_true")
    freeze_norm: bool = flag(
        "mixture", "keep G's LayerNorm at 1/0, as the released program does", False, action="store_true"
    )
    pool: str = flag(
        "mixture",
        "what G sees of a text's embeddings: their max (Asai et al.), their mean, or centred: the max less its running "
        "mean over the training batches, with which G tells texts apart",
        "max",
        choices=list(POOLS),
    )
    pool_pads: bool = flag(
        "mixture",
        "let padding count in the max of all texts shorter than --max-source-length, as in the released program",
        False,
        action="store_true",
    )
    load_attention: str | None = flag(
        "mixture",
        "start from the G of an earlier run: its folder or checkpoint, or a folder with the authors' attn_W_*.pt",
        None,
        metavar="PATH",
    )
    attention_lr: float | None = flag(
        "mixture",
        "learning rate of the attention network (default: --lr; 0.1 in Asai et al.'s multi-task runs)",
        None,
        type=number,
        metavar="LR",
    )
    use_target: bool = flag(
        "mixture", "mix the sources alone (an ablation)", True, action="store_false", option="--no-target"
    )

    steps: int | None = flag(
        "training", "length of the run in steps, whatever --epochs says", None, type=positive, metavar="N"
    )
    epochs: int | None = flag(
        "training",
        "length of the run in passes over the training set (default: 20 for sets up to 10k examples, "
        "else 5 for prompt and 10 for the other methods: Asai et al.)",
        None,
        type=positive,
        metavar="N",
    )
    max_steps: int | None = flag(
        "training", "at most N steps, whatever --epochs gives", None, type=positive, metavar="N"
    )
    batch_size: int = flag("training", "examples a step (32: both papers)", 32, type=positive, metavar="N")
    lr: float | None = flag(
        "training",
        "learning rate (default: 0.3 for prompts: all three papers; 3e-4 for the baselines: Asai et al.'s program)",
        None,
        type=number,
    )
    optimizer: str = flag(
        "training",
        "adamw (Asai et al.) or adafactor, as T5X defines it (Lester et al.)",
        "adamw",
        choices=["adamw", "adafactor"],
    )
    schedule: str | None = flag(
        "training",
        "linear: down to 0 at the end; constant (default: linear for adamw: Asai et al.; constant for adafactor: "
        "Lester et al.)",
        None,
        choices=["linear", "constant"],
    )
    warmup: int | None = flag(
        "training",
        "steps over which the rate rises (default: 500, but at most a tenth of the run, for the linear "
        "schedule: Asai et al.; 0 for the constant one: Lester et al.)",
        None,
        type=natural,
        metavar="N",
    )
    weight_decay: float | None = flag(
        "training",
        "default: 1e-5 for prompt and for prompts with adafactor (Asai et al., Lester et al.), else 0 "
        "(Asai et al.'s program)",
        None,
        type=number,
        metavar="W",
    )
    clip: float | None = flag(
        "training",
        "largest gradient norm, 0 for none (default: 1.0 for adamw: Asai et al.; 0 for adafactor, which "
        "clips its own updates)",
        None,
        type=number,
        metavar="NORM",
    )
    skip_bad_steps: bool = flag(
        "training",
        "leave out, and count, steps whose loss or gradient is not finite (default: the run ends at one); it ends all "
        "the same where no step between two evaluations is finite; a GPU is waited for at every step",
        False,
        action="store_true",
    )
    dropout: float | None = flag(
        "training", "share of dropped activations (default: the checkpoint's, 0.1 in all papers)", None, type=share
    )
    seed: int = flag("training", "seed of the first values, the order of the data and dropout", 42, type=seed_number)

    plain: bool = flag(
        "speed",
        "compute as model/t5.py spells it out, not in the faster forms of model/fast.py",
        False,
        action="store_true",
    )
    compile: bool = flag(
        "speed",
        "let torch.compile make fewer and larger kernels for the T5's blocks, which takes up to half a minute",
        False,
        action="store_true",
    )
    graphs: bool = flag(
        "speed",
        "on a GPU, start each kernel by itself, not all of a step or of an answer at once, as a CUDA graph",
        True,
        action="store_false",
        option="--no-graphs",
    )
    recompute: bool = flag(
        "speed",
        "keep each encoder layer's input alone for the way back and compute the rest again: a third more time, for "
        "models whose activations do not fit",
        False,
        action="store_true",
    )
    sequence_dropout: bool = flag(
        "speed",
        "draw dropout once for all positions of a sequence, as T5's own code does: another regularisation, and cheaper",
        False,
        action="store_true",
    )
    accumulate: int = flag(
        "speed",
        "compute each step's batch in N parts, one after the other, so that it needs less memory; of several processes "
        "each does so with its share",
        1,
        type=positive,
        metavar="N",
    )
    shard: bool = flag(
        "speed",
        "for a model that does not fit: share the frozen T5 out among torchrun's processes, in the GPU's precision",
        False,
        action=argparse.BooleanOptionalAction,
    )

    eval_every: int | None = flag(
        "run",
        "steps from one evaluation on dev to the next (default: an epoch's, this program's)",
        None,
        type=positive,
        metavar="N",
    )
    patience: int | None = flag(
        "run",
        "stop after N evaluations without a better score (default: run all steps, as the papers do)",
        None,
        type=positive,
        metavar="N",
    )
    answer_by: str = flag(
        "run",
        "generate: write the answer, token by token (all papers); labels: choose the most probable label, which is "
        "never invalid and so not comparable; not for free text",
        "generate",
        choices=["generate", "labels"],
    )
    eval_batch_size: int = flag("run", "examples answered at once", 64, type=positive, metavar="N")
    log_every: int = flag("run", "steps from one line of progress to the next", 50, type=positive, metavar="N")
    tensorboard: bool = flag(
        "run",
        "write the curves for TensorBoard too, into tensorboard/ in the run's folder (extra [tensorboard])",
        False,
        action=argparse.BooleanOptionalAction,
    )
    wandb: str | None = flag(
        "run",
        "send the curves to this project of Weights & Biases too (extra [wandb]); with WANDB_MODE=offline they are "
        "kept in the run's folder",
        None,
        metavar="PROJECT",
    )
    device: str = flag("run", "auto, cpu, cuda, cuda:1, mps", "auto")
    precision: str = flag(
        "run",
        "auto: bf16 where the GPU has it, else fp32; fp16 overflows in several T5 checkpoints",
        "auto",
        choices=["auto", "fp32", "bf16", "fp16"],
    )
    out: str | None = flag("run", "folder of the run (default: runs/TASK-METHOD-MODEL)", None, metavar="DIR")
    mirror: str | None = flag("run", "server that has the files of all hosts, at URL/HOST/PATH", None, metavar="URL")
    data_dir: str | None = flag(
        "run", "folder that has them, at DIR/HOST/PATH: no network is used", None, metavar="DIR"
    )

    @property
    def model_name(self) -> str:
        """The checkpoint's name without its owner or folder."""
        return Path(self.model).name

    def folder(self) -> Path:
        return Path(self.out or f"runs/{'+'.join(self.task)}-{self.method}-{self.model_name}")

    def stored(self) -> dict[str, Any]:
        """What a file holds of them: no name and password of a mirror."""
        mirror = self.mirror and re.sub(r"(?<=://)[^/]*@", "", self.mirror)
        return {**dataclasses.asdict(self), "mirror": mirror}

    def epoch_examples(self, sizes: Sequence[int]) -> int:
        """Examples in an epoch, from the tasks' numbers of training examples: at most --mixing-cap of each."""
        return sum(min(size, self.mixing_cap or size) for size in sizes)

    def epoch_steps(self, sizes: Sequence[int]) -> int:
        """Steps in an epoch, whose last batch may be smaller than the others."""
        return math.ceil(self.epoch_examples(sizes) / self.batch_size)
