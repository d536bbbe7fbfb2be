"""Files that are whole or not there, and folders that one program at a time writes to."""

import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from model.errors import AttemptError, note

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
ROOT = Path(__file__).resolve().parents[1]  # of the project's own files
DIGITS = 12  # of a sum


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
        sync_folder(path.parent)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise AttemptError(
            f"{path}: cannot be written ({e.strerror}); free some space, or name another place"
        ) from None


def sync_folder(folder: Path) -> None:
    """Make a rename in it last: without this, a power failure could bring the old file back."""
    if sys.platform == "win32":  # which cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(handle)
    finally:
        os.close(handle)


def sum_of(files: Mapping[str, Path]) -> str:
    """SHA-256 of files under their names, in 12 hexadecimal digits: one for the same lines, wherever they lie."""
    digest = hashlib.sha256()
    for name, file in files.items():
        text = file.read_text(encoding="utf-8")  # in which every system's line ends are the same
        digest.update(f"{name} {len(text)}\n{text}".encode())
    return digest.hexdigest()[:DIGITS]


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a folder, which is made if need be, for this process. Raises AttemptError where another one has it.

    The system frees it when its holder ends, however it ends. Folders that were made, and stayed empty, are removed.
    """
    if sys.platform == "win32":
        yield
        return
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = lock_file(folder / LOCK, partial(_take, folder))
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except OSError as e:
        raise AttemptError(f"{folder}: expected a folder to write to, found {e.strerror}; give another --out") from None
    try:
        yield
    finally:
        unlock_file(folder / LOCK, handle)
        with contextlib.suppress(OSError):  # what is in it stays
            for place in made:
                place.rmdir()


def _take(folder: Path, handle: int) -> None:
    """Lock an open lock file of the folder, or say who has."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 200, 0).decode("utf-8", errors="replace") or "another process"
        raise AttemptError(
            f"{folder}: expected a folder that no other program writes to, found {holder} at it; wait for it, "
            "end it, or give another --out"
        ) from None
    except OSError as e:  # some network file systems have no locks
        note(f"note: {folder / LOCK} cannot be locked ({e.strerror}): start one program at a time")


def lock_file(path: Path, take: Callable[[int], None]) -> int:
    """Open a lock file and take it: the handle, for unlock_file. What `take` raises, and Ctrl-C in it, close it again.

    The system frees the lock when its holder ends, however it ends, so none is ever left behind.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            take(handle)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its last holder removed it: the next one is another file


def unlock_file(path: Path, handle: int) -> None:
    path.unlink(missing_ok=True)  # while it is still held: whoever waits for it sees that it is gone
    os.close(handle)
