"""Every way a download can go wrong: afterwards a retry succeeds or the message says what to do; no part is a file."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from faults import BODY, SHA, fetch, names, ranges
from glue_files import Handler, Server

from data import network
from data.download import Downloader
from model.errors import AttemptError

PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"


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
