"""Downloads on a machine that fails: full disks, processes that are killed or want the same file; no part is a file."""

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from faults import BODY, SHA, WHOLE, fetch, names, ranges
from glue_files import Server

from data import cache as cache_module
from data.download import Downloader
from model.errors import AttemptError

REPOSITORY = Path(__file__).parent.parent


def test_too_little_space_is_told_before_the_download(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1_000_000))  # type: ignore[attr-defined]
        with pytest.raises(
            AttemptError, match=r"cannot write .*file\.bin \(1\.0 MB are needed, 1\.0 MB are free\): free"
        ):
            fetch(server, cache)
    assert "file.bin" not in names(cache)
    assert fetch(server, cache) == BODY


RUN = "import sys; from data.download import Downloader; Downloader(sys.argv[1]).fetch(sys.argv[2], *eval(sys.argv[3]))"
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); {RUN}"


def start(
    server: Server, cache: Path, code: str = RUN, sums: str = f"({len(BODY)}, '{SHA}')", *more: str
) -> "subprocess.Popen[str]":
    """A program that downloads the file into the cache."""
    command = [sys.executable, "-c", code, str(cache), f"{server.address}/file.bin", sums, *more]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_PROXY": "*"}
    return subprocess.Popen(command, env=environment, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def test_a_write_that_fails_in_the_middle(server: Server, cache: Path) -> None:
    """A real one: the system refuses to let any file grow beyond 300,000 bytes."""
    errors = start(server, cache, LIMITED).communicate(timeout=60)[1]
    assert "AttemptError: cannot write" in errors and os.strerror(errno.EFBIG) in errors and "is kept in" in errors
    assert names(cache) == [".file.bin.part.json", "file.bin.part"]
    assert fetch(server, cache) == BODY
    assert ranges(server) == [None, "bytes=300000-"] and names(cache) == WHOLE


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_what_the_system_refuses_is_one_line(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuses(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    for place in ("data.cache.os.replace", "data.cache.os.fsync", "data.cache.os.open"):
        with monkeypatch.context() as patch:
            patch.setattr(place, refuses)
            with pytest.raises(AttemptError, match=rf"cannot write .*{os.strerror(code)}.*XDG_CACHE_HOME") as error:
                fetch(server, cache)
            assert "\n" not in str(error.value) and "file.bin" not in names(cache)
    assert fetch(server, cache) == BODY


def test_a_whole_file_serves_from_a_read_only_cache(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    fetch(server, cache)
    for place in ("os.open", "os.replace", "pathlib.Path.mkdir", "pathlib.Path.unlink"):
        monkeypatch.setattr(place, read_only)
    assert fetch(server, cache) == BODY and len(server.requests) == 1


def test_two_processes_download_once(server: Server, cache: Path) -> None:
    server.pauses = [300_000]
    first = start(server, cache)
    assert server.paused.wait(60)
    second = start(server, cache)
    assert second.stderr is not None
    assert second.stderr.readline() == "waiting for another process that is downloading file.bin\n"
    server.go_on.set()
    assert first.wait(60) == 0 and second.wait(60) == 0
    assert len(server.requests) == 1 and names(cache) == WHOLE


def test_who_waits_for_a_killed_process_goes_on_in_its_place(server: Server, cache: Path) -> None:
    server.pauses = [300_000]
    first = start(server, cache)
    assert server.paused.wait(60)
    second = start(server, cache)
    assert second.stderr is not None and "waiting" in second.stderr.readline()
    first.send_signal(signal.SIGKILL)
    assert second.wait(60) == 0 and first.wait(60) == -signal.SIGKILL
    assert names(cache) == WHOLE and fetch(server, cache) == BODY
    resumed = ranges(server)[1]
    assert resumed is not None and 0 < int(resumed[6:-1]) <= 300_000


def test_threads_that_want_the_same_file(server: Server, cache: Path) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(server, cache))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BODY] * 8 and len(server.requests) == 1 and names(cache) == WHOLE


def test_a_lock_file_left_behind_locks_nothing(server: Server, cache: Path) -> None:
    place = cache / f"127.0.0.1:{server.server_port}"
    place.mkdir(parents=True)
    (place / ".file.bin.lock").write_text("")
    assert fetch(server, cache) == BODY and names(cache) == WHOLE


def test_a_lock_that_was_removed_while_waiting_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last holder removed it, and another process has locked a new file of the name: that one counts."""
    cache.mkdir()
    lock, taken = cache / ".file.bin.lock", []

    def flock(handle: int, name: str) -> None:
        taken.append(handle)
        if len(taken) == 1:
            lock.rename(cache / "old")
            lock.write_text("")

    monkeypatch.setattr(cache_module, "_flock", flock)
    with cache_module.locked(cache / "file.bin"):
        assert len(taken) == 2 and os.path.samestat(os.fstat(taken[1]), lock.stat())
    assert not lock.exists()


def test_a_file_system_without_locks(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(cache_module.fcntl, "flock", no_locks)
    assert fetch(server, cache) == BODY
    assert "cannot be locked" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(int(os.environ.get("ATTEMPT_KILLS", "4"))))
def test_killed_at_a_random_byte_and_started_again(server: Server, cache: Path, seed: int) -> None:
    """ATTEMPT_KILLS=100 makes more of them. Every second one does not know the sums."""
    sums = "()" if seed % 2 else f"({len(BODY)}, '{SHA}')"
    server.pauses = [random.Random(seed).randrange(len(BODY))]
    process = start(server, cache, sums=sums)
    assert server.paused.wait(60)
    process.kill()
    process.wait(60)
    assert "file.bin" not in names(cache)
    server.go_on.set()
    assert start(server, cache, sums=sums).wait(60) == 0
    assert names(cache) == WHOLE and fetch(server, cache) == BODY and len(server.requests) == 2


KILLED = f"""
import os, signal, sys
left = int(sys.argv[4])
def count(event, arguments):
    global left
    if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(sys.argv[1]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
{RUN}"""


def test_killed_before_each_step_on_the_disk(server: Server, cache: Path) -> None:
    """Every file that is opened, renamed or removed, while another file of the same size is there from before."""
    url, want = f"{server.address}/file.bin", cache_module.Sums(len(BODY), SHA)
    target = cache / f"127.0.0.1:{server.server_port}" / "file.bin"
    kills, ended = 0, 1
    while ended != 0:
        server.files["/file.bin"] = BODY[::-1]
        Downloader(cache).fetch(url, len(BODY), hashlib.sha256(BODY[::-1]).hexdigest())
        server.files["/file.bin"] = BODY
        ended = start(server, cache, KILLED, f"({len(BODY)}, '{SHA}')", str(kills)).wait(60)
        assert ended in (0, -signal.SIGKILL)
        if ended:
            kills += 1
            assert not cache_module.is_finished(target, want, (url, url)) or target.read_bytes() == BODY
            assert fetch(server, cache) == BODY
    assert kills >= 10


def test_a_damaged_record_is_no_record(server: Server, cache: Path) -> None:
    fetch(server, cache)
    record = next(cache.rglob(".file.bin.json"))
    for damage in (b"", b"[" * 100_000, b"\xff", b"[]", b'{"bytes": "1024000"}', b'{"bytes": null, "url": 3}'):
        record.write_bytes(damage)
        assert fetch(server, cache) == BODY
    assert len(server.requests) == 7
