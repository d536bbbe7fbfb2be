"""Fetches files over HTTP into a cache, checked by size and SHA-256, resumed where they were cut.

Layout of the cache (default `$XDG_CACHE_HOME/attempt`), for https://HOST/PATH/NAME:

    HOST/PATH/NAME             the finished file
    HOST/PATH/.NAME.json       {url, bytes, sha256} of what was received, written last: no record, no file;
                               {url, absent} where the server had no such file
    HOST/PATH/NAME.part        a download under way
    HOST/PATH/.NAME.part.json  {url, etag} of that download, so that it can be resumed
    HOST/PATH/.NAME.lock       there while a process downloads the file; the others wait
"""

import errno
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from tqdm import tqdm

from data import hub, network
from data.cache import (
    CHECKSUMS_MOST,
    Sums,
    differs,
    drop,
    finish,
    is_finished,
    locked,
    parse_checksums,
    read_record,
    resumable,
    write_record,
)
from data.network import Cut, Unreachable, body, key_of, new_session, open_url, patiently
from model.errors import AttemptError, NotFound, note
from model.files import sha256_of, write_whole

__all__ = ["Downloader", "NotFound", "cache_dir"]


def cache_dir() -> Path:
    """The folder of downloaded files: `$XDG_CACHE_HOME/attempt`, else `~/.cache/attempt`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "attempt"


class Downloader:
    """Fetches official files from their hosts, from a mirror, or from a folder without any network.

    cache: where files are kept (default: `cache_dir()`).
    mirror: `http://SERVER` asked for `http://SERVER/HOST/PATH` in place of `https://HOST/PATH`.
    data_dir: a folder holding `HOST/PATH`; nothing else is read and the network is never touched.
    progress: a bar while downloading (default: only on a terminal), else lines on stderr.

    A mirror or data_dir may have a `checksums.tsv` (columns path, bytes, sha256) at its root. For the files
    it lists, its sums replace the expected ones: whoever wrote it vouches for them.
    Without either, Hugging Face's settings are honoured (data/hub.py), and models in its programs' cache are used;
    its HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE keep all downloads from the network, but for a mirror.
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
        if self.mirror and (login := urlsplit(self.mirror)).username is not None:  # no message shows a password
            self._session.auth = (unquote(login.username), unquote(login.password or ""))
            self.mirror = self.mirror.replace(f"{login.netloc.rpartition('@')[0]}@", "", 1)
        self._vouched: dict[str, Sums] | None = None  # the checksums.tsv, once read

    def fetch(self, url: str, size: int | None = None, sha256: str | None = None) -> Path:
        """The local path of the file at `url`, complete and of the expected size (bytes) and SHA-256.

        Raises NotFound where the file does not exist, else AttemptError: no network, or a wrong file.
        """
        key = key_of(url)
        want = self._vouched_sums().get(key, Sums(size, sha256))
        if self.data_dir is not None:
            return self._from_folder(url, self.data_dir / key, want)
        source, target, token = f"{self.mirror}/{key}", self.cache / key, None
        if self.mirror is None:
            source = url
            if url.startswith(f"{hub.OFFICIAL}/"):
                if (found := hub.cached_file(url)) is not None:
                    return found
                source, token = hub.endpoint() + url.removeprefix(hub.OFFICIAL), hub.token()
        part = target.with_name(target.name + ".part")
        try:
            if not is_finished(target, want, (url, source)):
                target.parent.mkdir(parents=True, exist_ok=True)
                with locked(target):
                    if not is_finished(target, want, (url, source)):  # by the process that we waited for
                        self._fill(url, source, target, part, want, token)
        except OSError as error:
            raise _cannot_write(target, part, error) from error
        return target

    def _vouched_sums(self) -> dict[str, Sums]:
        """The checksums.tsv of the mirror or data_dir, read once; {} where there is none."""
        if self._vouched is None:
            place = f"{self.mirror or self.data_dir}/checksums.tsv"
            content = None
            if self.data_dir is not None and Path(place).exists():
                try:
                    content = Path(place).read_bytes()
                except OSError as error:
                    raise AttemptError(f"{place}: cannot be read ({error.strerror}): mend or remove it") from None
            elif self.mirror is not None:
                content = self._mirrors_sums(place)
            self._vouched = parse_checksums(content, place) if content is not None else {}
            if self._vouched:
                note(f"{place} has sums of its own: the files that it lists may be others than the official ones")
        return self._vouched

    def _mirrors_sums(self, address: str) -> bytes | None:
        """The mirror's checksums.tsv; None where it has none. A copy serves while the mirror is out of reach."""
        copy = self.cache / key_of(address)
        try:
            content = patiently(lambda: self._small(address))
        except NotFound:
            with suppress(OSError):
                copy.unlink(missing_ok=True)
            return None
        except (Unreachable, Cut) as error:
            if not copy.is_file():
                why = error.why if isinstance(error, Unreachable) else str(error)
                raise AttemptError(
                    f"--mirror {self.mirror}: expected a server of files, found none ({why}): start it, or give "
                    "another --mirror URL, or --data-dir DIR"
                ) from None
            return copy.read_bytes()
        with suppress(OSError, AttemptError):  # a read-only cache can still hold all that is needed
            copy.parent.mkdir(parents=True, exist_ok=True)
            with locked(copy):
                write_whole(copy, content)
        return content

    def _small(self, address: str) -> bytes:
        """The content of a small file, whole."""
        content = b""
        with open_url(self._session, address, address) as response:
            for block in body(response):
                content += block
                if len(content) > CHECKSUMS_MOST:
                    raise AttemptError(f"{address}: expected at most {CHECKSUMS_MOST} bytes, found more: mend it")
            total = _total(response, 0)
        if total is not None and len(content) < total:
            raise Cut(f"the server closed after {len(content)} of {total} bytes")
        return content

    def _from_folder(self, url: str, path: Path, want: Sums) -> Path:
        if not path.is_file():
            raise NotFound(f"no file {path} (--data-dir uses no network): put the file of {url} there")
        try:
            # Hashed at every use, there being no record of an earlier check, but only where a sum is known.
            found = Sums(path.stat().st_size, sha256_of(path) if want.sha256 else None)
        except OSError as error:
            raise AttemptError(f"{path}: cannot be read ({error.strerror}): check its permissions") from None
        if differs(found, want):
            raise self._wrong_file(str(path), url, found, want, is_page(path))
        return path

    def _fill(self, url: str, source: str, target: Path, part: Path, want: Sums, token: str | None) -> None:
        """Downloads `target`, or remembers that the server has none: without a network, that still holds."""
        absent = {"url": source, "absent": True}
        try:
            finish(part, target, source, self._download(url, source, part, want, token))
        except NotFound:
            if not target.is_file():
                write_record(target, absent)
            raise
        except Unreachable:
            if read_record(target) != absent:
                raise
            raise NotFound(f"no file {source} when it was last asked for (it is out of reach now)") from None

    def _download(self, url: str, source: str, part: Path, want: Sums, token: str | None) -> Sums:
        """Fills `part` from `source`; returns what was received."""
        try:
            return patiently(lambda: self._receive(url, source, part, want, token))
        except Cut as cut:
            have = part.stat().st_size if part.exists() else 0
            advice = "run the same command again later"
            if have:
                advice = f"the {have} bytes received are kept in {part}: run the same command again to go on"
            tries = f"{cut.tries} tries" if cut.tries > 1 else "1 try"
            raise AttemptError(f"lost {source} in {tries} ({cut}): {advice}") from None

    def _receive(self, url: str, source: str, part: Path, want: Sums, token: str | None) -> Sums:
        """One request: appends to `part` what is missing and checks it."""
        have, etag = resumable(part, source, want)
        if have and have == want.size and sha256_of(part) == want.sha256:  # stopped just before it was moved
            return want
        if self.mirror is None and (variable := hub.offline()):
            raise Unreachable(url, source, f"{variable} is set, and the file is not in {part.parent}", "unset it")
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and etag:  # the rest, if the file is still the one of that ETag, else all of it (status 200)
            headers["If-Range"] = etag
        with open_url(self._session, url, source, headers, token) as response:
            resumed = have > 0 and response.status_code == 206 and _range_start(response) == have
            if response.status_code != 200 and not resumed:
                drop(part)
                raise Cut(f"HTTP status {response.status_code} for {headers}")
            start = have if resumed else 0
            want = _linked_sums(response, want)
            total = _total(response, start)
            if total is not None and want.size is not None and total != want.size:
                drop(part)
                raise self._wrong_file(source, url, Sums(total, None), want, _says_page(response))
            expected = Sums(total if want.size is None else want.size, want.sha256)
            if not expected.sha256:
                _refuse_unsure(source, response, expected.size)
            if not resumed:  # the old part goes before the record of the new one comes
                drop(part)
                tag = response.headers.get("ETag", "")  # a weak one does not promise the same bytes
                write_record(part, {"url": source, "etag": "" if tag.startswith("W/") else tag})
            self._write_body(response, part, start, expected.size, source)
        size, page = part.stat().st_size, is_page(part)
        found = Sums(size if total is not None or size <= (expected.size or size) else None, sha256_of(part))
        if not differs(found, expected) and (expected.sha256 or not page):
            return found
        drop(part)
        if resumed:  # joined from two files: once more, from the start
            raise Cut("the resumed file had a wrong sum")
        raise self._wrong_file(source, url, found, expected, page)

    def _write_body(self, response: requests.Response, part: Path, start: int, total: int | None, source: str) -> None:
        """Writes the body to `part` from byte `start` on; Cut where it ends before byte `total`."""
        size = f"{total / 1e6:.1f} MB" if total is not None else "size unknown"
        if total is not None and total - start > (free := shutil.disk_usage(part.parent).free):
            raise OSError(errno.ENOSPC, f"{(total - start) / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free")
        if not self.progress:
            resumed = f", from {start / 1e6:.1f} MB on" if start else ""
            print(f"downloading {source} ({size}{resumed})", file=sys.stderr)
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=not self.progress)
        with bar, open(part, "ab") as file:
            told = network.clock()
            try:
                for block in body(response):
                    file.write(block)
                    bar.update(len(block))
                    if total is not None and file.tell() > total:
                        break  # more than there should be, maybe without an end: refused by its size
                    if not self.progress and network.clock() - told >= network.PACE_SECONDS:
                        told = network.clock()
                        print(f"  {file.tell() / 1e6:.1f} MB of {size}", file=sys.stderr)
            finally:
                file.flush()
                os.fsync(file.fileno())
            if total is not None and file.tell() < total:
                raise Cut(f"the server closed after {file.tell()} of {total} bytes")

    def _wrong_file(self, place: str, url: str, found: Sums, want: Sums, page: bool) -> AttemptError:
        """The error for a file that is not the expected one, with the way to accept it all the same."""
        if page:
            return AttemptError(
                f"{place} is not the expected file: found a web page (HTML), perhaps a login or a notice of the "
                "network: open the address in a browser to see it, then run the same command again"
            )
        if want.size not in (None, found.size):
            what = f"expected {want.size} bytes, found {'more' if found.size is None else found.size}"
        else:
            what = f"expected SHA-256 {want.sha256}, found {found.sha256}"
        root = self.mirror or self.data_dir
        where = f"{root}/checksums.tsv" if root else "a checksums.tsv at the root of a --mirror or --data-dir"
        return AttemptError(
            f"{place} is not the expected file: {what}: get it again, or, to accept this one, list "
            f"{key_of(url)} with its size and SHA-256 in {where} (tab-separated columns path, bytes, sha256)"
        )


