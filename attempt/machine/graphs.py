"""Steps and answers as CUDA graphs: all that one shape of batch starts on a GPU is recorded once, and started as one.

A GPU computes most of T5's kernels in less time than Python needs to start one, and a step of T5-base has two thousand.
A graph reads and writes the same addresses whenever it is replayed. So its inputs are copied to fixed places, what it
changes (gradients, prompts, the optimizer's state) stays where it is, and what differs from step to step is a tensor.

Shapes: B batch, S text positions, T decoder positions, C labels.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from attempt.command.options import Options
from attempt.machine.device import Machine
from model.decoding import Writer, label_scores
from model.errors import briefly
from model.t5 import T5, PromptProvider

WARM_UPS = 3  # times that a function runs before it is recorded: kernels are chosen and compiled, workspaces made
MODE = "thread_local"  # of a capture: NCCL's own thread may ask the GPU in the meantime
PIECE = 8  # tokens of an answer that are written before the host looks whether all answers have ended

Outputs = tuple[Tensor, ...]


class Batch(Protocol):
    """What a step needs of a batch, or of a part of one (data/batches.py has one)."""

    ids: Tensor  # (B,S)
    mask: Tensor  # (B,S)
    labels: Tensor  # (B,T)
    tasks: Tensor  # (B,)
    full: bool  # whether no source is padded
    tokens: int | Tensor  # target tokens of the whole batch

    @property
    def seen(self) -> Tensor | None:
        """The mask (B,S), where one is needed."""

    @property
    def tensors(self) -> Outputs:
        """All that is to be computed with."""

    def of(self, *tensors: Tensor) -> "Batch":
        """The same with other tensors of these shapes."""

    def filled(self, rows: int) -> "Batch":
        """The same in one of a few shapes, with rows that do not count."""

    def to(self, device: torch.device) -> "Batch": ...


class Recorder(Protocol):
    """What records a function's work on a device (the tests have one that works without a GPU)."""

    device: torch.device

    def record(self, function: Callable[[], Outputs], warm_ups: int) -> tuple[Callable[[], None], Outputs]:
        """What does the function's work again, and the tensors in which its results are then."""

    def forget(self) -> None: ...
    def random_state(self) -> Tensor: ...
    def set_random_state(self, state: Tensor) -> None: ...


class CudaRecorder:
    """Records CUDA graphs. All share one stream and one pool of memory, for one is replayed after the other."""

    def __init__(self, device: torch.device) -> None:
        with torch.cuda.device(device):
            self.device = torch.device("cuda", torch.cuda.current_device())
            self.stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.forget()

    def record(self, function: Callable[[], Outputs], warm_ups: int) -> tuple[Callable[[], None], Outputs]:
        with torch.cuda.device(self.device):
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                for _ in range(warm_ups):
                    function()
                graph = torch.cuda.CUDAGraph()
                try:
                    with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode=MODE):
                        results = function()
                except RuntimeError:
                    # a capture that breaks off can leave the generator waiting for its end; its numbers are restored
                    fresh = torch.Generator(self.device)
                    torch.cuda.default_generators[self.device.index].graphsafe_set_state(fresh)
                    raise
            torch.cuda.current_stream().wait_stream(self.stream)
        return graph.replay, results

    def forget(self) -> None:
        """Let the next graphs have memory of their own: that of the last ones may be in use as long as they are."""
        self.pool = torch.cuda.graph_pool_handle()

    def random_state(self) -> Tensor:
        return torch.cuda.get_rng_state(self.device)

    def set_random_state(self, state: Tensor) -> None:
        torch.cuda.set_rng_state(state, self.device)


