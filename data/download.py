"""Fetches files over HTTP into a cache, checked by size and SHA-256, resumed where they were cut.

Layout of the cache (default `$XDG_CACHE_HOME/attempt`), for https://HOST/PATH/NAME:

    HOST/PATH/NAME             the finished file
    HOST/PATH/.NAME.json       {url, bytes, sha256} of what was received, written last: no record, no file
    HOST/PATH/NAME.part        a download under way
    HOST/PATH/.NAME.part.json  {url, etag} of that download, so that it can be resumed
"""

import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import requests
from tqdm import tqdm

from attempt.errors import AttemptError, NotFound
from attempt.files import write_whole
from data.network import Cut, Unreachable, key_of, new_session, open_url, reason

__all__ = ["Downloader", "NotFound", "cache_dir"]

RETRIES = 3
BACKOFF_SECONDS = 0.5  # doubled after every retry
BLOCK = 1 << 16  # bytes read at a time; a cut loses at most the block under way


class Sums(NamedTuple):
    """What a file should be, or what it is; None = unknown, not checked."""

    size: int | None
    sha256: str | None


def cache_dir() -> Path:
    """The folder of downloaded files: `$XDG_CACHE_HOME/attempt`, else `~/.cache/attempt`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "attempt"


class Downloader:
    """Fetches official files from their hosts, from a mirror, or from a folder without any network.

    cache: where files are kept (default: `cache_dir()`).
    mirror: `http://SERVER` asked for `http://SERVER/HOST/PATH` in place of `https://HOST/PATH`.
    data_dir: a folder holding `HOST/PATH`; nothing else is read and the network is never touched.
    progress: a bar while downloading (default: only on a terminal), else one line per file on stderr.

    A mirror or data_dir may have a `checksums.tsv` (columns path, bytes, sha256) at its root. For the files
    it lists, its sums replace the expected ones: whoever wrote it vouches for them.
    """

    def __init__(
        self,
        cache: Path | None = None,
        mirror: str | None = None,
        data_dir: Path | None = None,
        progress: bool | None = None,
    ) -> None:
        if mirror is not None and data_dir is not None:
            raise AttemptError("--mirror and --data-dir exclude each other: give one of them")
        if mirror is not None and not mirror.startswith(("http://", "https://")):
            raise AttemptError(f"--mirror: expected http://SERVER or https://SERVER, found {mirror!r}")
        if data_dir is not None and not Path(data_dir).is_dir():
            raise AttemptError(f"--data-dir: expected a folder, found none at {data_dir}")
        self.cache = Path(cache) if cache is not None else cache_dir()
        self.mirror = mirror.rstrip("/") if mirror is not None else None
        self.data_dir = Path(data_dir) if data_dir is not None else None
        self.progress = sys.stderr.isatty() if progress is None else progress
        self._session = new_session()
        self._vouched: dict[str, Sums] | None = None  # the checksums.tsv, once read

    def fetch(self, url: str, size: int | None = None, sha256: str | None = None) -> Path:
        """The local path of the file at `url`, complete and of the expected size (bytes) and SHA-256.

        Raises NotFound where the file does not exist, else AttemptError: no network, or a wrong file.
        """
        key = key_of(url)
        want = self._vouched_sums().get(key, Sums(size, sha256))
        if self.data_dir is not None:
            return self._from_folder(url, self.data_dir / key, want)
        source = f"{self.mirror}/{key}" if self.mirror else url
        target = self.cache / key
        if _is_finished(target, want, (url, source)):
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            found = self._download(url, source, part, want)
            _finish(part, target, source, found)
        except OSError as error:
            raise AttemptError(
                f"cannot write {target} ({error}): free the space, or set XDG_CACHE_HOME to a writable folder"
            ) from error
        return target

    def _vouched_sums(self) -> dict[str, Sums]:
        """The checksums.tsv of the mirror or data_dir, read once; {} where there is none."""
        if self._vouched is None:
            place = f"{self.mirror or self.data_dir}/checksums.tsv"
            text = None
            if self.data_dir is not None and Path(place).is_file():
                text = Path(place).read_text("utf-8-sig", errors="replace")
            elif self.mirror is not None:
                text = self._mirrors_sums(place)
            self._vouched = _parse_checksums(text, place) if text is not None else {}
            if self._vouched:
                print(f"{place} replaces the expected sums of the files it lists", file=sys.stderr)
        return self._vouched

    def _mirrors_sums(self, address: str) -> str | None:
        """The mirror's checksums.tsv; None where it has none. A copy serves while the mirror is out of reach."""
        copy = self.cache / key_of(address)
        try:
            with open_url(self._session, address, address) as response:
                content = response.content
            write_whole(copy, content)
        except NotFound:
            copy.unlink(missing_ok=True)
            return None
        except (Unreachable, Cut, requests.RequestException) as error:
            if not copy.is_file():
                why = error.why if isinstance(error, Unreachable) else reason(error)
                raise AttemptError(
                    f"--mirror {self.mirror}: expected a server of files, found none ({why}): start it, or give "
                    "another --mirror URL, or --data-dir DIR"
                ) from None
            content = copy.read_bytes()
        return content.decode("utf-8-sig", errors="replace")

    def _from_folder(self, url: str, path: Path, want: Sums) -> Path:
        if not path.is_file():
            raise NotFound(f"no file {path} (--data-dir uses no network): put the file of {url} there")
        # Hashed at every use, there being no record of an earlier check, but only where a sum is known.
        found = Sums(path.stat().st_size, _sha256(path) if want.sha256 else None)
        if _differs(found, want):
            raise self._wrong_file(str(path), url, found, want)
        return path

    def _download(self, url: str, source: str, part: Path, want: Sums) -> Sums:
        """Fills `part` from `source`, in up to 1 + RETRIES requests; returns what was received."""
        why = ""
        for retry in range(RETRIES + 1):
            if retry:
                time.sleep(BACKOFF_SECONDS * 2 ** (retry - 1))
            try:
                resumed, expected = self._receive(url, source, part, want)
            except Cut as cut:
                why = str(cut)
                continue
            found = Sums(part.stat().st_size, _sha256(part))
            if not _differs(found, expected):
                return found
            part.unlink()
            if not resumed:
                raise self._wrong_file(source, url, found, expected)
            why = "the resumed file had a wrong sum"  # joined from two files: once more, from the start
        have = part.stat().st_size if part.exists() else 0
        raise AttemptError(
            f"lost {source} in {RETRIES + 1} tries ({why}): the {have} bytes received are kept in {part}: "
            "run the same command again to go on"
        )

    def _receive(self, url: str, source: str, part: Path, want: Sums) -> tuple[bool, Sums]:
        """One request: appends to `part` what is missing; returns (was it resumed?, the sums to check)."""
        have, etag = _resumable(part, source, want)
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and etag:  # the rest, if the file is still the one of that ETag, else all of it (status 200)
            headers["If-Range"] = etag
        with open_url(self._session, url, source, headers) as response:
            resumed = response.status_code == 206 and _range_start(response) == have
            if response.status_code != 200 and not resumed:
                part.unlink(missing_ok=True)
                raise Cut(f"HTTP status {response.status_code} for {headers}")
            start = have if resumed else 0
            want = _linked_sums(response, want)
            total = _total(response, start)
            if total is not None and want.size is not None and total != want.size:
                part.unlink(missing_ok=True)
                raise self._wrong_file(source, url, Sums(total, None), want)
            expected = Sums(total if want.size is None else want.size, want.sha256)
            if not resumed:  # the old part goes before the record of the new one comes
                part.unlink(missing_ok=True)
                _write_json(_record_of(part), {"url": source, "etag": response.headers.get("ETag", "")})
            self._write_body(response, part, start, expected.size, source)
        return resumed, expected

    def _write_body(self, response: requests.Response, part: Path, start: int, total: int | None, source: str) -> None:
        """Writes the body to `part` from byte `start` on; Cut where it ends before byte `total`."""
        if not self.progress:
            size = f"{total / 1e6:.1f} MB" if total is not None else "size unknown"
            resumed = f", from {start / 1e6:.1f} MB on" if start else ""
            print(f"downloading {source} ({size}{resumed})", file=sys.stderr)
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=not self.progress)
        response.raw.enforce_content_length = False  # it would throw the last, short block away: checked below
        with bar, open(part, "ab") as file:
            try:
                for block in response.iter_content(BLOCK):
                    file.write(block)
                    bar.update(len(block))
            except requests.RequestException as error:
                raise Cut(reason(error)) from error
            finally:
                file.flush()
                os.fsync(file.fileno())
            if total is not None and file.tell() < total:
                raise Cut(f"the server closed after {file.tell()} of {total} bytes")

    def _wrong_file(self, place: str, url: str, found: Sums, want: Sums) -> AttemptError:
        """The error for a file that is not the expected one, with the way to accept it all the same."""
        if want.size not in (None, found.size):
            what = f"expected {want.size} bytes, found {found.size}"
        else:
            what = f"expected SHA-256 {want.sha256}, found {found.sha256}"
        root = self.mirror or self.data_dir
        where = f"{root}/checksums.tsv" if root else "a checksums.tsv at the root of a --mirror or --data-dir"
        return AttemptError(
            f"{place} is not the expected file: {what}: get it again, or, to accept this one, list "
            f"{key_of(url)} with its size and SHA-256 in {where} (tab-separated columns path, bytes, sha256)"
        )


