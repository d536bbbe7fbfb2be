"""Archives from strangers: names that climb, links, bombs, damage. Nothing of them ever reaches the disk."""

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data import files
from data.files import tar_texts, text_lines
from model.errors import AttemptError

Change = Callable[[tarfile.TarInfo], None]


def tar(path: Path, *entries: tuple[str, bytes, Change]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content, change in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            change(entry)
            archive.addfile(entry, io.BytesIO(content))
    return path


def plain(entry: tarfile.TarInfo) -> None:
    pass


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> Change:
    def change(entry: tarfile.TarInfo) -> None:
        entry.type, entry.linkname, entry.size = kind, target, 0

    return change


def texts(path: Path, member: str) -> list[str]:
    return [line for _, line in text_lines(path, member)]


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/passwd", "a/../../secret.txt", "..\\secret.txt"])
def test_names_that_climb_write_nothing_and_hide_nothing(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "x.zip", "w") as archive:
        archive.writestr(name, "bad")
        archive.writestr("good.tsv", "good")
    tar(inside / "x.tar.gz", (name, b"bad", plain), ("good.tsv", b"good", plain))
    before = sorted(tmp_path.rglob("*"))
    for path in (inside / "x.zip", inside / "x.tar.gz"):
        assert texts(path, "good.tsv") == ["good"]
    assert dict(tar_texts(inside / "x.tar.gz", {"", "..", "a/../..", "/etc"}))["good.tsv"] == "good"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "a.tsv", "b.tsv"])  # a.tsv: itself
def test_a_link_or_a_device_is_no_member(tmp_path: Path, kind: bytes, target: str) -> None:
    (tmp_path / "secret").write_text("secret")
    path = tar(tmp_path / "x.tar.gz", ("d/b.tsv", b"b", plain), ("d/a.tsv", b"", link(target, kind)))
    with pytest.raises(AttemptError, match=r"expected d/a\.tsv in .*, found none: get the tar\.gz again"):
        texts(path, "d/a.tsv")
    assert dict(tar_texts(path, {"d"})) == {"d/b.tsv": "b"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "gz"])
def test_a_bomb_is_refused_in_little_memory(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SMALL", 1 << 16)
    lines = b"0\n" * (1 << 21)  # 4 MB, packed to a thousandth
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.tsv", lines)
    elif kind == "gz":
        path.write_bytes(gzip.compress(lines))
    else:  # also where it lies before the member that is wanted
        tar(path, ("bomb", lines, plain), ("a.tsv", b"a", plain))
    seen = 0
    with pytest.raises(AttemptError, match="unpacks to more than 100 times its size"):
        for _ in text_lines(path, None if kind == "gz" else "a.tsv"):
            seen += 1
    assert seen * 2 <= max(1 << 16, 100 * path.stat().st_size)
    if kind == "tar.gz":
        with pytest.raises(AttemptError, match="unpacks to more"):
            list(tar_texts(path, {""}))


def test_text_that_packs_well_is_no_bomb(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"0\n" * (1 << 21)))
    assert sum(1 for _ in text_lines(tmp_path / "x.gz")) == 1 << 21


@pytest.mark.parametrize("kind", ["zip", "gz", "txt", "tar.gz"])
def test_a_line_without_an_end_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    path, member = tmp_path / f"x.{kind}", None if kind in ("gz", "txt") else "a.tsv"
    for length, fine in ((1000, True), (1001, False)):
        content = b"first\n" + b"x" * (length - 1) + b"\n"
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a.tsv", content)
        elif kind == "tar.gz":
            tar(path, ("a.tsv", content, plain))
        else:
            path.write_bytes(gzip.compress(content) if kind == "gz" else content)
        if fine:
            assert len(list(text_lines(path, member))) == 2
        else:
            with pytest.raises(AttemptError, match=r"line 2: expected at most 1000 bytes, found more"):
                list(text_lines(path, member))


def test_a_long_file_of_a_tar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    path = tar(tmp_path / "x.tar.gz", ("d/a.txt", b"x" * 1001, plain))
    with pytest.raises(AttemptError, match="expected at most 1000 bytes"):
        list(tar_texts(path, {"d"}))


def test_a_locked_zip_and_one_of_another_packer(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.tsv", "text")
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    for offset in (6, directory + 8):  # the flag of an encrypted member
        content[offset] |= 1
    path.write_bytes(content)
    with pytest.raises(AttemptError, match=r"expected a zip with a\.tsv .*encrypted.*: get it again"):
        texts(path, "a.tsv")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.tsv", os.urandom(100))
    content = bytearray(path.read_bytes())
    content[60:80] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(AttemptError, match=r"expected a zip with a\.tsv"):
        texts(path, "a.tsv")


def test_a_name_in_a_zip_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("é.tsv", "text")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(AttemptError, match=r"x\.zip"):
        texts(path, "a.tsv")
