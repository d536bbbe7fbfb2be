"""What the README says is so: its commands are taken by the programs, its links, line counts and list of files hold."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from attempt.eval_command import new_parser
from conftest import REPOSITORY

import train

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LINES = [line.strip() for line in TEXT.splitlines() if line.startswith("    ")]
CELLS = re.findall(r"\| `(python [^`]+)` \|", TEXT)
PROGRAMS = [line for line in [*LINES, *CELLS, *re.findall(r"`(python -?[^`]+)`", TEXT)] if "python" in line]


def words_of(command: str) -> list[str]:
    """The words after "python" or torchrun's "--", of the last command of a line."""
    words = shlex.split(command.rpartition("&&")[2])
    return words[words.index("--") + 1 :] if "--" in words else words[1:]


def taken(words: list[str]) -> bool:
    """Parse a command of train.py or eval.py as the program does; of others look for the flags in their --help."""
    if words[0] == "train.py":
        if words[1:2] != ["--help"] and "--resume" not in words:
            train.parse(words[1:])
        return True
    if words[0] == "eval.py":
        new_parser().parse_args(words[1:])
        return True
    if words[0] == "-m" and words[1] not in ("pytest", "venv"):
        part = words[2:3] if words[1] == "attempt.exchange" else []  # export and import have flags of their own
        run = subprocess.run([sys.executable, *words[:2], *part, "--help"], check=False, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        for flag in (word for word in words[2:] if word.startswith("--")):
            assert flag in run.stdout, f"{words[1]} has no {flag}"
        return True
    return False


@pytest.mark.parametrize("command", sorted({*LINES, *PROGRAMS}))
def test_commands_are_taken(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    words = words_of(command)
    if "--demo" in words:  # stands for flags and files of its own; test_the_demo_and_what_looks_at_it runs it
        words.remove("--demo")
    if not taken(words):
        assert (
            words in (["install", "-c", "constraints.txt", "-e", "."], ["-m", "pytest", "-n", "2"]) or "venv" in words
        )


def test_it_has_commands_for_everything() -> None:
    """The patterns above find them: two to start, three kinds of hardware, results, speed, methods, looking, data."""
    assert len(LINES) > 15 and len(CELLS) >= 6
    assert [line for line in LINES if line.startswith("pip install")] == [LINES[0], LINES[1]]


def test_line_counts() -> None:
    found = re.findall(r"\[`([^`]+)`\]\(\1\) \(([0-9]+) lines\)", TEXT)
    assert {name for name, _ in found} == {"model/t5.py", "attempt/attention.py", "train.py"}
    for name, count in found:
        assert len((REPOSITORY / name).read_text(encoding="utf-8").splitlines()) == int(count), name


def test_links_lead_somewhere() -> None:
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)]+)\)", TEXT) if not t.startswith("http")]
    assert len(targets) > 20
    assert not [target for target in targets if not (REPOSITORY / target).exists()]


def test_every_file_has_its_place_in_the_list() -> None:
    listed: list[str] = []
    table = TEXT[TEXT.index("## The files") : TEXT.index("## How it is checked")]
    for row in re.findall(r"^\| (.+?) \| ", table, re.MULTILINE):
        folder = ""
        for name in re.findall(r"`([^`]+)`", row):
            folder = name.rpartition("/")[0] or folder
            listed.append(name if "/" in name else f"{folder}/{name}".lstrip("/"))
    files = [f"{part}/{p.name}" for part in ("model", "attempt", "data") for p in Path(REPOSITORY, part).glob("*.py")]
    wanted = {file for file in files if not file.endswith("__init__.py")} | {"train.py", "eval.py"}
    assert wanted == {name for name in listed if name.endswith(".py")} and len(listed) == len(set(listed))


@pytest.mark.long
def test_the_demo_and_what_looks_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first commands, with fewer steps, and the commands under "Looking at runs" and of PEFT, on its runs."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = words_of(LINES[0])
    assert "--demo" in words
    few = ["--steps", "2", "--eval-every", "2", "--eval-examples", "20", "--device", "cpu"]
    assert train.main([*words[1:], *few, "--out", str(tmp_path / "runs")]) == 0
    assert "what each kind of row gets" in capfd.readouterr().out
    (other,) = [words_of(line) for line in PROGRAMS if line.startswith("python train.py --demo --task mrpc --method")]
    assert train.main([*other[1:], *few, "--out", str(tmp_path / "runs")]) == 0
    assert "what ATTEMPT mixes for mrpc" in capfd.readouterr().out
    places = {
        "runs/rte-attempt-t5-base": "runs/stream/attempt/seed-42",
        "runs/rte-prompt-t5-base": "runs/mrpc/prompt/seed-1",
    }
    places |= {
        "runs/sst2-prompt-t5-base": "runs/mrpc/prompt/seed-1",
        "sst2-adapter": "adapter",
        "weights.png": "weights.png",
    }
    places |= {"answers.jsonl": "answers.jsonl", "runs": "runs"}
    start = TEXT.index("## Looking at runs")
    section = [line.strip() for line in TEXT[start : TEXT.index("##", start + 2)].splitlines() if line[:4] == "    "]
    assert len(section) == 4
    others = [line for line in LINES if "exchange export" in line or "--predictions" in line]
    assert len(others) == 2
    for line in [*section, *others]:
        command = [str(tmp_path / places[word]) if word in places else word for word in words_of(line)]
        run = subprocess.run(
            [sys.executable, *command], check=False, input="a dog barked .\n", capture_output=True, text=True
        )
        assert run.returncode == 0, f"{line}: {run.stderr}"
    assert (tmp_path / "weights.png").stat().st_size > 1000 and (tmp_path / "runs" / "report.html").exists()
    assert (tmp_path / "adapter" / "adapter_config.json").exists() and (tmp_path / "answers.jsonl").exists()


def test_no_figure_is_left_open() -> None:
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("*/*.md")]
    assert len(pages) > 8
    assert not [p.name for p in pages if re.search(r"@[A-Z0-9]+@|TODO|FIXME", p.read_text(encoding="utf-8"))]
