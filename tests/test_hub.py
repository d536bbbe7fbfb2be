"""Hugging Face's settings: the address, the token that only that address may see, and the models already there."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from glue_files import Server, no_settings, serving

from data import hub as settings
from data import network
from data.download import Downloader
from model.checkpoint import WEIGHT_FILES, find_checkpoint
from model.errors import AttemptError, NotFound

SECRET = "hf_s3cr3tT0ken"
NAME = "google/flan-t5-small"
FOLDER = f"/{NAME}/resolve/main"
WEIGHTS = b"weights" * 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server that stands in for huggingface.co, with the files of one model."""
    no_settings(monkeypatch, tmp_path)
    monkeypatch.setattr(network, "pause", lambda seconds: None)
    files = {"config.json": b"{}", "spiece.model": b"pieces", "pytorch_model.bin": WEIGHTS}
    with serving({f"{FOLDER}/{name}": content for name, content in files.items()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address + "/")
        yield server


def tokens(server: Server) -> set[str | None]:
    return {headers.get("Authorization") for _, headers in server.requests}


def snapshot(root: Path, *names: str) -> Path:
    """A model in the layout of Hugging Face's cache: links to blobs."""
    folder = root / f"models--{NAME.replace('/', '--')}"
    place = folder / "snapshots" / COMMIT
    for part in (folder / "blobs", place, folder / "refs"):
        part.mkdir(parents=True, exist_ok=True)
    (folder / "refs/main").write_text(COMMIT)
    for name in names:
        (folder / "blobs" / name).write_bytes(b"content of " + name.encode())
        (place / name).symlink_to(Path("../../blobs") / name)
    return place


def test_the_endpoint_stands_in_for_the_official_address(hub: Server, cache: Path) -> None:
    folder = find_checkpoint(NAME, Downloader(cache).fetch)
    assert folder == cache / "huggingface.co" / FOLDER[1:]
    assert (folder / "pytorch_model.bin").read_bytes() == WEIGHTS
    assert tokens(hub) == {None}
    assert find_checkpoint(NAME, Downloader(cache).fetch) == folder
    # safetensors are not there, and asked for each time: the server may have them now
    assert len(hub.requests) == 5 + 2
    hub.shutdown()
    hub.server_close()
    assert find_checkpoint(NAME, Downloader(cache).fetch) == folder  # ... but not needed without a network


@pytest.mark.parametrize("address", ["huggingface.co", "ftp://host", "https://", f"https://me:{SECRET}@host"])
def test_an_endpoint_that_is_none(hub: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(AttemptError, match="HF_ENDPOINT: expected http://SERVER") as error:
        find_checkpoint(NAME, Downloader(cache).fetch)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("place", ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME"])
def test_the_token_is_read_where_their_programs_read_it(
    hub: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    file = tmp_path / "mine" / "token"
    file.parent.mkdir()
    file.write_text(f"{SECRET}\n")
    monkeypatch.setenv(place, {"HF_TOKEN": f" {SECRET}\n", "HF_TOKEN_PATH": str(file)}.get(place, str(file.parent)))
    find_checkpoint(NAME, Downloader(cache).fetch)
    assert tokens(hub) == {f"Bearer {SECRET}"}


def test_the_token_goes_to_no_other_host(
    hub: Server,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    linked = {"X-Linked-Etag": f'"{hashlib.sha256(WEIGHTS).hexdigest()}"', "X-Linked-Size": str(len(WEIGHTS))}
    with serving({"/blob": WEIGHTS, "/data.bin": WEIGHTS, f"/huggingface.co{FOLDER}/config.json": b"{}"}) as other:
        # another port of the same machine, then another name of it
        for number, host in enumerate((other.address, other.address.replace("127.0.0.1", "localhost"))):
            hub.redirects[f"{FOLDER}/pytorch_model.bin"] = (f"{host}/blob?Signature={SECRET}", linked)
            other.files[f"/blob?Signature={SECRET}"] = WEIGHTS
            folder = find_checkpoint(NAME, Downloader(cache / str(number)).fetch)
            assert (folder / "pytorch_model.bin").read_bytes() == WEIGHTS
        Downloader(cache).fetch(f"{other.address}/data.bin")
        Downloader(cache, mirror=other.address).fetch(f"https://huggingface.co{FOLDER}/config.json")
        assert tokens(hub) == {f"Bearer {SECRET}"}
        assert len(other.requests) == 5 and tokens(other) == {None}
    with pytest.raises(AttemptError) as error:  # the other host is gone now
        find_checkpoint(NAME, Downloader(cache / "new").fetch)
    assert "connection refused" in str(error.value)
    kept = "".join(path.read_text("latin-1") for path in cache.rglob("*") if path.is_file())
    log = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("urllib3"))
    # urllib3's own debugging lines have the redirect's address, but never a header
    assert f"Bearer {SECRET}" not in caplog.text
    assert SECRET not in str(error.value) + capsys.readouterr().err + kept + log


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_no_refusal_shows_the_token(
    hub: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.replies = [(status, {"WWW-Authenticate": f"Bearer {SECRET}"}, SECRET.encode())] * 9
    with pytest.raises(AttemptError, match=str(status)) as error:
        find_checkpoint(NAME, Downloader(cache).fetch)
    assert SECRET not in str(error.value) + capsys.readouterr().err
    assert ("token (HF_TOKEN, or HF_HOME/token) was refused" in str(error.value)) == (status in (401, 403))


@pytest.mark.parametrize("token", [f"{SECRET} two", f"{SECRET}\nX-Header: 1", f"{SECRET}\u00e9", f"{SECRET}\x07"])
def test_a_token_that_no_header_can_carry_is_not_shown(
    hub: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(AttemptError, match="HF_TOKEN: expected a token of visible ASCII") as error:
        find_checkpoint(NAME, Downloader(cache).fetch)
    assert SECRET not in str(error.value) and hub.requests == []


def test_a_tilde_is_the_users_home(hub: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN_PATH", "~/token")
    monkeypatch.setenv("HF_HUB_CACHE", "~/theirs")
    (tmp_path / "token").write_text(SECRET)
    find_checkpoint(NAME, Downloader(cache).fetch)
    assert tokens(hub) == {f"Bearer {SECRET}"}
    place = snapshot(tmp_path / "theirs", "config.json", "spiece.model", "pytorch_model.bin")
    assert find_checkpoint(NAME, Downloader(cache).fetch) == place


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_a_model_that_their_programs_have_is_not_downloaded(
    hub: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "theirs"))
    root = tmp_path / "theirs" / ("hub" if variable == "HF_HOME" else "")
    place = snapshot(root, "config.json", "spiece.model", "pytorch_model.bin")
    assert find_checkpoint(NAME, Downloader(cache).fetch) == place
    assert hub.requests == [] and not cache.exists()
    # ... unless the user names another place
    with pytest.raises(NotFound):
        find_checkpoint(NAME, Downloader(cache, mirror=hub.address).fetch)
    with pytest.raises(NotFound):
        find_checkpoint(NAME, Downloader(cache, data_dir=tmp_path).fetch)


def test_a_model_in_shards_that_their_programs_have(hub: Server, cache: Path, tmp_path: Path) -> None:
    names = ("config.json", "spiece.model", "model.safetensors.index.json", "a.safetensors", "b.safetensors")
    place = snapshot(tmp_path / "hugging-face/hub", *names[:-1])
    index = json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
    (place / "model.safetensors.index.json").write_text(index)
    assert find_checkpoint(NAME, Downloader(cache).fetch) != place  # a shard is missing
    snapshot(tmp_path / "hugging-face/hub", "b.safetensors")
    assert find_checkpoint(NAME, Downloader(cache).fetch) == place


@pytest.mark.parametrize("begun", ["model.safetensors.index.json", "model.safetensors"])
def test_a_later_download_of_theirs_that_was_cut_counts(hub: Server, cache: Path, tmp_path: Path, begun: str) -> None:
    """Of the weights that are there the first is read, so it is the one that must be whole."""
    assert settings.WEIGHTS == WEIGHT_FILES
    place = snapshot(tmp_path / "hugging-face/hub", "config.json", "spiece.model", "pytorch_model.bin", begun)
    (place / begun).write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}) if begun.endswith("json") else "")
    folder = find_checkpoint(NAME, Downloader(cache).fetch)
    assert folder.is_relative_to(cache) and (folder / "pytorch_model.bin").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    "damage", ["no weights", "no tokenizer", "empty weights", "dangling link", "bad ref", "no ref"]
)
def test_an_incomplete_model_of_theirs_is_downloaded(hub: Server, cache: Path, tmp_path: Path, damage: str) -> None:
    names = ["config.json", "spiece.model", "pytorch_model.bin"]
    if damage in ("no weights", "no tokenizer"):
        names.remove("pytorch_model.bin" if damage == "no weights" else "spiece.model")
    place = snapshot(tmp_path / "hugging-face/hub", *names)
    blobs, refs = place.parents[1] / "blobs", place.parents[1] / "refs"
    if damage == "empty weights":
        (blobs / "pytorch_model.bin").write_bytes(b"")
    elif damage == "dangling link":
        (blobs / "pytorch_model.bin").rename(blobs / "pytorch_model.bin.incomplete")
    elif damage == "bad ref":
        (refs / "main").write_text("../../elsewhere")
    elif damage == "no ref":
        (refs / "main").unlink()
    folder = find_checkpoint(NAME, Downloader(cache).fetch)
    assert folder.is_relative_to(cache) and len(hub.requests) == 5


def test_the_layout_is_that_of_their_library(hub: Server, cache: Path, tmp_path: Path) -> None:
    """huggingface_hub finds the files where we do."""
    library = pytest.importorskip("huggingface_hub")
    root = tmp_path / "hugging-face/hub"
    place = snapshot(root, "config.json", "spiece.model", "pytorch_model.bin")
    found = library.try_to_load_from_cache(NAME, "config.json", cache_dir=root)
    assert Path(found) == place / "config.json" == find_checkpoint(NAME, Downloader(cache).fetch) / "config.json"


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_no_network_is_tried(hub: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "0")
    find_checkpoint(NAME, Downloader(cache / "there").fetch)
    asked = len(hub.requests)
    monkeypatch.setenv(variable, "yes")
    monkeypatch.setattr("data.download.open_url", None)  # whatever would ask, would fail
    find_checkpoint(NAME, Downloader(cache / "there").fetch)  # all is at hand, and the server had no model.safetensors
    other = Downloader(cache / "empty")
    for fetch in (lambda: find_checkpoint(NAME, other.fetch), lambda: other.fetch("https://data.example/x.zip")):
        with pytest.raises(
            AttemptError, match=rf"cannot reach http.*\({variable} is set, and the file is not in .*unset it"
        ):
            fetch()
    assert len(hub.requests) == asked
