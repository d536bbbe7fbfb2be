"""What the README says is so: its commands are taken by the programs, its links, line counts and snippet hold; so do
the commands and links of the pages that it sends to, and their list of files."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

import eval
import train
from benchmarks.replication import plan_base

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = [REPOSITORY / "docs" / f"{name}.md" for name in ("data", "files", "first-run", "options", "speed-cpu")]
EVERYTHING = "\n".join([TEXT, *(page.read_text(encoding="utf-8") for page in PAGES)])


def indented(text: str) -> list[str]:
    """The commands that stand on a line of their own, and no blocks of Python or of output."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


LINES = indented(TEXT)
FOUND = [*indented(EVERYTHING), *re.findall(r"`(python -?[^`]+)`", EVERYTHING)]
PROGRAMS = {line for line in FOUND if "python" in line}
ON_DEMO_RUNS = [line for line in LINES if "runs/demo" in line]  # test_what_looks_at_runs runs them whole


def words_of(command: str) -> list[str]:
    """The words after "python" or torchrun's "--", of the last command of a line or a pipe."""
    words = shlex.split(command.rpartition("&&")[2].rpartition(" | ")[2])
    return words[words.index("--") + 1 :] if "--" in words else words[1:]


def taken(words: list[str]) -> bool:
    """Parse a command of train.py or eval.py as the program does; of others look for the flags in their --help."""
    if words[0] == "train.py":
        if words[1] not in ("--help", "--list-tasks") and "--resume" not in words:
            train.parse(words[1:])
        return True
    if words[0] == "eval.py":
        eval.new_parser().parse_args(words[1:])
        return True
    if words[0] == "-m" and words[1] not in ("pytest", "venv"):
        part = words[2:3] if words[1] == "attempt.exchange" else []  # export and import have flags of their own
        known = help_of(*words[:2], *part)
        for flag in (word for word in words[2:] if word.startswith("--")):
            assert flag in known, f"{words[1]} has no {flag}"
        return True
    return False


@cache
def help_of(*words: str) -> str:
    run = subprocess.run([sys.executable, *words, "--help"], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("command", sorted({*LINES, *PROGRAMS} - {*ON_DEMO_RUNS}))
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
    """The patterns above find them: to start, to answer, data, looking, three kinds of hardware, the tests."""
    assert len(LINES) > 15 and len(PROGRAMS) > 30
    assert [line for line in LINES if line.startswith("pip install")] == [LINES[0], LINES[-1]]


def test_it_is_short() -> None:
    assert len(TEXT.replace("|", "").split()) < 1800


def test_line_counts() -> None:
    found = re.findall(r"\[`([^`]+)`\]\(\1\) \(([0-9]+) lines\)", TEXT)
    assert {name for name, _ in found} == {"model/t5.py", "attempt/attention.py", "train.py"}
    for name, count in found:
        assert len((REPOSITORY / name).read_text(encoding="utf-8").splitlines()) == int(count), name


def test_links_lead_somewhere() -> None:
    """To files, and to headings by the names that GitHub gives them."""
    found = 0
    for page in [REPOSITORY / "README.md", *PAGES]:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            path, _, part = target.partition("#")
            if not target.startswith("http"):
                there = page.parent / path if path else page
                assert there.exists(), f"{page.name}: {target}"
                assert not part or part in anchors(there), f"{page.name}: {target}"
                found += 1
    assert found > 35


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_file_has_its_place_in_the_list() -> None:
    listed: list[str] = []
    for row in re.findall(r"^\| (.+?) \| ", (REPOSITORY / "docs/files.md").read_text(encoding="utf-8"), re.MULTILINE):
        folder = ""
        for name in re.findall(r"`([^`]+)`", row):
            folder = name.rpartition("/")[0] or folder
            listed.append(name if "/" in name else f"{folder}/{name}".lstrip("/"))
    files = [p for part in ("model", "attempt", "data") for p in Path(REPOSITORY, part).rglob("*.py")]
    named = {str(p.relative_to(REPOSITORY)) for p in files if p.name not in ("__init__.py", "__main__.py")}
    assert named | {"train.py", "eval.py"} == {name for name in listed if name.endswith(".py")}
    assert len(listed) == len(set(listed))


@pytest.fixture(scope="module")
def demo_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the README's two demos have put their runs, with fewer steps."""
    folder = tmp_path_factory.mktemp("demo")
    few = ["--steps", "2", "--eval-every", "2", "--eval-examples", "20", "--device", "cpu"]
    inline = [line for line in PROGRAMS if line.startswith("python train.py --demo --task mrpc --method")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for line, shown in zip((LINES[0], *inline), ("what each kind of row gets", "what ATTEMPT mixes"), strict=True):
            words, printed = words_of(line), io.StringIO()
            assert "--demo" in words
            with contextlib.redirect_stdout(printed):
                assert train.main([*words[1:], *few, "--out", str(folder / "runs")]) == 0
            assert shown in printed.getvalue()
    return folder


@pytest.mark.long
def test_what_looks_at_runs(demo_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command on the demo's runs: the three to go on with, those under "Looking at runs", and the answers."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(demo_runs / "cache"))
    assert len(ON_DEMO_RUNS) == 8
    written = ("answers.jsonl", "weights.png", "curves.png", "mrpc-adapter")
    for line in ON_DEMO_RUNS:
        command = [word.replace("runs/demo", str(demo_runs / "runs")) for word in words_of(line)]
        command = [str(demo_runs / word) if word in written else word for word in command]
        run = subprocess.run(
            [sys.executable, *command], check=False, input="a dog barked .\n", capture_output=True, text=True
        )
        assert run.returncode == 0, f"{line}: {run.stderr}"
    assert all((demo_runs / name).exists() for name in written) and (demo_runs / "runs" / "report.html").exists()


@pytest.mark.long
def test_the_snippet_runs(demo_runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(REPOSITORY)
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet.replace("runs/demo", str(demo_runs / "runs")), names)  # what a reader types
    assert capsys.readouterr().out.count("\n") >= 3
    assert tuple(names["mixture"].values.shape) == (2, 5) and len(names["mixture"].names) == 5


def test_hours_are_those_of_the_plan() -> None:
    """The table of recipes has the hours that benchmarks/replication calculates, to one digit that counts."""
    rows = dict(re.findall(r"^\| `([\w-]+)`[^|]* \| [^|]+ \| ([^|]+) \|$", TEXT, re.MULTILINE))
    commands = {
        "source-prompts": [""],
        "attempt-single": ["--task rte", "--task mnli --epochs 10"],
        "squad-replication": [""],
    }
    together = ["@recipes/attempt-" + name for name in ("glue.args", "superglue.args", "mrqa.args", "others.args")]
    expected = {name: [f"@recipes/{name}.args {more}" for more in rest] for name, rest in commands.items()}
    for name, words in {**expected, "attempt-glue": together}.items():
        found = [f"{plan_base.hours(command)[1]:.1g}" for command in words]
        assert [f"{float(text):.1g}" for text in re.findall(r"\d\.\d+", rows[name])] == found, name


def test_no_figure_is_left_open() -> None:
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("*/*.md")]
    assert len(pages) > 8
    assert not [p.name for p in pages if re.search(r"@[A-Z0-9]+@|TODO|FIXME", p.read_text(encoding="utf-8"))]
