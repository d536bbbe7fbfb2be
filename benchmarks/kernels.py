"""What a step runs on the device: python -m benchmarks.kernels --model t5-base --device cuda --precision bf16

For each program the kernels of a step and the time that they take, by kind, from torch.profiler; and what a step in a
half precision must not run: a matrix product in fp32, and attention spelled out over two long sequences. Both are seen
in PyTorch's own operations, of the same step without its graph, and a second time in the kernels' names. Where graphs
are the default they must be launched: a capture that failed goes on without a word but one line.
"""

import contextlib
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from attempt.command.flags import Parser, positive
from benchmarks.evaluate import LONG
from benchmarks.harness import Case
from benchmarks.machine import save
from benchmarks.ours import FORMS, Ours
from benchmarks.shapes import SHAPES
from benchmarks.timing import figure, markdown, seconds
from model.errors import AttemptError, exit_status

STEPS = 5
LONG_SEQUENCE = 16  # the decoder's few positions may be looked at in any form
KINDS = {  # the first that is found in a kernel's name
    "attention": r"fmha|flash|attention|sdpa",
    "products": r"gemm|gemv|cutlass|nvjet|xmma|cublas|splitk|aten::(mm|bmm|addmm|baddbmm)$",
    "compiled": r"triton",
    "optimizer": r"multi_tensor|adam|foreach",
    "dropout": r"dropout|philox|bernoulli|random",
    "softmax": r"softmax",
    "norms": r"norm|reduce|mean",
    "copies": r"copy|memcpy|memset|cast|cat|fill|index",
    "elementwise": r"elementwise|vectorized|add|mul",
}
IN_FP32 = re.compile(r"sgemm|f32f32|tf32|gem[mv]\w*<(int, int, )?float", re.IGNORECASE)
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")


class Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of a step that should not be there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        if name in PRODUCTS and result.dtype == torch.float32:
            shapes = [str(tuple(x.shape)) for x in args if isinstance(x, Tensor)]
            self.found[f"product in fp32, {name} of {' and '.join(shapes)}"] += 1
        if name == "_softmax" and min(result.shape[-2:]) > LONG_SEQUENCE:
            self.found[f"attention spelled out, {tuple(result.shape)}"] += 1
        return result


def seen(work: Callable[[], object]) -> dict[str, int]:
    """What is wrong in the operations of a work, forward and backward."""
    with Seen() as mode:
        work()
    return dict(mode.found)


def kind_of(kernel: str) -> str:
    return next((kind for kind, words in KINDS.items() if re.search(words, kernel, re.IGNORECASE)), "other")


