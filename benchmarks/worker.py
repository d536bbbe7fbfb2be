"""Programs in processes of their own: they are compared there, and sampled when the parent says so."""

import argparse
import contextlib
import gc
import json
import math
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
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
        self.names, self.rows, self.late = names, list[str](), ""
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
            if self.late:
                raise AttemptError(self.late) from None
            if status == 2:  # it says itself what it expected and found
                raise AttemptError(told.strip().partition("error: ")[2]) from None
            raise AttemptError(
                f"{shlex.join(self.command)}: expected its figures, found status {status}\n{line}{told}"
            ) from None

    @contextlib.contextmanager
    def ended_after(self, limit: float | None) -> Iterator[None]:
        """End it where what is done here takes more than so many seconds; its next figures are then missing."""
        timer = threading.Timer(limit or 0, self._end, [limit])
        if limit:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self, limit: float) -> None:
        self.late = f"expected a first sample within {limit:g} s, found none; give it more with --first-limit"
        self.process.kill()

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
    no first sample after `limit` seconds is ended; the others are not.
    """

    def __init__(
        self, workers: list[Worker], side_by_side: bool, failed: dict[str, str] | None, limit: float | None
    ) -> None:
        self.all, self.failed, self.limit, self.first = workers, failed, limit, dict[str, float]()
        try:
            if side_by_side:  # kernels are made on many cores
                with ThreadPoolExecutor(len(workers)) as pool:
                    list(pool.map(self._begin, workers))
            else:  # a first sample is taken when all have been loaded
                for worker in workers:
                    self._begin(worker, Worker.begin)
                for worker in self.workers:
                    self._begin(worker, self._first)
        except BaseException:
            self.kill()
            raise

    @property
    def workers(self) -> list[Worker]:
        """Those that have not failed."""
        return [worker for worker in self.all if not (self.failed and self.failed.keys() & set(worker.names))]

    def _begin(self, worker: Worker, *what: Callable[[Worker], object]) -> None:
        with self._told(worker), worker.ended_after(self.limit):
            for one in what or (Worker.begin, self._first):
                one(worker)

    def _first(self, worker: Worker) -> None:
        for row in worker.rows:
            self.first[row] = worker.sample(row)

    @contextlib.contextmanager
    def _told(self, worker: Worker) -> Iterator[None]:
        try:
            yield
        except AttemptError as e:
            if self.failed is None:
                raise
            worker.kill()
            self.failed |= {name: str(e) for name in worker.names}

    def sample(self, worker: Worker, row: str) -> float:
        """NaN of a program that has failed."""
        if worker in self.workers:
            with self._told(worker):
                return worker.sample(row)
        return math.nan

    def close(self) -> dict[str, dict[str, Any]]:
        """End them; of each row what its process told at its end."""
        told = dict[str, dict[str, Any]]()
        for worker in self.workers:
            with self._told(worker):
                told |= dict.fromkeys(worker.rows, worker.close())
        return told

    def kill(self) -> None:
        for worker in self.all:
            worker.kill()
