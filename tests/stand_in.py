"""What records and replays a function's work without a GPU, as a CUDA graph does: operation by operation.

A replay knows nothing of Python: it repeats the recorded operations on the same tensors with the same numbers, so that
a number which should have been a tensor, or a tensor that has moved, shows as a wrong result.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

QUESTIONS = ("item", "tolist", "__bool__", "__float__", "__int__", "nonzero")  # for which a GPU would be waited for


class Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        with torch.inference_mode():
            for function, args, kwargs, result in self.operations:
                places = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
                for old, new in zip(tensors(result), tensors(function(*args, **kwargs)), strict=True):
                    if old.untyped_storage().data_ptr() not in places:  # neither a view nor changed in place
                        old.copy_(new)


def tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


class StandIn:
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.recordings: list[Recording] = []

    def record(
        self, function: Callable[[], tuple[Tensor, ...]], warm_ups: int
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        for _ in range(warm_ups):
            function()
        recording = Recording()
        with pytest.MonkeyPatch.context() as patch:
            for name in QUESTIONS:
                patch.setattr(Tensor, name, asked)
            with recording:
                results = function()
        self.recordings.append(recording)
        return recording.replay, results

    def forget(self) -> None:
        self.recordings.clear()

    def random_state(self) -> Tensor:
        return torch.get_rng_state()

    def set_random_state(self, state: Tensor) -> None:
        torch.set_rng_state(state)


def asked(*_: object) -> None:
    raise RuntimeError("a graph cannot be asked for a number")
