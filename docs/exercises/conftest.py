"""An exercise that nobody has solved yet says so in one line."""

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    try:
        return (yield)
    except NotImplementedError as e:
        unsolved = str(e)
    pytest.fail(f"{unsolved} is not solved yet: write it in docs/exercises/exercises.py", pytrace=False)
