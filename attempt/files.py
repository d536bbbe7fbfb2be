"""Files that are whole or not there."""

import contextlib
import os
from pathlib import Path

from attempt.errors import AttemptError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, sync it, rename it: a reader finds the old content or the new one.

    Raises AttemptError where it cannot be written; the old content is then still there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise AttemptError(
            f"{path}: cannot be written ({e.strerror}); free some space, or name another place"
        ) from None