def kernels_of(work: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """A work's kernels and launches, per time that it is done."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as found:
        start = time.perf_counter()
        for _ in range(STEPS):
            work()
        if cuda:
            torch.cuda.synchronize(device)
        wall = time.perf_counter() - start
    count, spent, launches = Counter[str](), Counter[str](), 0
    for event in found.events() or []:
        launches += event.name == "cudaGraphLaunch"
        on_device = event.device_type != DeviceType.CPU
        if on_device and not getattr(event, "is_user_annotation", False) and "#" not in event.name:
            count[event.name] += 1
            spent[event.name] += event.time_range.elapsed_us()
        elif not cuda and event.name.startswith("aten::"):
            count[event.name] += 1
            spent[event.name] += event.self_cpu_time_total
    kinds: dict[str, list[float]] = {}
    for name, number in count.items():
        entry = kinds.setdefault(kind_of(name), [0.0, 0.0])
        entry[0], entry[1] = entry[0] + number / STEPS, entry[1] + spent[name] / STEPS / 1e3
    longest = [
        {"name": name[:200], "a_step": count[name] / STEPS, "ms": us / STEPS / 1e3}
        for name, us in spent.most_common(15)
    ]
    return {
        "kernels": sum(count.values()) / STEPS,
        "milliseconds": sum(spent.values()) / STEPS / 1e3,
        "profiled_milliseconds": wall / STEPS * 1e3,
        "graph_launches": launches / STEPS,
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1][1])),
        "longest": longest,
        "in_fp32": sorted(name[:200] for name in count if kind_of(name) == "products" and IN_FP32.search(name)),
    }


def problems(row: dict[str, Any], form: str, precision: str, mixes: bool) -> list[str]:
    """What must not be on a GPU. G and the mixture are in fp32 on purpose."""
    graphs = form in ("all", "compiled")
    found = [] if not graphs or row["graph_launches"] else ["no graph was launched"]
    if precision == "fp32" or mixes:
        return found
    found += [f"{what}: {count} times" for what, count in row["seen"].items()]
    found += [f"a kernel in fp32: {name}" for name in row["in_fp32"]]
    return found if row["kinds"].get("attention") or row["what"] != "step" else [*found, "no fused attention ran"]


def works_of(case: Case, name: str, device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is profiled: a step, and answers."""
    program, batch = case.programs([name], device)[name], case.batch(device, name)
    assert isinstance(program, Ours)
    program.set_dropout(case.dropout)
    yield "step", lambda: program.step(batch)
    yield f"{LONG} tokens", lambda: program.generate(batch, LONG)


def rows_of(case: Case, name: str, device: torch.device) -> list[dict[str, Any]]:
    form, rows = name.rpartition(", ")[2], []
    for what, work in works_of(case, name, device):
        for _ in range(3):  # kernels are made, graphs captured
            work()
        taken = statistics.median(seconds(work, device) for _ in range(STEPS))
        row: dict[str, Any] = {"program": name, "what": what, "step_milliseconds": taken * 1e3, "seen": {}}
        row |= kernels_of(work, device)
        if form in ("all", "eager", "plain"):  # in a graph nothing is seen: the same step without one
            eager = name.replace("all", "eager") if device.type == "cuda" else name
            same = dict(works_of(case, eager, device))[what]
            row["seen"] = seen(same)
        found = problems(row, form, case.precision, ": " in name) if device.type == "cuda" else []
        rows.append({**row, "problem": "; ".join(found)})
    return rows


def table_of(rows: list[dict[str, Any]]) -> str:
    head = ["program", "what", "ms", "kernels", "graph launches", "device ms", "of which"]
    lines = [head]
    for row in rows:
        kinds = ", ".join(f"{kind} {figure(ms)} ({n:.0f})" for kind, (n, ms) in list(row["kinds"].items())[:6])
        figures = [figure(row["step_milliseconds"]), f"{row['kernels']:.0f}", f"{row['graph_launches']:g}"]
        lines.append([row["program"], row["what"], *figures, figure(row["milliseconds"]), kinds])
    return markdown(lines)


def new_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.kernels", description="What a step runs on the device.")
    add = parser.add_argument
    programs = ["ours, eager", "ours, all", "attempt: ours, all"]
    add("--model", default="t5-small", choices=SHAPES, metavar="NAME", help="default: %(default)s")
    add("--batch-size", type=positive, default=32, metavar="N", help="default: 32")
    add("--text-tokens", type=positive, default=40, metavar="N", help="default: 40")
    add("--prompt-length", type=positive, default=100, metavar="N", help="default: 100")
    add("--precision", default="fp32", choices=["fp32", "bf16", "fp16"], help="default: fp32")
    add("--programs", nargs="+", default=programs, metavar="NAME", help=f"ours, in {', '.join(FORMS)}")
    add("--device", default="cpu", help="default: cpu")
    add("--out", type=Path, metavar="FILE", help="write the figures, as JSON")
    return parser


def run(argv: Sequence[str] | None) -> None:
    given = new_parser().parse_args(argv)
    case = Case(
        given.model, given.text_tokens, given.batch_size, 0.1, given.precision, given.prompt_length, 2, ragged=True
    )
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: print(table_of(rows), flush=True))
        for name in given.programs:
            rows += rows_of(case, name, torch.device(given.device))
            save(given.out, {"case": str(case), "rows": rows})
    if bad := [row for row in rows if row["problem"]]:
        told = f"{bad[0]['program']}, {bad[0]['what']}: {bad[0]['problem']}"
        raise AttemptError(f"expected no product in fp32, no attention spelled out, and graphs; found {told}")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m benchmarks.kernels", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