class Inputs:
    """Tensors at fixed places on a device, filled by one copy."""

    def __init__(self, like: Sequence[Tensor], device: torch.device) -> None:
        self.shapes = [(t.dtype, t.shape, t.nbytes, -(-t.nbytes // 16) * 16) for t in like]
        self.size = sum(room for *_, room in self.shapes)
        self.bytes = torch.zeros(self.size, dtype=torch.uint8, device=device)
        self.tensors = self.views(self.bytes)

    def views(self, buffer: Tensor) -> list[Tensor]:
        views, start = [], 0
        for dtype, shape, size, room in self.shapes:
            views.append(buffer[start : start + size].view(dtype).view(shape))
            start += room
        return views

    def fill(self, tensors: Sequence[Tensor]) -> None:
        # pinned memory is given back for use when the copy is over, by the allocator that PyTorch has for it
        host = torch.empty(self.size, dtype=torch.uint8, pin_memory=self.bytes.is_cuda)
        for place, tensor in zip(self.views(host), tensors, strict=True):
            place.copy_(tensor)
        self.bytes.copy_(host, non_blocking=True)


class Graph:
    """A function of tensors, recorded for one shape of them; what it changes while it is recorded is put back."""

    def __init__(
        self,
        recorder: Recorder,
        function: Callable[..., Outputs],
        inputs: Sequence[Tensor],
        changes: Sequence[Tensor] = (),
        warm_ups: int = WARM_UPS,
    ) -> None:
        self.inputs = Inputs(inputs, recorder.device)
        self.inputs.fill(inputs)
        # detached: a copy with a gradient's history would hold nodes that belong to another stream than the recorder's
        before, random = [tensor.detach().clone() for tensor in changes], recorder.random_state()
        try:
            self.replay, self.results = recorder.record(lambda: function(*self.inputs.tensors), warm_ups)
        finally:
            recorder.set_random_state(random)
            with torch.no_grad():
                for tensor, value in zip(changes, before, strict=True):
                    tensor.copy_(value)

    def __call__(self, inputs: Sequence[Tensor]) -> Outputs:
        self.inputs.fill(inputs)
        self.replay()
        return tuple(result.clone() for result in self.results)


class Graphs:
    """A run's graphs, each recorded when it is needed first. After an error all is computed without them."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.graphs: dict[Hashable, Graph] = {}
        self.widest: Batch | None = None
        """A batch as long as any: recorded first, so that the others find room in its memory."""
        self.failed = False

    def lacks(self, key: Hashable) -> bool:
        """Whether a graph of that key is still to be recorded."""
        return not self.failed and key not in self.graphs

    def record(
        self,
        what: str,
        key: Hashable,
        function: Callable[..., Outputs],
        inputs: Sequence[Tensor] = (),
        changes: Callable[[], Sequence[Tensor]] = tuple,
        warm_ups: int = WARM_UPS,
    ) -> None:
        """Record a graph, unless there is one of that key. `changes`: the tensors that the function changes."""
        if not self.lacks(key):
            return
        start = time.monotonic()
        try:
            self.graphs[key] = Graph(self.recorder, function, inputs, changes(), warm_ups)
        except RuntimeError as e:  # PyTorch's errors of memory, of CUDA and of its compiler are all of this kind
            self.failed = True
            self.clear()
            tqdm.write(f"no graphs  of {what} ({briefly(e)}): from now on each kernel is started separately")
        else:
            tqdm.write(f"graph      of {what}, made in {time.monotonic() - start:.1f} s")

    def run(self, key: Hashable, function: Callable[..., Outputs], inputs: Sequence[Tensor] = ()) -> Outputs:
        """The function's results: by the graph of that key, or by itself where there is none."""
        if key in self.graphs:
            return self.graphs[key](inputs)
        return function(*(tensor.to(self.recorder.device) for tensor in inputs))

    def clear(self) -> None:
        """Forget all graphs: what they change has got other places."""
        self.graphs.clear()
        self.recorder.forget()

    def add(self, add: Callable[[Batch], None], batch: Batch, changes: Callable[[], Sequence[Tensor]]) -> None:
        """What a batch adds to the gradients and the loss; `changes`: these."""
        for each in (self.widest or batch, batch):
            key = ("add", each.full, each.ids.shape, each.labels.shape)

            def function(*tensors: Tensor, each: Batch = each) -> Outputs:
                add(each.of(*tensors))
                return ()

            self.record(
                f"a step, {shape_of(each)}, targets of {each.labels.size(1)}", key, function, each.tensors, changes
            )
        self.run(key, function, batch.tensors)

    @torch.inference_mode()
    def generate(
        self, machine: Machine, t5: T5, prompt: PromptProvider | None, batch: Batch, rows: int, max_length: int
    ) -> Tensor:
        """Greedy answers (B,T) as model/decoding.py's `generate` has them, to a batch of at most `rows` texts."""
        whole = batch.filled(rows)
        length = max_length if max_length <= PIECE else -(-max_length // PIECE) * PIECE
        key = ("answer", prompt, whole.full, whole.ids.shape, length)
        inputs, found = (whole.ids, whole.mask, whole.tasks), list[Writer]()

        @torch.inference_mode()
        def begin(ids: Tensor, mask: Tensor, tasks: Tensor) -> Outputs:
            with machine.autocast():
                found[:] = [Writer(t5, ids, None if whole.full else mask, length, prompt, tasks)]
            return go_on()

        @torch.inference_mode()
        def go_on() -> Outputs:
            with machine.autocast():
                for _ in range(min(PIECE, length)):
                    found[0].write()
            return found[0].answers, found[0].done

        self.record(f"answers of {length} tokens, {shape_of(whole)}", key, begin, inputs)
        if length > PIECE:  # recorded before anything is answered, and not warmed up: it would move what is written
            self.record(f"the next {PIECE} tokens", (*key, "next"), go_on, warm_ups=0)
        answers, done = self.run(key, begin, inputs)
        written = PIECE
        while written < length and not t5.all_done(done):
            answers, done = self.run((*key, "next"), go_on)
            written += PIECE
        return answers[: len(batch.ids), :max_length]

    @torch.inference_mode()
    def label_scores(
        self, machine: Machine, t5: T5, prompt: PromptProvider | None, batch: Batch, rows: int, labels: Tensor
    ) -> Tensor:
        """The labels' log-probabilities (B,C) as model/decoding.py's `label_scores` has them; labels (C,T)."""
        whole = batch.filled(rows)
        key = ("scores", prompt, whole.full, whole.ids.shape, labels.shape)

        @torch.inference_mode()
        def function(ids: Tensor, mask: Tensor, tasks: Tensor, labels: Tensor) -> Outputs:
            with machine.autocast():
                return (label_scores(t5, ids, None if whole.full else mask, labels, prompt, tasks),)

        inputs = whole.ids, whole.mask, whole.tasks, labels
        self.record(f"{len(labels)} labels' scores, {shape_of(whole)}", key, function, inputs)
        return self.run(key, function, inputs)[0][: len(batch.ids)]


def shape_of(batch: Batch) -> str:
    B, S = batch.ids.shape
    return f"{B} texts of {'' if batch.full else 'up to '}{S} tokens"


def new_graphs(machine: Machine, options: Options) -> Graphs | None:
    """None where each kernel is to be started by itself: without a CUDA GPU, or by the options."""
    if machine.device.type != "cuda" or not options.graphs or options.plain:
        return None
    for flags, given, why in (
        ("--recompute", options.recompute, "which asks for the state of the random numbers in between"),
        ("--shard", options.shard, "whose processes send each other parts of the T5 in between"),
        ("--skip-bad-steps and fp16", options.skip_bad_steps and machine.precision == "fp16", "which look at the loss"),
    ):
        if given:
            print(f"no graphs  with {flags}, {why}: each kernel is started separately")
            return None
    return Graphs(CudaRecorder(machine.device))
