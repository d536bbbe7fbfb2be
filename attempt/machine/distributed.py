"""Several processes at one run, as torchrun starts them: torchrun --nproc-per-node N train.py …

Each process, a rank, takes its share of every batch; their gradients are added up, so that all of them hold the same
prompts and the same optimizer state. Rank 0 alone writes the run's files and prints. In a single process, without
torchrun, no function here does anything. Control messages go over the CPU (gloo), so that a GPU never waits for one.
"""

import contextlib
import gc
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from model.errors import AttemptError, Interrupted

TIMEOUT = timedelta(minutes=10)  # for a step, whose parts are of one size, or for a batch of an evaluation
PATIENCE = timedelta(hours=24)  # for loading: one machine may still be downloading what another has
BUCKET = 1 << 24  # gradients added up at a time: copying them takes 64 MB
STRIDE = 1_000_003  # between the ranks' seeds, so that --seeds 1 2 3 share no stream

T = TypeVar("T")
_store: Store | None = None
_patient: dist.ProcessGroup | None = None


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is rank 0, which writes and prints; so is a process alone."""
    return rank() == 0


def together(work: Callable[[], None], advice: str) -> None:
    """Do a program's work as one of torchrun's processes. Of an error that several of them have, one tells.

    advice: what to do when another process was lost, which breaks the next thing that is done together.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys() or dist.is_initialized():
        work()
        return
    try:
        _join()
        with _silence(not is_main()):
            work()
        _leave()
    except RuntimeError as e:
        if not _is_lost(e):
            raise
        _give_way(2)
        own = f"process {rank()} of {size()} ({socket.gethostname()}, pid {os.getpid()})"
        raise AttemptError(
            f"{own}: lost another one, which ended or did not answer for {TIMEOUT.seconds // 60} minutes "
            f"({_first_line(e)}); torchrun's report names it; {advice}"
        ) from None
    except (AttemptError, OSError):
        _give_way(2)
        raise
    except Interrupted as e:
        if not is_main():
            raise SystemExit(e.status) from None
        raise


def _join() -> None:
    global _store, _patient  # noqa: PLW0603 - as torch.distributed's own groups: there is one job in a process
    # they take seconds, and once a group is there, their functions' defaults would keep that to the very end
    import torch.distributed.fsdp  # noqa: PLC0415
    import torch.distributed.tensor.debug  # noqa: PLC0415

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    _store, number, processes = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if cuda and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=_store, rank=number, world_size=processes, timeout=TIMEOUT)
    _patient = dist.new_group(backend="gloo", timeout=PATIENCE)


def _leave() -> None:
    """End the groups together, and their threads with them.

    A thread that still gives back a message's tensors while Python goes down ends its process by SIGABRT after all was
    done (pytorch issue 190489), and torchrun then ends the others, be they writing. A group's threads end with the
    last reference to it: a T5 that is shared out has some, in cycles, and so has what DTensor remembers of its parts.
    """
    global _store, _patient  # noqa: PLW0603
    wait_for_all()
    debug = sys.modules.get("torch.distributed.tensor.debug")
    if forget := getattr(debug, "_clear_sharding_prop_cache", None):
        forget()
    gc.collect()
    _store = _patient = None
    dist.destroy_process_group()


