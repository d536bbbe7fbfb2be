"""One HTTP request, its time limits, and its kinds of failure: gone, cut, or out of reach."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError, NewConnectionError

from model.errors import AttemptError, NotFound

T = TypeVar("T")

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0  # without a single byte
PACE_SECONDS = 60.0  # a server is too slow that sends, for so long,
PACE_BYTES = 1000  # fewer bytes a second
RETRIES = 3
BACKOFF_SECONDS = 0.5  # doubled after every retry
LONGEST_WAIT = 120.0  # seconds; a server that asks for more is left alone
BLOCK = 1 << 16  # bytes read at a time

pause = time.sleep
clock = time.monotonic


class Unreachable(AttemptError):  # noqa: N818
    """A machine without a network; the message names the ways to do without."""

    def __init__(self, url: str, source: str, why: str, advice: str = "connect to the network") -> None:
        self.why = why
        stands_in = f"; it stands in for {url}" if source != url else ""
        super().__init__(
            f"cannot reach {source} ({why}{stands_in}): {advice}, or give --mirror URL "
            f"(a server with files at HOST/PATH), or --data-dir DIR (a folder with DIR/{key_of(url)})"
        )


class Cut(Exception):  # noqa: N818
    """The connection was lost, or the server is busy: worth another try, after `wait` seconds where it says so."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait
        self.tries = 1


class Bearer(AuthBase):
    """A token in the header. requests takes it off again where a redirect leads to another host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def new_session() -> requests.Session:
    """A session that asks for files as they are: compressed, lengths and ranges would count other bytes."""
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"
    return session


def key_of(url: str) -> str:
    """HOST/PATH of an address, which is also the file's place in the cache, a mirror and a data_dir."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]  # a password is no part of the place
    key = host + parts.path + (f"?{parts.query}" if parts.query else "")
    if not host or key.endswith("/") or ".." in key.split("/") or not key.isprintable():
        raise AttemptError(f"expected the address of a file, like https://HOST/PATH, found {url!r}")
    return key


def open_url(
    session: requests.Session,
    url: str,
    source: str,
    headers: dict[str, str] | None = None,
    token: str | None = None,
) -> requests.Response:
    """The streamed response, of status 200, 206 or 416, of `source`, which stands in for `url`.

    token: Hugging Face's, for the host of `source` alone.
    Raises NotFound (404, 410), Cut (try again), or AttemptError (no connection, any other status).
    """
    auth = Bearer(token) if token else None
    try:
        timeout = (_connect_seconds(session, source), READ_SECONDS)
        response = session.get(source, headers=headers, stream=True, timeout=timeout, auth=auth)
    except requests.TooManyRedirects:
        raise AttemptError(f"cannot fetch {source}: its redirects lead nowhere: try later, or use --mirror") from None
    except (requests.RequestException, HTTPError) as error:
        if _out_of_reach(error):
            raise Unreachable(url, source, reason(error)) from error
        raise Cut(reason(error)) from error
    except OSError as error:  # the name resolution in _connect_seconds
        raise Unreachable(url, source, str(error)) from error
    status = response.status_code
    if status in (200, 206, 416):
        return response
    response.close()
    if status in (404, 410):
        raise NotFound(f"no file {source} (HTTP status {status}): check the name, or the mirror's layout")
    if status in (408, 425, 429) or status >= 500:
        wait = _retry_after(response.headers.get("Retry-After", ""))
        asked = f", to be asked again in {wait:.0f} s" if wait is not None else ""
        raise Cut(f"HTTP status {status}{asked}", wait)
    raise AttemptError(f"cannot fetch {source}: expected HTTP status 200, found {status}: {_access(status, token)}")


def patiently(once: Callable[[], T]) -> T:
    """once(), again after a Cut, at most RETRIES times. Raises the last Cut.

    The pauses are those that the server asks for, else they double.
    """
    for tries in range(1, RETRIES + 2):
        try:
            return once()
        except Cut as cut:
            cut.tries = tries
            wait = BACKOFF_SECONDS * 2 ** (tries - 1) if cut.wait is None else cut.wait
            if tries > RETRIES or wait > LONGEST_WAIT:
                raise
            pause(wait)
    raise AssertionError("not reached")


