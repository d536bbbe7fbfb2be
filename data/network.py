"""One HTTP request, its time limits, and its failures told apart: gone, cut, or out of reach."""

import re
import socket
import threading
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import NewConnectionError

from attempt.errors import AttemptError, NotFound

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0


class Unreachable(AttemptError):  # noqa: N818
    """A machine without a network; the message names the ways to do without."""

    def __init__(self, url: str, source: str, why: str) -> None:
        self.why = why
        stands_in = f"; it stands in for {url}" if source != url else ""
        super().__init__(
            f"cannot reach {source} ({why}{stands_in}): connect to the network, or give --mirror URL "
            f"(a server with files at HOST/PATH), or --data-dir DIR (a folder with DIR/{key_of(url)})"
        )


class Cut(Exception):  # noqa: N818
    """The connection was lost, or the server is busy: worth another try."""


def new_session() -> requests.Session:
    """A session that asks for files as they are: compressed, lengths and ranges would count other bytes."""
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"
    return session


def key_of(url: str) -> str:
    """HOST/PATH of an address, which is also the file's place in the cache, a mirror and a data_dir."""
    parts = urlsplit(url)
    key = parts.netloc + parts.path + (f"?{parts.query}" if parts.query else "")
    if not parts.netloc or key.endswith("/") or ".." in key.split("/"):
        raise AttemptError(f"expected the address of a file, like https://HOST/PATH, found {url!r}")
    return key


def open_url(
    session: requests.Session, url: str, source: str, headers: dict[str, str] | None = None
) -> requests.Response:
    """The streamed response, of status 200, 206 or 416, of `source`, which stands in for `url`.

    Raises NotFound (404, 410), Cut (try again), or AttemptError (no connection, any other status).
    """
    try:
        timeout = (_connect_seconds(session, source), READ_SECONDS)
        response = session.get(source, headers=headers, stream=True, timeout=timeout)
    except requests.RequestException as error:
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
    if status >= 500:
        raise Cut(f"HTTP status {status}")
    raise AttemptError(f"cannot fetch {source}: expected HTTP status 200, found {status}: check access to it")


def reason(error: BaseException) -> str:
    """A few words for the nested exceptions of requests."""
    chain = _chain(error)
    if any(isinstance(e, socket.gaierror) for e in chain):
        return "name resolution failed"
    if any(isinstance(e, ConnectionRefusedError) for e in chain):
        return "connection refused"
    if any(isinstance(e, requests.Timeout) for e in chain):
        return "timed out"
    return re.sub(r"<[^>]*>:? ?", "", str(chain[-1]).replace("\n", " ")) or type(error).__name__


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


def _out_of_reach(error: requests.RequestException) -> bool:
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
    if requests.utils.get_environ_proxies(address):
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
