"""Keeps the walkthrough true: python docs/refresh.py, after the code or docs/walkthrough.md has changed.

It finds the quoted lines in the code again and mends the links' line numbers, runs the snippets and writes what they
print beneath them where it differs by more than rounding, and makes the notebook. tests/test_walkthrough.py fails where
this would change anything.

In the document, a paragraph that ends in a link to lines, `[name](../file.py#L1-L9):`, and a block of Python right
beneath it are a quotation of these lines of `name`. All other blocks of Python are snippets, which share one
namespace; the block of text after one is what it prints. Other links to lines lead to all of `name`.
"""

import ast
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs/walkthrough.md"
NOTEBOOK = DOCUMENT.with_suffix(".ipynb")

LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\(\.\./(?P<file>[\w./]+)#L(?P<first>\d+)(?:-L(?P<last>\d+))?\)")
QUOTE = re.compile(LINK.pattern + r":\n```python\n(?P<code>.*?)```\n", re.DOTALL)
SNIPPET = re.compile(r"(?<!:\n)```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<output>.*?)```\n)?", re.DOTALL)
MATH = re.compile(r"```math\n(.*?)```", re.DOTALL)
REFERENCE = re.compile(r"^\[(.+)\]: (\S+)\n", re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")

# The notebook's first cell: Jupyter starts it in docs/, or wherever it was opened.
FIND_ROOT = """\
import os
import sys
from pathlib import Path

root = next(p for p in [Path.cwd(), *Path.cwd().parents] if (p / "demo/checkpoint").is_dir())
os.chdir(root)
sys.path.insert(0, str(root))
"""


class Lines(NamedTuple):
    """Lines of a file, counted from 1, the last one included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"#L{self.first}" + (f"-L{self.last}" if self.last > self.first else "")


def definition(file: str, name: str) -> Lines:
    """Where `name` is defined: a function, a class, Class.method, or a variable of the module. Raises ValueError."""
    body: list[ast.stmt] = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    for part in name.split("."):
        found = next((node for node in body if part in _names(node)), None)
        if found is None:
            raise ValueError(f"{file}: expected a definition of {name}, found none")
        body = getattr(found, "body", [])
    assert found is not None and found.end_lineno is not None
    return Lines(min([found.lineno, *(d.lineno for d in getattr(found, "decorator_list", []))]), found.end_lineno)


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def quoted(file: str, name: str, code: str) -> Lines:
    """Which lines of `name` the code stands in, whatever its indentation. Raises ValueError where it does not."""
    whole = definition(file, name)
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    size = len(code.splitlines())
    for first in range(whole.first, whole.last - size + 2):
        if dedent("\n".join(lines[first - 1 : first - 1 + size])) == dedent(code).rstrip("\n"):
            return Lines(first, first + size - 1)
    raise ValueError(f"{file}: expected these lines in {name}, found others:\n{code}")


def mend_links(text: str) -> str:
    """The document with the line numbers that its quotations, and its links to whole definitions, have now."""

    def link(m: re.Match[str], lines: Lines) -> str:
        return f"[`{m['name']}`](../{m['file']}{lines})"

    text = LINK.sub(lambda m: link(m, definition(m["file"], m["name"])), text)

    def quote(m: re.Match[str]) -> str:
        return f"{link(m, quoted(m['file'], m['name'], m['code']))}:\n```python\n{m['code']}```\n"

    return QUOTE.sub(quote, text)


def run_snippets(text: str) -> list[tuple[re.Match[str], str]]:
    """Each snippet of the document with what it prints; they run in order, in one namespace, from the root."""
    names: dict[str, Any] = {"__name__": "walkthrough"}
    results = []
    # what the snippets set for all of PyTorch ends with them
    with inside(ROOT), torch.enable_grad(), tensor_format():
        for m in SNIPPET.finditer(text):
            line = text[: m.start("code")].count("\n")
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                # as many empty lines in front as an error's line number in the document wants
                exec(compile("\n" * line + m["code"], str(DOCUMENT), "exec"), names)
            results.append((m, printed.getvalue()))
    return results


@contextlib.contextmanager
def tensor_format() -> Iterator[None]:
    """Afterwards tensors are printed as usual."""
    try:
        yield
    finally:
        torch.set_printoptions(profile="default")  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def same(found: str, expected: str) -> bool:
    """Whether two outputs differ by rounding alone: numbers with a point by two units of their last digit at most."""
    if NUMBER.sub("#", " ".join(found.split())) != NUMBER.sub("#", " ".join(expected.split())):
        return False
    return all(map(_near, NUMBER.findall(found), NUMBER.findall(expected)))


def _near(found: str, expected: str) -> bool:
    digits, _, power = expected.partition("e")
    if "." not in digits:
        return found == expected
    unit = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    return abs(float(found) - float(expected)) <= 2.01 * unit


def write_outputs(text: str) -> str:
    """The document with what its snippets print now; an output that differs by rounding alone stays."""
    for m, printed in reversed(run_snippets(text)):
        if m["output"] is None or not same(printed, m["output"]):
            output = f"\n```text\n{printed}```\n" if printed else ""
            text = f"{text[: m.start()]}```python\n{m['code']}```\n{output}{text[m.end() :]}"
    return text


def notebook(text: str) -> str:
    """The document as a Jupyter notebook: its snippets are the code cells, with their outputs, the rest is text."""
    # Jupyter's anchors are the headings themselves, with dashes; GitHub's are in small letters and have no points
    anchors = {anchor(heading): heading.replace(" ", "-") for heading in HEADING.findall(text)}
    text = re.sub(r"\]\(#([\w-]+)\)", lambda m: f"](#{anchors[m[1]]})", text)
    text = MATH.sub(lambda m: f"$$\n{m[1]}$$", text)  # GitHub's form, which Jupyter does not know
    addresses = dict(REFERENCE.findall(text))  # which would be known in their own cell alone
    text = REFERENCE.sub("", text)
    for name, address in addresses.items():
        text = text.replace(f"[{name}]", f"[{name}]({address})")
    cells = [_cell("code", FIND_ROOT)]
    position = 0
    for m in SNIPPET.finditer(text):
        cells += [_cell("markdown", text[position : m.start()]), _cell("code", m["code"], m["output"] or "")]
        position = m.end()
    cells.append(_cell("markdown", text[position:]))
    cells = [cells[1], cells[0], *cells[2:]]  # the title first
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _cell(kind: str, source: str, output: str = "") -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": source.strip("\n").splitlines(keepends=True)}
    if kind == "code":
        stream = {"name": "stdout", "output_type": "stream", "text": output.splitlines(keepends=True)}
        cell |= {"execution_count": None, "outputs": [stream] if output else []}
    return cell


def anchor(heading: str) -> str:
    """The name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def main() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    steps: list[Callable[[str], str]] = [mend_links, write_outputs]
    for step in steps:
        text = step(text)
    DOCUMENT.write_text(text, encoding="utf-8")
    NOTEBOOK.write_text(notebook(text), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
