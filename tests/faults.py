"""A file on a loopback server, and a cache for it: what the tests of downloads that go wrong share."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from glue_files import Server, no_settings

from data import network
from data.download import Downloader

BODY = random.Random(0).randbytes(1_024_000)
SHA = hashlib.sha256(BODY).hexdigest()
WHOLE = [".file.bin.json", "file.bin"]


def without_waiting(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[float]:
    """The pauses between tries, in seconds; none is made."""
    no_settings(monkeypatch, folder)
    made: list[float] = []
    monkeypatch.setattr(network, "pause", made.append)
    return made


def fetch(server: Server, cache: Path, **sums: Any) -> bytes:
    """The file, by its known sums unless others are given."""
    sums = sums or {"size": len(BODY), "sha256": SHA}
    return Downloader(cache, progress=False).fetch(f"{server.address}/file.bin", **sums).read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]
