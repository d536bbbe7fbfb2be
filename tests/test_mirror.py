"""The main job as a user starts it, by names alone: a server on loopback stands in for the real hosts."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import train


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror(fixtures: Path, flan: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a file server with the real data sets, and the real checkpoint under a known name."""
    root = tmp_path / "mirror"
    root.mkdir()
    for entry in (fixtures / "mirror").iterdir():
        (root / entry.name).symlink_to(entry.resolve())
    place = root / "huggingface.co/google/flan-t5-small/resolve/main"
    place.mkdir(parents=True)
    for file in flan.iterdir():
        (place / file.name).symlink_to(file.resolve())
    handler = functools.partial(Quiet, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_everything_is_fetched_once_and_then_found(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    command = [
        "--task",
        "rte",
        "--method",
        "prompt",
        "--model",
        "google/flan-t5-small",
        "--mirror",
        mirror,
        "--dry-run",
    ]
    small = ["--prompt-length", "4", "--batch-size", "2", "--device", "cpu"]
    assert train.main([*command, *small]) == 0
    first = capsys.readouterr()
    # the mirror has no safetensors of this model: the next kind of weights is asked for
    for file in ("config.json", "spiece.model", "pytorch_model.bin", "RTE.zip"):
        assert f"{file} (" in first.err
    assert "rte: train 2,490, dev 138, test 139 examples" in first.out and "2,048 of 76,963,200 parameters" in first.out
    assert train.main([*command, *small]) == 0
    second = capsys.readouterr()
    assert "downloading" not in second.err and second.out == first.out
    hosts = {path.name for path in (tmp_path / "cache/attempt").iterdir()}
    assert hosts == {"dl.fbaipublicfiles.com", "huggingface.co", mirror.removeprefix("http://")}
