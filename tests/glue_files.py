"""Small self-made files in the layout of GLUE's, with all their quirks, and a server that misbehaves on demand."""

import hashlib
import io
import os
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model.errors import AttemptError

HOST = "dl.fbaipublicfiles.com"

MNLI_FRONT = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
)
MNLI_TRAIN = f"{MNLI_FRONT}\tsentence1\tsentence2\tlabel1\tgold_label\n"
MNLI_DEV = f"{MNLI_FRONT}\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
PAIR = "index\tsentence1\tsentence2\tlabel\n"
QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
MRPC = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"

ZIPS = {
    "MNLI.zip": {
        "MNLI/train.tsv": MNLI_TRAIN
        + "0\t1\t1e\tslate\t\t\t\t\tA b.\tC d.\tentailment\tentailment\n"
        + "1\t2\t2n\tslate\t\t\t\t\tE.\tF.\tneutral\tneutral\n"
        + "2\t3\t3c\tslate\t\t\t\t\tG.\tH.\t-\t-\n",
        "MNLI/dev_matched.tsv": MNLI_DEV
        # the first annotator's label (column 11) differs from the gold one (the last)
        + "0\t1\t1c\tslate\t\t\t\t\tP.\tQ.\tneutral\t"
        + "contradiction\tneutral\tcontradiction\tcontradiction\tcontradiction\n"
        + "1\t1\t1c\tslate\t\t\t\t\tP.\tQ.\tneutral\tentailment\tcontradiction\tneutral\tentailment\t-\n",
        "MNLI/dev_mismatched.tsv": MNLI_DEV + "0\t1\t1e\toup\t\t\t\t\tR.\tS.\tneutral\t\t\t\t\tentailment\n",
    },
    "QQP-clean.zip": {
        "QQP/train.tsv": QQP
        + '1\t2\t3\tWhat is "x?\tWhat is y?\t1\n'
        + "4\t5\t6\tbroken\n"
        + "\n"
        + "7\t8\t9\tWho?\tWhere?\t0\n",
        "QQP/dev.tsv": QQP + "1\t2\t3\tA?\tB?\t0\n",
    },
    "QNLIv2.zip": {
        "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n"
        + '0\tWho said "go?\tHe \ufeffsaid\u2028it.\tentailment\n'
        + '1\tWhen" ?\tIn\r1990.\tnot_entailment\r\n',
        "QNLI/dev.tsv": "index\tquestion\tsentence\tlabel\n0\tQ?\tS.\tnot_entailment\n",
    },
    "SST-2.zip": {
        "SST-2/train.tsv": 'sentence\tlabel\n"good \t1\nbad " thing \t0\na\x85b\x0cc \t1\n',
        "SST-2/dev.tsv": "\ufeffsentence\tlabel\nfine \t1\n",
    },
    "STS-B.zip": {
        "STS-B/train.tsv": STSB
        + "0\tg\tf\t2012\t1\tnone\tnone\tA.\tB.\t5.000\n"
        + "1\tg\tf\t2012\t1\tnone\tnone\tC.\tD.\t2.5\n"
        + "2\tg\tf\t2012\t1\tnone\tnone\tE.\tF.\t0.7\n",
        "STS-B/dev.tsv": STSB + "0\tg\tf\t2012\t1\tnone\tnone\tG.\tH.\t3.25\n",
    },
    "RTE.zip": {
        "RTE/train.tsv": PAIR + "0\tA.\tB.\tnot_entailment\n1\tC.\tD.\tentailment\n",
        "RTE/dev.tsv": PAIR + "0\tE.\tF.\tentailment\n",
    },
    "CoLA.zip": {
        # no header, and no "\n" after the last line of dev
        "CoLA/train.tsv": "gj04\t1\t\tHe ran.\ngj04\t0\t*\tHim ran.\n",
        "CoLA/dev.tsv": "gj04\t0\t*\tRan he.\nw_80\t1\t\tJohn talked.",
    },
    "WNLI.zip": {
        "WNLI/train.tsv": PAIR + "0\tA it.\tA A.\t1\n",
        "WNLI/dev.tsv": PAIR + "0\tB it.\tB B.\t0\n",
    },
}
MRPC_TRAIN = (
    MRPC + '1\t10\t11\tHe said " no .\tNo " .\n' + "0\t20\t21\tX .\tY .\n" + '0\t11\t10\t"Same ids turned .\tZ .\n'
)
MRPC_IDS = "20\t21\n"

