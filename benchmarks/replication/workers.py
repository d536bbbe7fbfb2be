"""Processes that make one run after another, so that Python, PyTorch and CUDA start once in each, not once a run."""

import contextlib
import gc
import multiprocessing
import os
import sys
import threading
import traceback
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from types import TracebackType

import torch

import train
from model.errors import AttemptError

FAULT = 1  # the status of a run that ended with what is no AttemptError; its log has all of it


class Started:
    """A run of a worker, with what runner.py asks of a process."""

    def __init__(self, future: "Future[int]") -> None:
        self.future = future

    def poll(self) -> int | None:
        return self.returncode if self.future.done() else None

    @property
    def returncode(self) -> int:
        if (error := self.future.exception()) is not None:  # the worker is gone
            raise AttemptError(f"expected a worker to go on, found its end ({error}); give the same command again")
        return self.future.result()


class Workers:
    """At most so many of them, which start when there is something to do; each has one thread."""

    def __init__(self, most: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.pool = ProcessPoolExecutor(most, multiprocessing.get_context("spawn"), _ready, (str(folder),))

    def begin(self, words: list[str], log: Path, mode: str) -> Started:
        return Started(self.pool.submit(_run, words, str(log), mode))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.shutdown(wait=error is None, cancel_futures=True)


def _ready(folder: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(folder)
    torch.set_num_threads(1)  # sums are the same beside whatever


def _end_with_parent() -> None:
    """However that ends: a worker that is alone would wait for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _run(words: list[str], log: str, mode: str) -> int:
    """train.py's status; what it says goes to the log."""
    with (
        open(log, mode, encoding="utf-8", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            status = train.main(words)
        except SystemExit as e:  # words that it does not know
            status = e.code if isinstance(e.code, int) else FAULT
        except Exception:
            traceback.print_exc(file=sys.stderr)
            status = FAULT
    gc.collect()
    torch.cuda.empty_cache()  # the other workers need it; without CUDA it does nothing
    return status
