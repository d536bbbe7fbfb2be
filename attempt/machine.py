"""Where a run computes, and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from attempt.errors import AttemptError

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
        raise AttemptError(f"--device {device}: expected a device of this machine, found none ({problem})") from None
    if precision == "auto":
        return Machine(chosen, *_automatic(chosen))
    if precision != "fp32" and chosen.type != "cuda":
        raise AttemptError(
            f"--precision {precision}: expected a CUDA GPU, found {chosen.type}, where it is slower than fp32; "
            "use --precision fp32"
        )
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise AttemptError("--precision bf16: expected a GPU that has it (Ampere or later); use fp32 or fp16")
    return Machine(chosen, precision, "as asked")


def _automatic(device: torch.device) -> tuple[str, str]:
    if device.type != "cuda":
        return "fp32", "the only fast precision without a CUDA GPU"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "this GPU has it, and it does not overflow"
    return "fp32", "this GPU has no bf16, and fp16 overflows in several T5 checkpoints (--precision fp16 to try)"


@contextmanager
def memory_told(tried: str) -> Iterator[None]:
    """Where the memory does not suffice, say with what, and which flags need less."""
    try:
        yield
    except RuntimeError as e:  # PyTorch's OutOfMemoryError is one, and the CPU's allocator raises a plain one
        if "out of memory" not in str(e) and "can't allocate memory" not in str(e):
            raise
        raise AttemptError(
            f"out of memory with {tried}; halve the batch sizes, or give a smaller --max-source-length, or --precision "
            "bf16 on a GPU; what was saved last is still whole: --resume goes on with other --batch-size by --change"
        ) from None
