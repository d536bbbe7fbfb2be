"""Hugging Face's settings: its address, the user's token, and models that its own programs have downloaded.

As its programs do, by their documented names: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE,
HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.
"""

import json
import os
import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from model.errors import AttemptError, NotFound

OFFICIAL = "https://huggingface.co"
WEIGHTS = (  # model/checkpoint.py's, in its order: it reads the first that is there, and no other
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def endpoint() -> str:
    """The address that stands in for https://huggingface.co: `$HF_ENDPOINT`."""
    address = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or OFFICIAL
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise AttemptError(
            "HF_ENDPOINT: expected http://SERVER or https://SERVER without a user and a password, found another "
            "text: mend or unset it"
        )
    return address


def offline() -> str | None:
    """The variable by which the user says that no network is to be tried; None where none does."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((name for name in names if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")), None)


def given_path(variable: str) -> Path | None:
    """The path that the user gives in a variable, "~" at its beginning expanded; None where there is none."""
    given = os.environ.get(variable)
    return Path(os.path.expanduser(given)) if given else None


def home() -> Path:
    """`$HF_HOME`, else `$XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface`."""
    if given := given_path("HF_HOME"):
        return given
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "huggingface"


def token() -> str | None:
    """The user's token: `$HF_TOKEN`, else the text of `$HF_TOKEN_PATH` or `HF_HOME/token`; None where there is none.

    No message ever shows it.
    """
    text, place = os.environ.get("HF_TOKEN", "").strip(), "HF_TOKEN"
    if not text:
        path = given_path("HF_TOKEN_PATH") or home() / "token"
        try:
            text, place = path.read_text("utf-8", errors="replace")[:10000].strip(), str(path)
        except OSError:
            return None
    if text and not re.fullmatch(r"[!-~]+", text):  # a header cannot carry anything else
        raise AttemptError(f"{place}: expected a token of visible ASCII characters, found others: mend or remove it")
    return text or None


def cached_file(url: str) -> Path | None:
    """The file at https://huggingface.co/MODEL/resolve/main/FILE where the model is in `cached_snapshot`.

    All or nothing, so that a model's files lie in one folder. Raises NotFound where it has no such file.
    """
    name, _, file = url.removeprefix(f"{OFFICIAL}/").partition("/resolve/main/")
    folder = cached_snapshot(name)
    if folder is None:
        return None
    if not (folder / file).is_file():
        raise NotFound(f"no file {file} in {folder}, where Hugging Face's programs keep {name}")
    return folder / file


def cached_snapshot(name: str) -> Path | None:
    """The folder in which Hugging Face's programs keep the model `name`, if all that a T5 needs is there.

    They link a file into hub/models--ORG--NAME/snapshots/COMMIT once it is whole; refs/main holds the COMMIT.
    """
    own = [name] if "/" in name else [f"google-t5/{name}", name]  # T5 v1.0's former names lead to that organisation
    return next((folder for folder in map(_snapshot, own) if folder is not None), None)


def _snapshot(name: str) -> Path | None:
    folder = (given_path("HF_HUB_CACHE") or home() / "hub") / f"models--{name.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text("utf-8").strip()
        if not re.fullmatch("[0-9a-f]{40}", commit):
            return None
        snapshot = folder / "snapshots" / commit
        lacking = [file for file in ("config.json", "spiece.model") if not _there(snapshot / file)]
        lacking += [] if _has_weights(snapshot) else ["whole weights"]
        if lacking and snapshot.is_dir():
            _tell(f"note: {snapshot}: without {', '.join(lacking)}: not used, {name} is downloaded")
        return None if lacking else snapshot
    except (OSError, ValueError):
        return None


@cache
def _tell(line: str) -> None:
    """Once: a model's files are asked for one by one."""
    print(line, file=sys.stderr)


def _there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _has_weights(snapshot: Path) -> bool:
    """The first of WEIGHTS that is there, and if it is an index all its shards."""
    path = next((snapshot / file for file in WEIGHTS if (snapshot / file).is_file()), None)
    if path is None or path.suffix != ".json":
        return path is not None and _there(path)
    try:
        shards = set(json.loads(path.read_text("utf-8"))["weight_map"].values())
    except (KeyError, TypeError, AttributeError, RecursionError, OSError, ValueError):
        return False
    return bool(shards) and all(isinstance(s, str) and s == Path(s).name and _there(snapshot / s) for s in shards)
