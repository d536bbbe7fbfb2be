"""How much memory loading takes at its peak: python -m benchmarks.peak --model t5-3b --layers 4 --precision bf16

A random checkpoint of these shapes is written to a temporary folder; a process of its own loads it, and puts the faster
forms in. Linux only.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from attempt.machine.device import DTYPES, keep_memory
from benchmarks.shapes import SHAPES, random_state
from model.checkpoint import hugging_face_names, load_t5
from model.fast import Forms, quicken
from model.safetensors import safetensors_bytes


def anonymous() -> int:
    """This process's memory that is no file's, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def measure(folder: Path, precision: str) -> dict[str, float]:
    """In GB: the weights as kept, the peak of anonymous memory beyond the bare program's, and of all memory."""
    keep_memory()
    bare, peak, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    dtype = DTYPES[precision]
    t5 = quicken(load_t5(folder, "cpu", dtype).requires_grad_(False), Forms(), dtype)
    done.set()
    watcher.join()
    kept = sum(parameter.nbytes for parameter in t5.parameters())
    most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"kept": kept / 1e9, "anonymous": (peak - bare) / 1e9, "resident": most / 1e9}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peak", description="Peak memory of loading a T5.")
    add = parser.add_argument
    add("--model", choices=list(SHAPES), default="t5-3b", help="its shapes (default: %(default)s)")
    add("--layers", type=int, metavar="N", help="layers of each stack (default: the model's)")
    add("--stored", choices=list(DTYPES), default="bf16", help="the file's dtype (default: %(default)s)")
    add("--precision", choices=list(DTYPES), default="bf16", help="of the frozen T5 (default: %(default)s)")
    add("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.folder is not None:  # in the process of its own
        print(json.dumps(measure(given.folder, given.precision)))
        return 0
    config = SHAPES[given.model]
    config = dataclasses.replace(config, num_layers=given.layers or config.num_layers)
    with tempfile.TemporaryDirectory() as folder:
        names = hugging_face_names(config)
        state = random_state(config, torch.device("cpu"))
        tensors = {names[ours]: state.pop(ours).to(DTYPES[given.stored]) for ours in list(state)}
        (Path(folder) / "model.safetensors").write_bytes(safetensors_bytes(tensors, {}))
        sizes = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
        (Path(folder) / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.peak", "--folder", folder, "--precision", given.precision]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{given.model}, {config.num_layers} + {config.decoder_layers} layers, {given.stored} to {given.precision}:")
    print(f"    kept {found['kept']:.2f} GB, peak of anonymous memory {found['anonymous']:.2f} GB,")
    print(f"    of all, with the pages of the mapped file and the bare program, {found['resident']:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
