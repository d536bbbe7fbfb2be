"""Reads damaged files in a process of its own, and notes what ends otherwise than it should.

An input must be read, or end in one AttemptError of one short printable line: no other exception, no crash of the
process, no hang, little memory. A crash or hang ends the child process; another one goes on with the next input.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import os
import random
import re
import resource
import select
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from model.errors import AttemptError

SECONDS = 10  # of the processor's time for one input; they take some milliseconds
GIGABYTES = 2  # of address space beyond what is in use before
MEGABYTES = 400  # of memory that one input may add to the most that was ever in use
LONGEST = 2100  # characters of a message


class Subject(Protocol):
    """A reader, its valid files in a folder, and how to damage one of them."""

    name: str

    def damage(self, draw: random.Random) -> None:
        """Puts the valid files back, and damages one."""

    def read(self) -> None:
        """Reads all; raises what must not be accepted as something else than an AttemptError."""

    def paths(self) -> list[Path]:
        """The files."""


@dataclass
class Outcome:
    """What became of the inputs: how often "read" and "refused"; the failures; the most memory in use, in MB."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    megabytes: float = 0.0


def fuzz(subject: Subject, count: int, seed: int, keep: Path | None = None, first: int = 0) -> Outcome:
    """Inputs first … first+count-1 of a seed; keep: a folder for the files of each failure."""
    outcome, i = Outcome(), first
    while i < first + count:
        i = _with_child(subject, range(i, first + count), seed, keep, outcome)
    return outcome


def _with_child(subject: Subject, inputs: range, seed: int, keep: Path | None, outcome: Outcome) -> int:
    """Lets a child process read as many as it can; the first input that is left."""
    out, into = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(out)
        _read_all(subject, inputs, seed, into)
    os.close(into)
    where, problem, left, since = inputs.start, "", b"", 0.0
    while not problem:
        if not select.select([out], [], [], SECONDS)[0]:
            if _processor_seconds(child) > since + 2 * SECONDS:  # in code that looks at no signal
                problem = f"no end in {2 * SECONDS} s"
                os.kill(child, signal.SIGKILL)
            continue
        block = os.read(out, 1 << 16)
        if not block:
            break
        *lines, left = (left + block).split(b"\n")
        since = _processor_seconds(child)
        for line in lines:
            note = json.loads(line)
            where = note.get("input", where)
            outcome.megabytes = max(outcome.megabytes, note.get("megabytes", 0.0))
            outcome.counts[note.get("outcome", "started")] += 1
            if "problem" in note:
                _keep(subject, seed, where, note["problem"], keep, outcome)
    os.close(out)
    _, status = os.waitpid(child, 0)
    if status and not problem:
        problem = (
            f"the process ended by {'signal' if os.WIFSIGNALED(status) else 'status'} {status & 127 or status >> 8}"
        )
    if problem:
        _keep(subject, seed, where, problem, keep, outcome)
        return where + 1
    return inputs.stop


def _keep(subject: Subject, seed: int, i: int, problem: str, keep: Path | None, outcome: Outcome) -> None:
    outcome.failures.append(f"{subject.name}, seed {seed}, input {i}: {problem}")
    if keep is not None:
        subject.damage(random.Random(f"{seed} {subject.name} {i}"))
        for path in subject.paths():
            (keep / f"{subject.name}-{i}-{path.name}").write_bytes(path.read_bytes())


def _read_all(subject: Subject, inputs: range, seed: int, into: int) -> None:
    """The child process: it never returns."""
    status = 1
    try:
        faulthandler.disable()  # pytest's: a crash is told by its status
        torch.set_num_threads(1)  # the parent's other threads do not exist here
        warnings.simplefilter("ignore")
        _limit_memory()
        signal.signal(signal.SIGPROF, _alarm)
        subject.read()  # the valid files
        for i in inputs:
            subject.damage(random.Random(f"{seed} {subject.name} {i}"))
            os.write(into, f'{{"input": {i}}}\n'.encode())
            before = _peak()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            note = noted(subject.read)
            signal.setitimer(signal.ITIMER_PROF, 0)
            note["megabytes"] = _peak()
            if _peak() - before > MEGABYTES:
                note["problem"] = f"{_peak() - before:.0f} MB more memory in use"
            os.write(into, f"{json.dumps(note)}\n".encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _processor_seconds(process: int) -> float:
    """What it has used so far: a busy machine, or one that was suspended, makes no input slow."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _alarm(*_: object) -> None:
    raise TimeoutError(f"no end in {SECONDS} s")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def noted(read: Callable[[], None]) -> dict[str, Any]:
    """What became of an input: its "outcome", or the "problem"."""
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            read()
    except AttemptError as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST or not text.isprintable():
            return {"problem": f"a message of {len(text)} characters, or not of one printable line: {text!r:.300}"}
        if "expected" not in text and "cannot be read" not in text:
            return {"problem": f"a message without what was expected: {text}"}
        return {"outcome": "refused"}
    except Exception as error:  # whatever it is, it is a bug
        last = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in last if "site-packages" not in frame.filename] or last
        place = f"{Path(own[-1].filename).name} line {own[-1].lineno}"
        return {"problem": f"{type(error).__name__}: {error!s:.200} in {place}"}
    return {"outcome": "read"}


def _limit_memory() -> None:
    if not os.path.exists("/proc/self/statm"):
        return
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    most = used + GIGABYTES * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def command(
    doc: str, names: Sequence[str], subjects: Callable[[str], contextlib.AbstractContextManager[Subject]]
) -> int:
    """The command of fuzz_files.py and fuzz_checkpoints.py; subjects: the one of a name, in a folder."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="inputs a reader (default: 10000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="other inputs (default: 0)")
    parser.add_argument("--reader", nargs="+", choices=names, default=names, help="only these (default: all)")
    parser.add_argument("--keep", type=Path, help="a folder for the files of each failure")
    given = parser.parse_args()
    bad, megabytes = 0, 0.0
    for name in given.reader:
        with subjects(name) as subject:
            outcome = fuzz(subject, given.count, given.seed, given.keep, given.first)
        read, refused, failed = outcome.counts["read"], outcome.counts["refused"], len(outcome.failures)
        bad, megabytes = bad + failed, max(megabytes, outcome.megabytes)
        print(f"{name:14} {given.count} inputs: {read} read, {refused} refused, {failed} bad", flush=True)
        kinds: dict[str, list[str]] = {}
        for failure in outcome.failures:
            kinds.setdefault(re.sub(r"\d+|'.*|/.*", "", failure.partition(": ")[2])[:60], []).append(failure)
        for alike in sorted(kinds.values(), key=len, reverse=True):
            print(f"    {len(alike)} x {alike[0]:.400}", flush=True)
    print(f"{bad} failures; at most {megabytes:.0f} MB of memory in use")
    return bad > 0
