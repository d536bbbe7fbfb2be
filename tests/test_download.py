"""Downloading, with a server on loopback that misbehaves on demand."""

import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from glue_files import Server

from data import network
from data.download import Downloader, NotFound, cache_dir
from model.errors import AttemptError

BODY = bytes(range(256)) * 4000  # 1,024,000 bytes
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]  # another file of the same size
OFFICIAL = "https://data.example/folder/file.bin"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(network, "BACKOFF_SECONDS", 0.001)
    server = Server({"/file.bin": BODY})
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def asked_ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]


def all_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def vouch(path: str, body: bytes) -> bytes:
    return f"path\tbytes\tsha256\n{path}\t{len(body)}\t{hashlib.sha256(body).hexdigest()}\n".encode()


def test_the_cache_is_never_in_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "attempt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "attempt"


def test_a_file_is_fetched_once(server: Server, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{server.address}/file.bin"
    path = Downloader(cache, progress=False).fetch(url, len(BODY), SHA)
    assert path == cache / f"127.0.0.1:{server.server_port}" / "file.bin"
    assert path.read_bytes() == BODY
    assert all_files(cache) == [".file.bin.json", "file.bin"]
    record = json.loads((path.parent / ".file.bin.json").read_text())
    assert record == {"url": url, "bytes": len(BODY), "sha256": SHA}
    assert capsys.readouterr().err == f"downloading {url} (1.0 MB)\n"
    assert Downloader(cache).fetch(url, len(BODY), SHA) == path
    assert Downloader(cache).fetch(url) == path
    assert len(server.requests) == 1


def test_a_bar_is_drawn_on_demand(server: Server, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Downloader(cache, progress=True).fetch(f"{server.address}/file.bin", len(BODY), SHA)
    assert "file.bin" in (err := capsys.readouterr().err) and "1.02M" in err and "downloading" not in err


def test_a_cut_download_is_resumed(server: Server, cache: Path) -> None:
    server.cuts = [300_000]
    path = Downloader(cache).fetch(f"{server.address}/file.bin", len(BODY), SHA)
    assert path.read_bytes() == BODY
    assert asked_ranges(server) == [None, "bytes=300000-"]
    assert server.requests[1][1]["If-Range"] == '"one"'
    assert all_files(cache) == [".file.bin.json", "file.bin"]


def test_a_cut_without_content_length_is_noticed(server: Server, cache: Path) -> None:
    server.cuts, server.length = [300_000], False
    assert Downloader(cache).fetch(f"{server.address}/file.bin", len(BODY), SHA).read_bytes() == BODY
    assert asked_ranges(server) == [None, "bytes=300000-"]


def test_too_many_cuts_keep_the_part_for_the_next_run(server: Server, cache: Path) -> None:
    url = f"{server.address}/file.bin"
    server.cuts = [100_000] * 4
    with pytest.raises(AttemptError, match=r"lost http.*file\.bin in 4 tries.* 400000 bytes .*run the same command"):
        Downloader(cache).fetch(url, len(BODY), SHA)
    assert all_files(cache) == [".file.bin.part.json", "file.bin.part"]
    assert Downloader(cache).fetch(url, len(BODY), SHA).read_bytes() == BODY
    assert asked_ranges(server)[-1] == "bytes=400000-"


def test_without_ranges_the_file_is_fetched_again(server: Server, cache: Path) -> None:
    server.cuts, server.ranges = [300_000], False
    assert Downloader(cache).fetch(f"{server.address}/file.bin", len(BODY), SHA).read_bytes() == BODY
    assert len(server.requests) == 2


def test_without_an_etag_only_a_known_sum_allows_to_resume(server: Server, cache: Path) -> None:
    server.cuts, server.etag = [300_000], None
    server.files["/second.bin"] = BODY
    assert Downloader(cache).fetch(f"{server.address}/file.bin", len(BODY), SHA).read_bytes() == BODY
    server.cuts = [300_000]
    assert Downloader(cache).fetch(f"{server.address}/second.bin").read_bytes() == BODY
    assert asked_ranges(server) == [None, "bytes=300000-", None, None]


def test_a_file_changed_between_two_runs_is_not_joined(server: Server, cache: Path) -> None:
    server.cuts = [100_000] * 4
    with pytest.raises(AttemptError, match="lost"):
        Downloader(cache).fetch(f"{server.address}/file.bin")
    server.files["/file.bin"], server.etag = OTHER, '"two"'
    assert Downloader(cache).fetch(f"{server.address}/file.bin").read_bytes() == OTHER


def test_a_wrongly_joined_file_is_fetched_again(server: Server, cache: Path) -> None:
    server.cuts = [100_000] * 4
    with pytest.raises(AttemptError, match="lost"):
        Downloader(cache).fetch(f"{server.address}/file.bin", len(BODY), SHA)
    server.files["/file.bin"] = OTHER  # under the same ETag
    want = hashlib.sha256(OTHER).hexdigest()
    assert Downloader(cache).fetch(f"{server.address}/file.bin", len(OTHER), want).read_bytes() == OTHER
    assert asked_ranges(server)[-2:] == ["bytes=400000-", None]


def test_a_part_longer_than_the_file_is_dropped(server: Server, cache: Path) -> None:
    server.cuts = [100_000] * 4
    with pytest.raises(AttemptError, match="lost"):
        Downloader(cache).fetch(f"{server.address}/file.bin")
    server.files["/file.bin"] = b"short"
    assert Downloader(cache).fetch(f"{server.address}/file.bin").read_bytes() == b"short"
    assert asked_ranges(server)[-2:] == ["bytes=400000-", None]  # status 416, then the whole file


def test_a_busy_server_is_asked_again(server: Server, cache: Path) -> None:
    server.statuses = [503, 500]
    assert Downloader(cache).fetch(f"{server.address}/file.bin", len(BODY), SHA).read_bytes() == BODY
    server.statuses = [503] * 9
    with pytest.raises(AttemptError, match=r"in 4 tries .*503"):
        Downloader(cache).fetch(f"{server.address}/other.bin")
    assert len(server.requests) == 3 + 4


def test_a_wrong_size_is_refused_before_the_download(server: Server, cache: Path) -> None:
    with pytest.raises(AttemptError, match=r"expected 77 bytes, found 1024000: .*checksums\.tsv"):
        Downloader(cache).fetch(f"{server.address}/file.bin", 77)
    assert all_files(cache) == []
    assert len(server.requests) == 1


def test_a_wrong_sum_is_refused(server: Server, cache: Path) -> None:
    server.files["/file.bin"] = OTHER
    with pytest.raises(AttemptError, match=rf"expected SHA-256 {SHA}, found {hashlib.sha256(OTHER).hexdigest()}: "):
        Downloader(cache).fetch(f"{server.address}/file.bin", len(BODY), SHA)
    assert "file.bin" not in all_files(cache) and "file.bin.part" not in all_files(cache)


def test_a_longer_file_of_unknown_length_is_refused(server: Server, cache: Path) -> None:
    server.length = False
    with pytest.raises(AttemptError, match="expected 1000 bytes, found more: "):
        Downloader(cache).fetch(f"{server.address}/file.bin", 1000)


def test_missing_and_forbidden_files(server: Server, cache: Path) -> None:
    with pytest.raises(NotFound, match=r"no file http://.*/none\.bin \(HTTP status 404\)"):
        Downloader(cache).fetch(f"{server.address}/none.bin")
    server.statuses = [403]
    with pytest.raises(AttemptError, match="expected HTTP status 200, found 403") as error:
        Downloader(cache).fetch(f"{server.address}/file.bin")
    assert not isinstance(error.value, NotFound)
    assert len(server.requests) == 2


def test_a_refused_connection_is_one_line_with_the_ways_out(server: Server, cache: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/folder/file.bin"
        with pytest.raises(AttemptError) as error:
            Downloader(cache).fetch(url)
    message = str(error.value)
    assert message.startswith(f"cannot reach {url} (connection refused): ")
    assert "--mirror URL" in message and f"--data-dir DIR (a folder with DIR/{url[7:]})" in message
    assert "\n" not in message


def test_an_unknown_host(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(AttemptError) as error:
        Downloader(cache).fetch(OFFICIAL)
    assert str(error.value) == (
        f"cannot reach {OFFICIAL} (name resolution failed): connect to the network, or give --mirror URL "
        "(a server with files at HOST/PATH), or --data-dir DIR (a folder with DIR/data.example/folder/file.bin)"
    )


def test_a_name_server_that_never_answers(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: stop.wait() and [])
    monkeypatch.setattr(network, "CONNECT_SECONDS", 0.05)
    with pytest.raises(AttemptError, match="name resolution failed"):
        Downloader(cache).fetch(OFFICIAL)
    stop.set()


def test_a_mirror_stands_in_for_the_host(server: Server, cache: Path) -> None:
    server.files["/data.example/folder/file.bin"] = BODY
    path = Downloader(cache, mirror=server.address + "/").fetch(OFFICIAL, len(BODY), SHA)
    assert path == cache / "data.example/folder/file.bin" and path.read_bytes() == BODY
    assert [p for p, _ in server.requests] == ["/checksums.tsv", "/data.example/folder/file.bin"]


def test_without_checksums_a_mirror_must_have_the_official_file(server: Server, cache: Path) -> None:
    server.files["/data.example/folder/file.bin"] = OTHER
    with pytest.raises(
        AttemptError, match=rf"expected SHA-256 {SHA}.* list data\.example/folder/file\.bin .*checksums"
    ):
        Downloader(cache, mirror=server.address).fetch(OFFICIAL, len(BODY), SHA)


def test_checksums_of_a_mirror_replace_the_official_ones(
    server: Server, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/data.example/folder/file.bin"] = b"a part of it"
    server.files["/data.example/second.bin"] = OTHER
    server.files["/checksums.tsv"] = vouch("data.example/folder/file.bin", b"a part of it")
    downloader = Downloader(cache, mirror=server.address)
    assert downloader.fetch(OFFICIAL, len(BODY), SHA).read_bytes() == b"a part of it"
    with pytest.raises(AttemptError, match="is not the expected file"):  # not listed: the official sums apply
        downloader.fetch("https://data.example/second.bin", len(BODY), SHA)
    assert capsys.readouterr().err.count("checksums.tsv has sums of its own") == 1
    server.files["/data.example/folder/file.bin"] = b"another text"  # of the same size
    (cache / "data.example/folder/file.bin").unlink()
    with pytest.raises(AttemptError, match="expected SHA-256"):
        Downloader(cache, mirror=server.address).fetch(OFFICIAL, len(BODY), SHA)


def test_a_mirror_that_is_down_is_not_needed_for_what_is_cached(server: Server, cache: Path) -> None:
    server.files["/data.example/folder/file.bin"] = OTHER
    server.files["/checksums.tsv"] = vouch("data.example/folder/file.bin", OTHER)
    Downloader(cache, mirror=server.address).fetch(OFFICIAL, len(BODY), SHA)
    server.shutdown()
    server.server_close()
    assert Downloader(cache, mirror=server.address).fetch(OFFICIAL, len(BODY), SHA).read_bytes() == OTHER
    with pytest.raises(AttemptError, match=r"--mirror http.*connection refused.*start it"):
        Downloader(cache / "new", mirror=server.address).fetch(OFFICIAL, len(BODY), SHA)


def test_a_file_cached_from_a_mirror_is_not_taken_for_the_official_one(server: Server, cache: Path) -> None:
    url, key = f"{server.address}/file.bin", f"127.0.0.1:{server.server_port}/file.bin"
    server.files[f"/{key}"] = OTHER
    server.files["/checksums.tsv"] = vouch(key, OTHER)
    assert Downloader(cache, mirror=server.address).fetch(url, len(BODY), SHA).read_bytes() == OTHER
    assert Downloader(cache).fetch(url, len(BODY), SHA).read_bytes() == BODY
    assert Downloader(cache, mirror=server.address).fetch(url, len(BODY), SHA).read_bytes() == OTHER
    # ... nor where no sum is known
    assert Downloader(cache).fetch(url).read_bytes() == BODY


@pytest.mark.parametrize(
    "text", ["", "a b c\n", "path\tbytes\tsha256\nx\t1\n", "path\tbytes\tsha256\nx\tone\t" + "0" * 64 + "\n"]
)
def test_a_bad_checksums_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "checksums.tsv").write_text(text)
    with pytest.raises(AttemptError, match=r"checksums\.tsv line \d: expected"):
        Downloader(data_dir=tmp_path).fetch(OFFICIAL)


@pytest.mark.parametrize("damage", ["no record", "bad record", "short file"])
def test_only_a_recorded_file_is_a_finished_one(server: Server, cache: Path, damage: str) -> None:
    url = f"{server.address}/file.bin"
    path = Downloader(cache).fetch(url, len(BODY), SHA)
    record = path.parent / ".file.bin.json"
    if damage == "no record":
        record.unlink()
    elif damage == "bad record":
        record.write_text("{")
    else:
        path.write_bytes(BODY[:1000])
    assert Downloader(cache).fetch(url, len(BODY), SHA).read_bytes() == BODY
    assert len(server.requests) == 2 and record.exists()


def test_data_dir_uses_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    path = tmp_path / "data.example/folder/file.bin"
    downloader = Downloader(tmp_path / "cache", data_dir=tmp_path)
    with pytest.raises(NotFound, match=re.escape(str(path))) as error:
        downloader.fetch(OFFICIAL, len(BODY), SHA)
    assert OFFICIAL in str(error.value)
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert downloader.fetch(OFFICIAL, len(BODY), SHA) == path
    path.write_bytes(OTHER)
    with pytest.raises(AttemptError, match=rf"{path} is not the expected file: expected SHA-256 {SHA}"):
        downloader.fetch(OFFICIAL, len(BODY), SHA)
    path.write_bytes(BODY[:10])
    with pytest.raises(AttemptError, match="expected 1024000 bytes, found 10"):
        downloader.fetch(OFFICIAL, len(BODY), SHA)
    (tmp_path / "checksums.tsv").write_bytes(vouch("data.example/folder/file.bin", BODY[:10]))
    assert Downloader(data_dir=tmp_path).fetch(OFFICIAL, len(BODY), SHA) == path
    assert not (tmp_path / "cache").exists()


def test_the_sum_in_a_redirect_is_checked(server: Server, cache: Path) -> None:
    linked = {"X-Linked-Etag": f'"{SHA}"', "X-Linked-Size": str(len(BODY))}
    server.redirects["/resolve/model.bin"] = ("/file.bin", linked)
    assert Downloader(cache).fetch(f"{server.address}/resolve/model.bin").read_bytes() == BODY
    server.files["/file.bin"] = OTHER
    server.redirects["/resolve/other.bin"] = ("/file.bin", linked)
    with pytest.raises(AttemptError, match=f"expected SHA-256 {SHA}"):
        Downloader(cache).fetch(f"{server.address}/resolve/other.bin")
    server.files["/file.bin"] = BODY[:-1]
    with pytest.raises(AttemptError, match="expected 1024000 bytes, found 1023999"):
        Downloader(cache).fetch(f"{server.address}/resolve/other.bin")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache(server: Server, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o500)
    with pytest.raises(AttemptError, match="cannot write"):
        Downloader(cache).fetch(f"{server.address}/file.bin")


def test_a_cache_that_is_a_file(server: Server, cache: Path) -> None:
    cache.write_text("in the way")
    with pytest.raises(AttemptError, match=r"cannot write .*XDG_CACHE_HOME"):
        Downloader(cache).fetch(f"{server.address}/file.bin")


@pytest.mark.parametrize("url", ["file.bin", "https://host/", "https://host/../../etc/passwd", ""])
def test_only_addresses_of_files(cache: Path, url: str) -> None:
    with pytest.raises(AttemptError, match="expected the address of a file"):
        Downloader(cache).fetch(url)


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match="--mirror: expected http://SERVER"):
        Downloader(mirror="localhost:8000")
    with pytest.raises(AttemptError, match="--data-dir: expected a folder"):
        Downloader(data_dir=tmp_path / "none")
    with pytest.raises(AttemptError, match="exclude each other"):
        Downloader(mirror="http://localhost", data_dir=tmp_path)
