"""A frozen T5 that is shared out among the processes: each keeps a part of every matrix (FSDP2).

A block's matrices are put together when it is computed, forward and backward, and taken apart after. What is small
stays whole: norms, bias tables, the embedding and the head. The prompts are every process's own copy, as always.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from attempt.machine import distributed
from attempt.machine.device import DTYPES, Machine
from model.checkpoint import check_finite, open_t5
from model.errors import AttemptError
from model.t5 import T5


def load_shared_out(folder: Path, machine: Machine) -> T5:
    """The T5 in a folder, frozen, its blocks' matrices in the machine's precision; each process reads its part only."""
    if distributed.size() == 1:
        raise AttemptError("--shard: expected several processes to share the model, found one; start them by torchrun")
    t5, tensors = open_t5(folder)
    t5.requires_grad_(False).eval()
    matrices = {id(m): m for m in t5.modules() if isinstance(m, nn.Linear) and m is not getattr(t5, "head", None)}
    for linear in matrices.values():
        linear.to(DTYPES[machine.precision])
    share_out(t5, machine.device)
    t5.to_empty(device=machine.device)
    parameters = dict(t5.named_parameters())
    for name, tensor in tensors.items():
        check_finite(folder, t5, name, fill(parameters[name], tensor))
    warm_up(t5)
    t5.all_done = all_done
    return t5


def share_out(t5: T5, device: torch.device) -> None:
    """Give each process a part of the blocks' matrices. Here they have shapes only, and take no memory."""
    mesh = init_device_mesh(device.type, (distributed.size(),))
    small = {parameter for parameter in t5.parameters() if parameter.ndim < 2}
    for stack in (t5.encoder, t5.decoder):
        for block in stack.blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=small)
        # no matrix is left to share out, but one owner for all blocks lets the next one's arrive while one computes
        fully_shard(stack, mesh=mesh, ignored_params=set(stack.parameters()))


def fill(parameter: nn.Parameter, tensor: Tensor) -> Tensor:
    """Copy a tensor of the file into a parameter, or this process's rows of it into its part; returns what it read."""
    place = parameter.data
    if isinstance(place, DTensor):
        place = place.to_local()
        rows = tensor.chunk(distributed.size())  # as FSDP2 cuts: fewer or shorter ones where it does not come out even
        tensor = rows[distributed.rank()] if distributed.rank() < len(rows) else tensor[:0]
    place.copy_(tensor)
    return tensor


def warm_up(t5: T5) -> None:
    """Put each block together once: done first under inference_mode, no gradient could pass through it later."""
    for stack in (t5.encoder, t5.decoder):
        for block in stack.blocks:
            block.unshard()  # type: ignore[operator]
            block.reshard()  # type: ignore[operator]


def all_done(done: Tensor) -> bool:
    """Whether all answers of all processes have ended: a block can only be computed by all of them."""
    return not bool(distributed.take_largest((~done).any().int().cpu()))