def _record_of(path: Path) -> Path:
    """The small JSON file beside `path`."""
    return path.with_name(f".{path.name}.json")


def _read_json(path: Path) -> dict[str, Any]:
    """The record at `path`; {} where there is none or it was damaged."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_json(path: Path, record: dict[str, Any]) -> None:
    """Written aside and moved into place: a record is there whole or not at all."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(record) + "\n", "utf-8")
    os.replace(aside, path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _differs(found: Sums, want: Sums) -> bool:
    return any(w is not None and f != w for f, w in zip(found, want, strict=True))


def _is_finished(target: Path, want: Sums, addresses: tuple[str, str]) -> bool:
    """Is the cached file the wanted one? Without a known sum, only if it came from the same address."""
    record = _read_json(_record_of(target))
    if not target.is_file() or target.stat().st_size != record.get("bytes"):
        return False
    if want.sha256 is None and record.get("url") not in addresses:
        return False
    return not _differs(Sums(record["bytes"], record.get("sha256")), want)


def _finish(part: Path, target: Path, source: str, found: Sums) -> None:
    """Moves a verified part into place. The old record goes first, the new one is written last."""
    _record_of(target).unlink(missing_ok=True)
    os.replace(part, target)
    _record_of(part).unlink(missing_ok=True)
    _write_json(_record_of(target), {"url": source, "bytes": found.size, "sha256": found.sha256})


def _resumable(part: Path, source: str, want: Sums) -> tuple[int, str]:
    """(bytes at hand, their ETag); 0 bytes where nothing would show that the rest is of another file."""
    record = _read_json(_record_of(part))
    etag = str(record.get("etag", ""))
    if not part.is_file() or record.get("url") != source or not (etag or want.sha256):
        return 0, ""
    return part.stat().st_size, etag


def _range_start(response: requests.Response) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _total(response: requests.Response, start: int) -> int | None:
    """The size of the whole file in bytes, by the response's Content-Length."""
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _linked_sums(response: requests.Response, want: Sums) -> Sums:
    """Fills unknown sums with what Hugging Face says, in a redirect, of the large file behind it."""
    for answer in [*response.history, response]:
        etag = answer.headers.get("X-Linked-Etag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", etag):
            size = answer.headers.get("X-Linked-Size", "")
            linked = int(size) if size.isdigit() else None
            return Sums(want.size or linked, want.sha256 or etag)
    return want


def _parse_checksums(text: str, place: str) -> dict[str, Sums]:
    rows = [line.split("\t") for line in text.replace("\r\n", "\n").split("\n") if line]
    if not rows or rows[0] != ["path", "bytes", "sha256"]:
        raise AttemptError(f"{place} line 1: expected the columns path, bytes, sha256, found {rows[:1]}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 3 or not row[1].isdigit() or not re.fullmatch(r"[0-9a-fA-F]{64}", row[2]):
            raise AttemptError(f"{place} line {number}: expected path, bytes and SHA-256, found {row}")
    return {path: Sums(int(size), sha256.lower()) for path, size, sha256 in rows[1:]}
