"""Files that Hypothesis makes up, for every reader: other values in their JSON, other lines, other bytes.

The fuzzers damage what is valid; here the content follows the format and its meaning does not. An example that fails
is made as small as it gets. EXAMPLES=10000 python -m pytest tests/test_hypothesis.py is the longer command.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from typing import Any

import fuzz_checkpoints
import fuzz_files
import pytest
from fuzzing import noted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("EXAMPLES", "40"))
SAME = "EXAMPLES" not in os.environ  # the suite's examples are always the same
pytestmark = [pytest.mark.long] if SAME else []  # who says how many wants them run

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=9), v, max_size=4))


def contents(valid: bytes) -> st.SearchStrategy[bytes]:
    """Of the kind that the valid content is: a JSON object, lines of text, or bytes."""
    try:
        text = valid.decode("utf-8")
    except UnicodeDecodeError:
        return spliced(valid)
    try:
        found = json.loads(text)
    except ValueError:
        return lines(text)
    return objects(found) if isinstance(found, dict) else VALUES.map(dumped)


def objects(valid: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Some fields gone, some with values of another kind, some that nobody asked for."""
    names = st.sampled_from(sorted(valid)) if valid else st.text()
    other = st.dictionaries(names | st.text(max_size=9), VALUES, max_size=5)
    made = st.tuples(other, st.sets(names, max_size=3))
    return made.map(lambda m: dumped({k: v for k, v in {**valid, **m[0]}.items() if k not in m[1]}))


def dumped(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def lines(valid: str) -> st.SearchStrategy[bytes]:
    """Valid lines, their cells mixed, JSON and any text, in any order."""
    known = valid.split("\n")
    cells = st.sampled_from([cell for line in known for cell in line.split("\t")]) | st.text(max_size=20)
    rows = st.lists(cells, max_size=9).map("\t".join) | st.sampled_from(known) | VALUES.map(json.dumps)
    ends = st.sampled_from(["\n", "\r\n", "\r"])
    made = st.tuples(ends, st.lists(rows, max_size=12))
    return made.map(lambda m: m[0].join(m[1]).encode("utf-8", "surrogatepass"))


def spliced(valid: bytes) -> st.SearchStrategy[bytes]:
    place = st.integers(0, len(valid))
    made = st.tuples(place, place, st.binary(max_size=64))
    return made.map(lambda m: valid[: min(m[:2])] + m[2] + valid[max(m[:2]) :]) | st.binary(max_size=200)


@contextlib.contextmanager
def subject(name: str) -> Iterator[Any]:
    made = fuzz_files.subject if name in fuzz_files.READERS else fuzz_checkpoints.subject
    with made(name) as found:
        yield found


@pytest.mark.parametrize("name", [*fuzz_files.READERS, *fuzz_checkpoints.READERS])
def test_what_is_made_up_is_read_or_refused(name: str) -> None:
    with subject(name) as files:
        pieces = files.pieces()
        piece = st.sampled_from(sorted(pieces)).flatmap(lambda p: st.tuples(st.just(p), contents(pieces[p])))

        @settings(
            max_examples=EXAMPLES,
            derandomize=SAME,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(piece)
        def read(made: tuple[str, bytes]) -> None:
            files.restore()
            files.put(*made)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert "problem" not in (note := noted(files.read)), note

        read()