ROWS = {  # the first example of train and the first of (the first) dev, with digits
    "mnli": ("mnli premise: A b. hypothesis: C d.", "0", "mnli premise: P. hypothesis: Q.", "2"),
    "qqp": ('qqp question1: What is "x? question2: What is y?', "1", "qqp question1: A? question2: B?", "0"),
    "qnli": (
        'qnli question: Who said "go? sentence: He \ufeffsaid\u2028it.',
        "0",
        "qnli question: Q? sentence: S.",
        "1",
    ),
    "sst2": ('sst2 sentence: "good', "1", "sst2 sentence: fine", "1"),
    "stsb": ("stsb sentence1: A. sentence2: B.", "5.0", "stsb sentence1: G. sentence2: H.", "3.2"),
    "mrpc": ('mrpc sentence1: He said " no . sentence2: No " .', "1", "mrpc sentence1: X . sentence2: Y .", "0"),
    "rte": ("rte sentence1: A. sentence2: B.", "1", "rte sentence1: E. sentence2: F.", "0"),
    "cola": ("cola sentence: He ran.", "1", "cola sentence: Ran he.", "0"),
    "wnli": ("wnli sentence1: A it. sentence2: A A.", "1", "wnli sentence1: B it. sentence2: B B.", "0"),
}


def write_checksums(root: Path) -> None:
    """Vouch for all files of a --data-dir, as a mirror's own checksums.tsv does."""
    rows = ["path\tbytes\tsha256"]
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        content = path.read_bytes()
        rows.append(f"{path.relative_to(root).as_posix()}\t{len(content)}\t{hashlib.sha256(content).hexdigest()}")
    (root / "checksums.tsv").write_text("\n".join(rows) + "\n")


def zipped(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return content.getvalue()


class Folder:
    """A data set folder made on the fly; `fetch` has Downloader.fetch's signature and checks no sums."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, zips: dict[str, dict[str, str]] | None = None) -> "Folder":
        """Writes ZIPS and MRPC's files; `zips` replaces single members."""
        for name, members in ZIPS.items():
            path = self.root / HOST / "glue/data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            texts = {**members, **(zips or {}).get(name, {})}
            path.write_bytes(
                zipped({member: text.encode("utf-8", "surrogateescape") for member, text in texts.items()})
            )
        pairs = self.root / HOST / "senteval/senteval_data/msr_paraphrase_train.txt"
        pairs.parent.mkdir(parents=True, exist_ok=True)
        pairs.write_bytes(MRPC_TRAIN.encode())
        (self.root / HOST / "glue/data/mrpc_dev_ids.tsv").write_bytes(MRPC_IDS.encode())
        return self

    def fetch(self, url: str, size: int | None = None, sha256: str | None = None) -> Path:
        path = self.root / url.removeprefix("https://")
        if not path.exists():
            raise AttemptError(f"no {path}")
        return path


def real_mirror() -> Path:
    """The folder of the real files, `$ATTEMPT_FIXTURES/mirror` or ../shared/fixtures/mirror; skips without it."""
    base = os.environ.get("ATTEMPT_FIXTURES")
    root = Path(base) if base else Path(__file__).parents[2] / "shared" / "fixtures"
    if not (root / "mirror" / HOST).is_dir():
        pytest.skip("no real data sets: set ATTEMPT_FIXTURES to the folder that holds mirror/HOST/PATH")
    return root / "mirror"


class Server(ThreadingHTTPServer):
    """Serves `files` (path -> content) on loopback, with ranges; its faults are switches for the tests."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.files = files
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.cuts: list[int] = []  # for each request in turn: the bytes sent before the connection is cut
        self.ranges = True  # does the server know Range?
        self.etag: str | None = '"one"'
        self.length = True  # does it send Content-Length?
        self.statuses: list[int] = []  # for each request in turn: answer with this status
        self.redirects: dict[str, tuple[str, dict[str, str]]] = {}  # path -> (path, more headers)
        self.replies: list[tuple[int, dict[str, str], bytes]] = []  # for each request in turn: (status, headers, body)
        self.headers: dict[str, str] = {}  # more headers of every whole answer
        self.pauses: list[int] = []  # for each request in turn: the bytes sent before it waits for `go_on`
        self.paused, self.go_on = threading.Event(), threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that refuses a file closes before its end: no traceback."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        if server.replies:
            status, headers, body = server.replies.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            return self.wfile.write(body) and None
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            return self.send_error(status)
        if self.path in server.redirects:
            target, more = server.redirects[self.path]
            self.send_response(302)
            for name, value in {"Location": target, **more}.items():
                self.send_header(name, value)
            return self.end_headers()
        if self.path not in server.files:
            return self.send_error(404)
        body, start = server.files[self.path], 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if server.ranges and asked and self.headers.get("If-Range", server.etag) == server.etag:
            start = int(asked[1])
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.length:
            self.send_header("Content-Length", str(len(body) - start))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if server.pauses:
            stop = start + server.pauses.pop(0)
            self.wfile.write(body[start:stop])
            server.paused.set()
            server.go_on.wait(60)
            start = stop
        self.wfile.write(body[start : start + server.cuts.pop(0)] if server.cuts else body[start:])
        return None


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    server = Server(files)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The settings of the machine that tests run on do not count."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging-face"))