def _cannot_write(target: Path, part: Path, error: OSError) -> AttemptError:
    advice = "free the space, or set XDG_CACHE_HOME to a writable folder"
    with suppress(OSError):
        if part.stat().st_size:
            advice += f" (what was received is kept in {part}, for the next try)"
    return AttemptError(f"cannot write {target} ({error.strerror or error}): {advice}")


def _refuse_unsure(source: str, response: requests.Response, size: int | None) -> None:
    """Without a known sum, only what the response says can show that the file is the whole and right one."""
    found = ""
    if _says_page(response):
        found = "a web page (HTML), perhaps a login or a notice of the network"
    elif response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
        found = f"one packed as {response.headers['Content-Encoding']:.40}, which was not asked for"
    elif size is None and "chunked" not in response.headers.get("Transfer-Encoding", ""):
        found = "one of unknown length, whose loss would not be noticed"
    if found:
        raise AttemptError(f"cannot fetch {source}: expected a file, found {found}: use another network or --mirror")


def is_page(path: Path) -> bool:
    """Does the file begin as a web page does? None of the files that are fetched is one."""
    with open(path, "rb") as file:
        return file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _says_page(response: requests.Response) -> bool:
    return response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml"))


def _range_start(response: requests.Response) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _number(text: str) -> int | None:
    """A count of bytes in a header; None where it is none."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _total(response: requests.Response, start: int) -> int | None:
    """The size of the whole file in bytes, by the response's Content-Length."""
    length = _number(response.headers.get("Content-Length", ""))
    return start + length if length is not None else None


def _linked_sums(response: requests.Response, want: Sums) -> Sums:
    """Fills unknown sums with what Hugging Face says, in a redirect, of the large file behind it."""
    for answer in [*response.history, response]:
        etag = answer.headers.get("X-Linked-Etag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", etag):
            linked = _number(answer.headers.get("X-Linked-Size", ""))
            return Sums(linked if want.size is None else want.size, want.sha256 or etag)
    return want