def body(response: requests.Response) -> Iterator[bytes]:
    """The blocks of the body as they arrive, as the server keeps them: .gz files stay so whatever the headers say.

    Raises Cut where the connection is lost, silent for READ_SECONDS or slower than PACE_BYTES a second. The end of
    a body that says its length is not checked here.
    """
    raw: urllib3.HTTPResponse = response.raw
    raw.enforce_content_length = False  # it would throw the last, short block away
    read = getattr(raw, "read1", raw.read)  # urllib3 before 2.1 can only wait until a block is full
    start, received = clock(), 0
    while True:
        try:
            block = read(BLOCK, decode_content=False)
        except (HTTPError, OSError) as error:
            raise Cut(reason(error)) from error
        if not block:
            return
        yield block
        received += len(block)
        if (passed := clock() - start) >= PACE_SECONDS:
            if received < PACE_BYTES * passed:
                raise Cut(f"the server sent {received} bytes in {passed:.0f} s")
            start, received = clock(), 0


def reason(error: BaseException) -> str:
    """A few words for the nested exceptions of requests; no address's query, which may be a signature."""
    chain = _chain(error)
    through = "the proxy: " if any(isinstance(e, requests.exceptions.ProxyError) for e in chain) else ""
    if any(isinstance(e, socket.gaierror) for e in chain):
        return f"{through}name resolution failed"
    if any(isinstance(e, ConnectionRefusedError) for e in chain):
        return f"{through}connection refused"
    if any(isinstance(e, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)) for e in chain):
        return f"{through}timed out"
    text = re.sub(r"<[^>]*>:? ?", "", str(chain[-1]).replace("\n", " "))
    return through + (re.sub(r"\?[^\s)'\"]*|//[^\s/@]*@", "", text)[:200] or type(error).__name__)


def _retry_after(text: str) -> float | None:
    """Seconds from now, by a Retry-After header: a number, or a date (RFC 9110, sec. 10.2.3); None: it says nothing."""
    if re.fullmatch("[0-9]{1,9}", text.strip()):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - now()).total_seconds())


def now() -> datetime:
    return datetime.now(timezone.utc)


def _access(status: int, token: str | None) -> str:
    if status == 407:
        return "the proxy of HTTP_PROXY or HTTPS_PROXY wants a user and a password, as in http://USER:PASSWORD@HOST"
    if status in (401, 403) and token:
        return "the Hugging Face token (HF_TOKEN, or HF_HOME/token) was refused: renew it, or remove it"
    return "check access to it"


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and those that it wraps, outermost first: requests keeps them in args and context."""
    chain: list[BaseException] = []
    todo = [error]
    while todo:
        e = todo.pop()
        if e not in chain:
            chain.append(e)
            inner = [getattr(e, "reason", None), *e.args, e.__cause__ or e.__context__]
            todo += [i for i in inner if isinstance(i, BaseException)]
    return chain


def _out_of_reach(error: BaseException) -> bool:
    """No connection was made at all, so another try would not help."""
    kind = requests.exceptions
    never = (kind.ConnectTimeout, kind.SSLError, kind.ProxyError, kind.InvalidURL, kind.InvalidSchema)
    return isinstance(error, never) or any(isinstance(e, NewConnectionError) for e in _chain(error))


def _connect_seconds(session: requests.Session, address: str) -> float:
    """The time limit of connecting to one of the host's addresses, so that all of them take about 5 s.

    Looking up a name has no time limit of its own, and connecting tries every address in turn: without a
    network both can hang for long. So the look-up runs in a thread, and the limit is divided.
    Raises OSError where the name is not found in time.
    """
    if requests.utils.select_proxy(address, requests.utils.get_environ_proxies(address)):
        return CONNECT_SECONDS  # the proxy looks the name up
    found: list[object] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(urlsplit(address).hostname, 443, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not found or isinstance(found[0], Exception):
        raise OSError("name resolution failed")
    return max(1.5, CONNECT_SECONDS / len(found))
