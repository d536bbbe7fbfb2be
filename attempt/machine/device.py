"""Where a run computes, in which precision, and in which of the equal forms."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from attempt.baselines import METHODS
from attempt.command.options import Options
from model.errors import AttemptError, meant
from model.fast import PLAIN, Forms, quicken
from model.t5 import T5

KERNELS = 64  # versions of a block that torch.compile may make: for training, answers, lengths that it tells apart
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Machine:
    """A device, the dtype of its matrix products, and why. Prompts and optimizer states are always fp32."""

    device: torch.device
    precision: str
    reason: str

    def autocast(self) -> torch.autocast:
        """Matrix products in the chosen precision; norms, softmax and the loss in fp32."""
        return torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "fp32")

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss so that fp16 gradients do not vanish; does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def kept(self, options: Options) -> torch.dtype:
        """What the T5's matrices are kept in: the products' dtype where they are frozen, whole and not plain."""
        plain = options.plain or options.shard or options.method in METHODS
        return DTYPES["fp32" if plain else self.precision]

    def quicken(self, t5: T5, options: Options) -> None:
        """Put the faster forms in the place of the plain ones, as the options say; after what is trained in the T5."""
        forms = PLAIN if options.plain else Forms(dropout=not options.compile)  # the compiler draws by itself
        whole = not (options.plain or options.shard)  # a part of a matrix can be neither joined to another nor scaled
        forms = replace(forms, fuse=whole, sequence_dropout=options.sequence_dropout)
        quicken(t5, forms, self.kept(options))
        t5.encoder.recompute = options.recompute
        if options.compile:
            compile_t5(t5)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"{self.device} ({name}), {self.precision}: {self.reason}"


def choose_machine(device: str, precision: str) -> Machine:
    """`device` "auto" is the GPU if there is one; `precision` "auto" is bf16 on a GPU that has it, else fp32."""
    cuda = torch.cuda.is_available()
    if device == "auto":
        device = "cuda" if cuda else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as e:
        problem = str(e).split("\n", maxsplit=1)[0]
        raise AttemptError(
            f"--device {device}: expected a device of this machine, found none{meant(device, DEVICES)} ({problem})"
        ) from None
    if precision == "auto":
        return Machine(chosen, *_automatic(chosen))
    if chosen.type == "cpu" and precision == "bf16" and cpu_has_bf16():
        return Machine(chosen, precision, "as asked; this CPU multiplies in it")
    if precision != "fp32" and chosen.type != "cuda":
        raise AttemptError(
            f"--precision {precision}: expected a CUDA GPU (for bf16 also a CPU with AMX or AVX-512 BF16), found "
            f"{chosen.type}, where it is slower than fp32; use --precision fp32"
        )
    if chosen.type == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise AttemptError("--precision bf16: expected a GPU that has it (Ampere or later); use fp32 or fp16")
    return Machine(chosen, precision, "as asked")


def _automatic(device: torch.device) -> tuple[str, str]:
    if device.type != "cuda":
        return "fp32", "the only fast precision without a CUDA GPU"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "this GPU has it, and it does not overflow"
    return "fp32", "this GPU has no bf16, and fp16 overflows in several T5 checkpoints (--precision fp16 to try)"


def compile_t5(t5: T5) -> None:
    """Let torch.compile make kernels for the blocks at the first batch: one block's serve all of its stack.

    dynamic: they serve all lengths, too.
    """
    torch._dynamo.config.recompile_limit = KERNELS
    for block in (*t5.encoder.blocks, *t5.decoder.blocks):
        block.compile(dynamic=True)


def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for it: without them bf16 is many times slower than fp32."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # PyTorch's older versions cannot tell
    found: dict[str, Any] = capabilities() if capabilities else {}
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


def keep_memory() -> None:
    """Let the C library keep freed memory for the next tensor.

    glibc gives large blocks back to the system at once; each of the next step's tensors would be mapped in again page
    by page, which takes up to half of a step's time on a CPU (docs/performance.md).
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries than glibc have none, or one that does nothing
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_TOP_PAD, 64 << 20)


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of malloc.h


@contextmanager
def memory_told(tried: str = "what was asked for", saved: str = "") -> Iterator[None]:
    """Where the memory does not suffice, say with what, which flags need less, and what is saved."""
    try:
        yield
    except RuntimeError as e:  # PyTorch's OutOfMemoryError is one, and the CPU's allocator raises a plain one
        if "out of memory" not in str(e) and "can't allocate memory" not in str(e):
            raise
        raise AttemptError(
            f"out of memory with {tried}; halve the batch sizes, or give a smaller --model, or in training a "
            f"smaller --max-source-length, or on GPUs --precision bf16 or --shard{saved}"
        ) from None
