"""Programs in processes of their own: they are compared there, and sampled when the parent says so."""

import argparse
import contextlib
import gc
import json
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict
from itertools import zip_longest
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.machine import REPOSITORY, peak_bytes
from benchmarks.timing import seconds
from model.errors import AttemptError

if TYPE_CHECKING:
    from benchmarks.harness import Benchmark, Case


class Worker:
    """Programs in a process that runs nothing else; it compares them, then takes samples of its rows when told to.

    A program that is measured is alone in its process, so that its memory is its own: what it holds at most, and how
    the C library deals with what is freed. It is ready once `begin` has returned.
    """

    def __init__(self, benchmark: "Benchmark", case: "Case", given: argparse.Namespace, names: list[str]) -> None:
        flags: list[str] = []
        for key, value in asdict(case).items():
            flags += ["--" + key.replace("_", "-"), str(value)] if key != "ragged" else ["--ragged"] * value
        flags += ["--device", given.device, "--worker", "--programs", *names]
        flags += ["--unchecked"] if given.unchecked else []
        flags += ["--threads", str(given.threads)] if given.threads else []
        module = benchmark.prog.removeprefix("python -m ")
        self.names, self.rows = names, list[str]()
        self.command = [sys.executable, "-W", "ignore", "-m", module, *flags]
        # a pipe could be full while nobody reads it
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - it is there as long as the worker
        self.process = subprocess.Popen(
            self.command, stdin=PIPE, stdout=PIPE, stderr=self.errors, text=True, cwd=REPOSITORY
        )

    def begin(self) -> dict[str, str]:
        """Wait until its programs stand; how far they agree."""
        begun = self.read()
        self.rows = begun["rows"]
        agreement: dict[str, str] = begun["agreement"]
        return agreement

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            if line:  # else it has ended
                self.process.kill()
            status = self.process.wait()
            self.errors.seek(0)
            told = self.errors.read()
            if status == 2:  # it says itself what it expected and found
                raise AttemptError(told.strip().partition("error: ")[2]) from None
            raise AttemptError(
                f"{shlex.join(self.command)}: expected its figures, found status {status}\n{line}{told}"
            ) from None

    def write(self, row: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # read() tells what it died of
            self.process.stdin.write(row + "\n")
            self.process.stdin.flush()

    def sample(self, row: str) -> float:
        self.write(row)
        taken: float = self.read()["seconds"]
        return taken

    def close(self) -> dict[str, Any]:
        """End it; the bytes that it has held at most, and what it said of its graphs."""
        self.write("")
        found: dict[str, Any] = self.read()
        self.process.communicate()
        self.errors.seek(0)
        found["graphs"] = [line.strip() for line in self.errors if line.startswith(("graph ", "no graphs "))]
        self.errors.close()
        return found

    def kill(self) -> None:
        """End it, should it not have ended."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def work(benchmark: "Benchmark", case: "Case", given: argparse.Namespace) -> None:
    """The other side of Worker. What the programs print goes to stderr: stdout has the answers."""
    device, stdout = torch.device(given.device), sys.stdout

    def tell(**found: Any) -> None:
        print(json.dumps(found), file=stdout, flush=True)

    with contextlib.redirect_stdout(sys.stderr):
        works, agreement = benchmark.prepare(case, given.programs, device, not given.unchecked)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        tell(rows=list(works), agreement=agreement)
        while row := sys.stdin.readline().strip():
            tell(seconds=seconds(works[row], device))
        tell(peak_bytes=peak_bytes(device))


class Group:
    """Programs that are there at the same time, and take turns.

    `first` has the seconds of each row's first sample, in which kernels are made and graphs captured. With `failed`,
    a program that ends in an error is left out, and its error put there; without, the error is raised. One that has
    no first sample after `limit` seconds is ended.
    """

    def __init__(
        self, workers: list[Worker], side_by_side: bool, failed: dict[str, str] | None, limit: float | None
    ) -> None:
        self.workers, self.failed, self.first = workers, failed, dict[str, float]()
        timers = [threading.Timer(limit, worker.process.kill) for worker in workers if limit]
        for timer in timers:
            timer.start()
        try:
            for worker in workers:
                with self._told(worker):
                    worker.begin()
            for batch in [workers] if side_by_side else [[worker] for worker in workers]:
                self._sample_first(batch)
        except BaseException:
            self.kill()
            raise
        finally:
            for timer in timers:
                timer.cancel()

    def _sample_first(self, workers: list[Worker]) -> None:
        for rows in zip_longest(*(worker.rows for worker in workers)):
            asked = [(w, row) for w, row in zip(workers, rows, strict=True) if row and w in self.workers]
            for worker, row in asked:  # all at once: kernels are made on many cores
                worker.write(row)
            for worker, row in asked:
                with self._told(worker):
                    self.first[row] = worker.read()["seconds"]

    @contextlib.contextmanager
    def _told(self, worker: Worker) -> Iterator[None]:
        try:
            yield
        except AttemptError as e:
            if self.failed is None:
                raise
            worker.kill()
            self.failed |= {name: str(e) for name in worker.names}
            self.workers = [other for other in self.workers if other is not worker]

    def close(self) -> dict[str, dict[str, Any]]:
        """End them; of each row what its process told at its end."""
        return {row: found for worker in self.workers for found in [worker.close()] for row in worker.rows}

    def kill(self) -> None:
        for worker in self.workers:
            worker.kill()
