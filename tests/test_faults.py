"""Every way a download can go wrong: afterwards a retry succeeds or the message says what to do; no part is a file."""

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from glue_files import Handler, Server, no_settings, serving

from attempt.errors import AttemptError
from data import cache as cache_module
from data import network
from data.download import Downloader

BODY = random.Random(0).randbytes(1_024_000)
SHA = hashlib.sha256(BODY).hexdigest()
PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """The pauses between tries, in seconds; none is made."""
    no_settings(monkeypatch, tmp_path)
    made: list[float] = []
    monkeypatch.setattr(network, "pause", made.append)
    return made


@pytest.fixture
def server(waits: list[float]) -> Iterator[Server]:
    with serving({"/file.bin": BODY}) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fetch(server: Server, cache: Path, **sums: Any) -> bytes:
    """The file, by its known sums unless others are given."""
    sums = sums or {"size": len(BODY), "sha256": SHA}
    return Downloader(cache, progress=False).fetch(f"{server.address}/file.bin", **sums).read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]


WHOLE = [".file.bin.json", "file.bin"]


def test_a_server_that_asks_to_wait_is_given_the_time(
    server: Server, cache: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    monkeypatch.setattr(network, "now", lambda: now)
    dates = [format_datetime(now + timedelta(seconds=s), usegmt=True) for s in (40, -40)]
    server.replies = [(429, {"Retry-After": "7"}, b""), (429, {"Retry-After": dates[0]}, b"")]
    server.replies += [(503, {"Retry-After": dates[1]}, b"")]
    assert fetch(server, cache) == BODY
    assert waits == [7, 40, 0]


@pytest.mark.parametrize("after", ["", "soon", "-5", "1e9", "\u00b2", "Mon, 99 Foo 2026 00:00:00 GMT", "nan"])
def test_without_a_time_the_pauses_double(server: Server, cache: Path, waits: list[float], after: str) -> None:
    server.replies = [(status, {"Retry-After": after}, b"") for status in (429, 500, 504)]
    assert fetch(server, cache) == BODY
    assert waits == [0.5, 1, 2]


def test_a_server_that_asks_for_an_hour_is_left_alone(server: Server, cache: Path, waits: list[float]) -> None:
    server.replies = [(429, {"Retry-After": "3600"}, b"")]
    with pytest.raises(AttemptError, match=r"in 1 try \(HTTP status 429, to be asked again in 3600 s\).* run the same"):
        fetch(server, cache)
    assert waits == [] and names(cache) == []
    assert fetch(server, cache) == BODY


def test_tries_are_counted(server: Server, cache: Path, waits: list[float]) -> None:
    server.replies = [(502, {}, b"")] * 5
    with pytest.raises(AttemptError, match=r"in 4 tries \(HTTP status 502\)"):
        fetch(server, cache)
    assert len(server.requests) == 4 and len(waits) == 3


def test_a_silent_server_is_asked_for_the_rest(
    server: Server, cache: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "READ_SECONDS", 0.2)
    server.pauses = [300_000]
    assert fetch(server, cache) == BODY
    assert ranges(server) == [None, "bytes=300000-"] and len(waits) == 1


def test_a_server_that_never_answers_is_named(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "READ_SECONDS", 0.1)
    server.pauses = [0] * 4
    with pytest.raises(AttemptError, match=r"in 4 tries \(timed out\): run the same command again later"):
        fetch(server, cache)


def test_a_trickle_is_cut_and_nothing_of_it_is_lost(
    server: Server, cache: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 0.0, 99.0, 99.0] + [100.0] * 10_000)  # told, start, then: 99 s for the first block
    monkeypatch.setattr(network, "clock", lambda: next(times))
    monkeypatch.setattr(network, "PACE_BYTES", 10_000)
    assert fetch(server, cache) == BODY
    first, rest = ranges(server)
    assert first is None and rest is not None and 0 < int(rest[6:-1]) < len(BODY)
    assert len(waits) == 1


