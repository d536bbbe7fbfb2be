"""How programs end where their standard streams are closed, full, or read no further."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import REPOSITORY


def ended(work: str, redirection: str, out: int = subprocess.PIPE) -> tuple[int, str]:
    """(status, what comes out) of a program in a shell that does a work."""
    code = f"import sys; from model.errors import exit_status; sys.exit(exit_status('program', lambda: {work}))"
    words = ["sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, code]
    env = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        words, cwd=REPOSITORY, stdout=out, stderr=subprocess.PIPE, text=True, env=env, check=False, timeout=60
    )
    return done.returncode, (done.stdout or "") + done.stderr


@pytest.mark.parametrize(("stream", "number"), [("stdout", 1), ("stderr", 2)])
def test_what_is_written_to_a_closed_stream_is_lost(stream: str, number: int) -> None:
    assert ended(f"print(sys.{stream}.isatty(), file=sys.{stream})", f"{number}>&-") == (0, "")


@pytest.mark.parametrize(
    ("work", "status"),
    [
        ("print('a')", 141),
        ("print('a' * 100000)", 141),
        ("print('a', file=sys.stderr)", 0),
        ("print('a') or exit()", 0),
    ],
)
def test_a_reader_that_has_seen_enough_is_no_error(work: str, status: int) -> None:
    """Whether the output breaks in the work, or at its end. A program that ends by itself, as by --help, keeps that."""
    read, write = os.pipe()
    os.close(read)
    assert ended(work, "", write) == (status, "a\n" * ("stderr" in work))
    if "exit" not in work:
        assert ended(work, "2>&1", write) == (141, "")
    os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_one_line() -> None:
    assert ended("print('a')", ">/dev/full") == (2, "program: error: [Errno 28] No space left on device\n")
