"""What `pip install .` puts into an environment, and the console scripts that it brings, from another folder."""

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from runs import REPOSITORY

from attempt import console
from attempt.command import source
from data.tasks import describe_tasks

PROGRAMS = ("train.py", "eval.py")
PACKED = (*source.PACKAGES, *PROGRAMS, "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
FOREIGN = "raise SystemExit('another project')\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of a copy, since setuptools leaves a build folder; without a network."""
    found = {package.name: package.version for package in importlib.metadata.distributions()}
    if "pip" not in found or int(found.get("setuptools", "0").partition(".")[0]) < 71:
        pytest.skip("a wheel is made here by pip and a setuptools of 71 or later")  # before, it needed another package
    copy = tmp_path_factory.mktemp("copy")
    for name in PACKED:
        place = REPOSITORY / name
        if place.is_dir():
            shutil.copytree(place, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(place, copy)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", str(copy / "made"), str(copy)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = (copy / "made").glob("*.whl")
    return made


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """The wheel's files in a folder like an environment's, where another project's train.py and eval.py lie."""
    folder = tmp_path / "site-packages"
    zipfile.ZipFile(wheel).extractall(folder)
    for name in PROGRAMS:
        (folder / name).write_text(FOREIGN)
    return folder


def test_a_wheel_holds_all_that_the_programs_need_and_no_module_of_their_names(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        (entries,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        scripts = archive.read(entries).decode()
    assert {name.partition("/")[0] for name in names} == {"attempt", "model", "data", "demo"}
    demo = REPOSITORY / "demo"
    expected = [file for name in source.PACKAGES for file in (REPOSITORY / name).rglob("*.py")]
    expected += [demo / "demo.args", *(demo / "checkpoint").iterdir(), *demo.glob("sources/*/best.safetensors")]
    expected += [REPOSITORY / name / "py.typed" for name in ("attempt", "model", "data")]
    own = {file.relative_to(REPOSITORY).as_posix() for file in expected}
    assert set(names) == own | {f"attempt/programs/{name}" for name in PROGRAMS}
    assert "attempt-train = attempt.console:train\n" in scripts
    assert "attempt-eval = attempt.console:evaluate\n" in scripts


def script(function: str, folder: Path, installed: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """What a console script does, started in a folder."""
    code = f"from attempt.console import {function}; {function}()"
    paths = {"PYTHONPATH": str(installed), "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, check=False, cwd=folder, env=paths, capture_output=True, text=True)


def test_scripts_run_the_wheels_programs_beside_foreign_ones(installed: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "train.py").write_text(FOREIGN)
    tasks = script("train", elsewhere, installed, "--list-tasks")
    assert (tasks.returncode, tasks.stdout) == (0, f"{describe_tasks()}\n"), tasks.stderr
    version = script("evaluate", elsewhere, installed, "--version")
    assert version.returncode == 0, version.stderr
    assert version.stdout.endswith(f"sum of the sources {source.code_sum()}\n")  # the same as in a clone


def test_programs_are_looked_for_in_one_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [console.find(name) for name in PROGRAMS] == [REPOSITORY / name for name in PROGRAMS]
    (tmp_path / "attempt/programs").mkdir(parents=True)
    (tmp_path / "train.py").write_text(FOREIGN)
    monkeypatch.setattr(console, "PACKAGE", tmp_path / "attempt")
    with pytest.raises(SystemExit, match="2"):
        console.train()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path / "attempt/programs/train.py") in error