def test_progress_is_told_without_a_terminal(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter(range(0, 10**9, 70))
    monkeypatch.setattr(network, "clock", lambda: float(next(times)))
    monkeypatch.setattr(network, "PACE_BYTES", 0)
    assert fetch(server, cache) == BODY
    assert " MB of 1.0 MB\n" in capsys.readouterr().err


@pytest.mark.parametrize("sums", [{"size": len(BODY), "sha256": SHA}, {"size": None}])
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_no_file(server: Server, cache: Path, sums: dict[str, Any], kind: str) -> None:
    server.files["/file.bin"], server.headers = PAGE + b" " * (len(BODY) - len(PAGE)), {"Content-Type": kind}
    with pytest.raises(AttemptError, match=r"file\.bin.* found a web page \(HTML\).*: (open|use)"):
        fetch(server, cache, **sums)
    assert names(cache) == []
    server.files["/file.bin"], server.headers = BODY, {}
    assert fetch(server, cache, **sums) == BODY


def test_a_short_web_page_of_an_unexpected_size(server: Server, cache: Path) -> None:
    server.replies = [(200, {"Content-Type": "text/html", "Content-Length": str(len(PAGE))}, PAGE)]
    with pytest.raises(AttemptError, match="web page"):
        fetch(server, cache)
    assert fetch(server, cache) == BODY


def test_an_end_that_nobody_could_tell_from_a_loss_is_refused(server: Server, cache: Path) -> None:
    server.length, server.cuts = False, [1000]
    with pytest.raises(AttemptError, match="unknown length"):
        fetch(server, cache, size=None)
    assert names(cache) == []


def test_chunks_that_stop_are_a_cut(
    server: Server, cache: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    chunked = {"Transfer-Encoding": "chunked", "ETag": '"c"', "Connection": "close"}
    server.replies = [(200, chunked, b"5\r\nhello\r\n5\r\nwo"), (200, chunked, b"5\r\nhello\r\n0\r\n\r\n")]
    monkeypatch.setattr(Handler, "protocol_version", "HTTP/1.1")
    assert fetch(server, cache, size=None) == b"hello"
    assert len(waits) == 1


def test_a_packed_file_stays_packed(server: Server, cache: Path) -> None:
    server.headers = {"Content-Encoding": "x-gzip"}  # as some servers say of every .tgz
    assert fetch(server, cache) == BODY
    shutil.rmtree(cache)
    with pytest.raises(AttemptError, match="packed as x-gzip"):
        fetch(server, cache, size=None)


def test_an_endless_file_is_left(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(response: object) -> Iterator[bytes]:
        for _ in range(10):
            yield bytes(600)
        raise AssertionError("read on after the end that was expected")

    server.length = False
    monkeypatch.setattr("data.download.body", endless)
    with pytest.raises(AttemptError, match="expected 1000 bytes, found more"):
        fetch(server, cache, size=1000)
    assert names(cache) == []


def test_an_unasked_part_is_not_appended(server: Server, cache: Path, waits: list[float]) -> None:
    place = cache / f"127.0.0.1:{server.server_port}"
    place.mkdir(parents=True)
    (place / "file.bin.part").write_bytes(b"of another file")
    headers = {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}", "Content-Length": str(len(BODY))}
    server.replies = [(206, headers, BODY)]
    assert fetch(server, cache) == BODY


def test_a_weak_etag_does_not_join_parts(server: Server, cache: Path) -> None:
    server.etag, server.cuts = 'W/"one"', [300_000]
    assert fetch(server, cache, size=None) == BODY
    assert ranges(server) == [None, None]


def test_a_whole_part_is_only_moved(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("data.download.finish", killed)
        fetch(server, cache)
    assert names(cache) == [".file.bin.part.json", "file.bin.part"]
    assert fetch(server, cache) == BODY and len(server.requests) == 1


def test_redirects_in_a_circle(server: Server, cache: Path) -> None:
    server.redirects["/file.bin"] = ("/file.bin", {})
    with pytest.raises(AttemptError, match="redirects lead nowhere"):
        fetch(server, cache)
    server.redirects["/file.bin"] = ("file:///etc/passwd", {})
    with pytest.raises(AttemptError, match="cannot reach"):
        fetch(server, cache)
    assert names(cache) == []


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


def test_a_mirrors_checksums_are_asked_for_again_and_bounded(
    server: Server, cache: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/checksums.tsv"] = b"path\tbytes\tsha256\n" + b"x\t1\t" + b"0" * 64 + b"\n"
    server.files["/data.example/file.bin"] = BODY
    server.statuses, server.cuts = [503], [20]
    url = "https://data.example/file.bin"
    assert Downloader(cache, mirror=server.address).fetch(url, len(BODY), SHA).read_bytes() == BODY
    assert len(waits) == 2
    monkeypatch.setattr("data.download.CHECKSUMS_MOST", 50)
    with pytest.raises(AttemptError, match="expected at most 50 bytes"):
        Downloader(cache, mirror=server.address).fetch(url, len(BODY), SHA)


def test_a_mirrors_password_is_sent_and_never_shown(
    server: Server, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = server.address.replace("//", "//me:s%40cret@")
    server.files["/data.example/file.bin"] = BODY
    path = Downloader(cache, mirror=mirror, progress=False).fetch("https://data.example/file.bin", len(BODY), SHA)
    assert path.read_bytes() == BODY
    assert {headers["Authorization"] for _, headers in server.requests} == {"Basic bWU6c0BjcmV0"}
    with pytest.raises(AttemptError) as error:
        Downloader(cache, mirror=mirror).fetch("https://data.example/none.bin")
    everything = (
        str(error.value) + capsys.readouterr().err + "".join(p.read_text("latin-1") for p in cache.rglob("*.json"))
    )
    assert "cret" not in everything


def test_a_proxy_is_used_but_not_for_its_exceptions(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", server.address.replace("//", "//me:secret@"))
    server.files["http://data.example/file.bin"] = BODY
    path = Downloader(cache).fetch("http://data.example/file.bin", len(BODY), SHA)
    assert path.read_bytes() == BODY and server.requests[0][1]["Proxy-Authorization"] == "Basic bWU6c2VjcmV0"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert fetch(server, cache) == BODY
    assert server.requests[-1][0] == "/file.bin"


def test_a_proxys_refusals_name_it_without_its_password(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, server.address.replace("//", "//me:secret@"))
    with pytest.raises(AttemptError, match=r"cannot reach https://data\.example/file\.bin \(the proxy: ") as error:
        Downloader(cache).fetch("https://data.example/file.bin")  # it knows no CONNECT
    assert "secret" not in str(error.value)
    server.replies = [(407, {}, b"")]
    with pytest.raises(AttemptError, match=r"found 407: the proxy of HTTP_PROXY .* wants a user"):
        Downloader(cache).fetch("http://data.example/file.bin")
    server.shutdown()
    server.server_close()
    with pytest.raises(AttemptError, match=r"\(the proxy: connection refused\)") as error:
        Downloader(cache).fetch("http://data.example/file.bin")
    assert "secret" not in str(error.value)
