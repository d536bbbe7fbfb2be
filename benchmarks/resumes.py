"""Whether a run that is killed, and one under torchrun, end as the undisturbed one: python -m benchmarks.resumes

Runs of train.py on the demo's world (demo/), which needs no network, all at once:

whole      undisturbed
again      the same once more: should it differ, a kernel adds up in another order each time, and nothing else counts
killed     SIGKILL after the first evaluation, SIGTERM in the midst of training, each time --resume
torchrun   one process under torchrun: NCCL on a GPU, gloo elsewhere

Every prompt, metric and score must be the undisturbed run's, bit for bit.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from attempt.command.flags import Parser
from attempt.runs.folder import Run
from benchmarks.machine import REPOSITORY, save
from demo.data import demo_folder
from demo.show import HERE
from model.errors import AttemptError, exit_status
from model.safetensors import read_safetensors

SOURCES = sorted((HERE / "sources").glob("*/best.safetensors"))
COMMON = ["--model", str(HERE / "checkpoint"), "--batch-size", "32", "--eval-examples", "64"]
LENGTH = ["--prompt-length", "16"]
KINDS = {
    "attempt": ["--method", "attempt", "--task", "cola", "rte", *LENGTH, "--source-prompts", *map(str, SOURCES)],
    "prompt": ["--method", "prompt", "--task", "mrpc", *LENGTH, "--optimizer", "adafactor"],
    "finetune": ["--method", "finetune", "--task", "cola"],
}
WAYS = ("again", "killed", "torchrun")


class Trial:
    """A run in a folder of its own, from its start to its end."""

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self.words, self.run, self.kills = words, Run(folder), list[str]()

    def start(self, processes: int = 0) -> "subprocess.Popen[str]":
        """Begin, or go on with what is there."""
        command = [sys.executable]
        if processes:
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--"]
        words = ["--resume", str(self.run.folder)] if self.run.begun else [*self.words, "--out", str(self.run.folder)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen([*command, "train.py", *words], **streams, text=True, cwd=REPOSITORY, env=environment)

    def go(self, way: str) -> None:
        if way == "killed":
            self._kill()
        finish(self.start(processes=int(way == "torchrun")))

    def _kill(self) -> None:
        self._disturb(signal.SIGKILL, lambda: self._evaluations() > 0)
        before = self._evaluations()
        self._disturb(signal.SIGTERM, lambda: self._evaluations() > before)

    def _evaluations(self) -> int:
        with contextlib.suppress(OSError):
            return len(self.run.metrics.read_bytes().splitlines())
        return 0

    def _disturb(self, number: signal.Signals, when: Callable[[], bool]) -> None:
        process = self.start()
        while process.poll() is None and not when():
            time.sleep(0.005)
        time.sleep(0.05)  # into the steps that follow
        process.send_signal(number)
        text, _ = process.communicate()
        if process.returncode not in (-number, 128 + number):
            status = f"status {process.returncode}"
            raise AttemptError(f"expected a run that {number.name} ends, found {status}: {last_line(text)}")
        self.kills.append(f"{number.name} after evaluation {self._evaluations()}")

    def results(self) -> dict[str, Any]:
        """All that must be equal."""
        lines = self.run.metrics.read_text(encoding="utf-8").splitlines()
        metrics = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
        scores = json.loads(self.run.result.read_text(encoding="utf-8"))["scores"]
        return {"metrics": metrics, "scores": scores}

    def tensors(self) -> dict[str, torch.Tensor]:
        files = {path.name: read_safetensors(path)[0] for path in (self.run.best, self.run.last)}
        return {f"{file}: {name}": tensor for file, found in files.items() for name, tensor in found.items()}


def finish(process: "subprocess.Popen[str]") -> None:
    text, _ = process.communicate()
    if process.returncode:
        raise AttemptError(f"expected a run to its end, found status {process.returncode}: {last_line(text)}")


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def problem(trial: Trial, whole: Trial) -> str:
    """Where they differ; "" where they do not."""
    ours, base = trial.tensors(), whole.tensors()
    if ours.keys() != base.keys():
        return "other tensors"
    other = [name for name in base if not torch.equal(ours[name], base[name])]
    if other:
        off = max(((ours[n].double() - base[n].double()).norm() / base[n].double().norm()).item() for n in other)
        return f"{len(other)} of {len(base)} tensors differ, by {off:.1e} at most"
    return "" if trial.results() == whole.results() else "metrics or scores differ"


def compare(kind: str, ways: Sequence[str], common: list[str], root: Path) -> list[dict[str, str]]:
    """Each way beside the undisturbed run."""
    words = [*KINDS[kind], *COMMON, *common]
    trials = {way: Trial(words, root / kind / way) for way in ("whole", *ways)}
    rows = []
    with ThreadPoolExecutor(len(trials)) as pool:
        futures = {way: pool.submit(trial.go, way) for way, trial in trials.items()}
        for way, future in futures.items():
            error = future.exception()
            if error is not None or way != "whole":
                told = str(error) if error else problem(trials[way], trials["whole"])
                rows.append({"kind": kind, "way": way, "kills": ", ".join(trials[way].kills), "problem": told})
    return rows


def new_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.resumes", description="Whether disturbed runs end as undisturbed ones.")
    add = parser.add_argument
    add("--kinds", nargs="+", default=list(KINDS), choices=KINDS, metavar="KIND", help="default: all")
    add("--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY", help="default: all")
    add("--steps", default="120", metavar="N", help="of each run (default: %(default)s)")
    add("--device", default="cpu", help="default: cpu")
    add("--out", type=Path, metavar="FILE", help="write what was found, as JSON")
    return parser


def run(argv: Sequence[str] | None) -> None:
    given, more = new_parser().parse_known_args(argv)
    steps = ["--steps", given.steps, "--eval-every", str(int(given.steps) // 3), "--device", given.device]
    steps += ["--data-dir", str(demo_folder()), *more]
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1 if given.device == "cpu" else 3) as pool:
        for found in pool.map(lambda kind: compare(kind, given.ways, steps, Path(folder)), given.kinds):
            rows += found
            save(given.out, {"rows": rows})
    for row in rows:
        disturbed = f" ({row['kills']})" if row["kills"] else ""
        print(f"{row['kind']}, {row['way']}{disturbed}: {row['problem'] or 'bit for bit the undisturbed run'}")
    if bad := [row for row in rows if row["problem"]]:
        first = f"{bad[0]['kind']}, {bad[0]['way']}: {bad[0]['problem']}"
        raise AttemptError(f"expected every run to end as the undisturbed one, found {len(bad)} that do not: {first}")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m benchmarks.resumes", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