@contextlib.contextmanager
def _silence(silent: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if silent:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _is_lost(e: RuntimeError) -> bool:
    """Whether it says that another process is gone: gloo's errors are plain ones, NCCL's and the store's are not."""
    return isinstance(e, dist.DistError) or any(word in str(e) for word in ("gloo", "Connection closed by peer"))


def _first_line(e: Exception) -> str:
    return " ".join(str(e).split("\n", maxsplit=1)[0].split())


def _give_way(status: int) -> None:
    """End silently where another process has told of an error already: its error is the cause of this one, or equal."""
    try:
        others = _store.add("told", 1) > 1 if _store is not None else False
    except RuntimeError:  # nobody is left to ask
        others = False
    if others:
        raise SystemExit(status) from None


def check_device(device: torch.device) -> None:
    """Raises AttemptError where the processes of this machine would have to share a GPU, which NCCL refuses."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size())) if size() > 1 else 1
    if device.type != "cuda" or here == 1:
        return
    if str(device) != "cuda":
        raise AttemptError(f"--device {device}: expected --device cuda, which is another GPU to each process")
    if here > torch.cuda.device_count():
        raise AttemptError(
            f"expected a GPU for each of the {here} processes on this machine, found {torch.cuda.device_count()}; "
            f"give torchrun --nproc-per-node {torch.cuda.device_count()}, or train.py --device cpu"
        )


def seed(number: int) -> None:
    """Give each rank random numbers of its own; rank 0 has those of a process alone."""
    torch.manual_seed((number + rank() * STRIDE) % 2**63)


def wait_for_all() -> None:
    """Return when all ranks are here: what they have written is there for the others then."""
    if size() > 1:
        dist.barrier(group=_patient)


def decided(question: Callable[[], T]) -> T:
    """Rank 0's answer, which JSON can hold, or its AttemptError, on all ranks: for what depends on files it writes."""
    if size() == 1:
        return question()
    answer: dict[str, T | str] = {}
    if is_main():
        try:
            answer = {"answer": question()}
        except AttemptError as e:
            answer = {"error": str(e)}
    content = json.dumps(answer).encode()
    length = torch.tensor(len(content))
    dist.broadcast(length, 0, group=_patient)
    buffer = torch.from_numpy(np.frombuffer(content.ljust(int(length)), np.uint8)[: int(length)].copy())
    dist.broadcast(buffer, 0, group=_patient)
    found: dict[str, T] = json.loads(buffer.numpy().tobytes())
    if "error" in found:
        raise AttemptError(str(found["error"]))
    return found["answer"]


def local_first(work: Callable[[], T]) -> T:
    """Let one process of each machine do it before the others do: they find what it leaves in the cache."""
    if size() == 1 or os.environ["LOCAL_RANK"] == "0":
        result = work()
        wait_for_all()
        return result
    wait_for_all()
    return work()


def share_of(items: Sequence[T]) -> list[T]:
    """Every size()-th of them from the rank()-th on; the last one where there is none for this rank in the last round.

    So all ranks have as many, and none waits for another that is done: what is asked twice is answered twice alike.
    """
    rounds = -(-len(items) // size())
    return [items[min(i * size() + rank(), len(items) - 1)] for i in range(rounds)]


def merged(own: dict[int, str]) -> dict[int, str]:
    """The entries of all ranks."""
    if size() == 1:
        return own
    parts = _gather(torch.from_numpy(np.frombuffer(json.dumps(list(own.items())).encode(), np.uint8).copy()))
    return dict(item for part in parts for item in json.loads(part.numpy().tobytes()))


def gather_states(state: Tensor) -> list[Tensor]:
    """A tensor of bytes of each rank, in their order."""
    return [state] if size() == 1 else _gather(state)


def _gather(own: Tensor) -> list[Tensor]:
    """Tensors of bytes on the CPU, each of its own length."""
    lengths = [torch.zeros(1, dtype=torch.long) for _ in range(size())]
    dist.all_gather(lengths, torch.tensor([len(own)]))
    padded = own.new_zeros(int(max(lengths)))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]


def take_largest(values: Tensor) -> Tensor:
    """Each entry becomes the largest that a rank has there."""
    if size() > 1:
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


@torch.no_grad()
def copy_first(tensors: Iterable[Tensor]) -> None:
    """Rank 0's values for all."""
    if size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


@torch.no_grad()
def add_up(tensors: Iterable[Tensor]) -> None:
    """Each tensor becomes the sum of all ranks' of it: the gradients and the loss, a few at a time in one message."""
    if size() == 1:
        return
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        dist.all_reduce(flat)
        for tensor, total in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(total.view_as(tensor))


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    yield bucket
