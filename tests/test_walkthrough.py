"""docs/walkthrough.md: its snippets print what it says, its quotations stand in the code, its links lead somewhere; and
the notebook is the same document, run as Jupyter would run it."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
spec = importlib.util.spec_from_file_location("refresh", DOCS / "refresh.py")
assert spec is not None and spec.loader is not None
refresh = importlib.util.module_from_spec(spec)
sys.modules["refresh"] = refresh
spec.loader.exec_module(refresh)

TEXT = refresh.DOCUMENT.read_text(encoding="utf-8")


def anchors(text: str) -> list[str]:
    return [
        refresh.anchor(heading) for heading in refresh.HEADING.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ]


# ---- what the snippets print ----


def test_every_snippet_prints_what_stands_beneath_it() -> None:
    found = refresh.run_snippets(TEXT)
    assert len(found) > 25
    for m, printed in found:
        assert refresh.same(printed, m["output"] or ""), f"{m['code']}\nprints\n{printed}\nnot\n{m['output']}"


def test_snippets_leave_pytorch_as_it_was() -> None:
    refresh.run_snippets(
        "\n```python\nimport torch\n\ntorch.set_grad_enabled(False)\ntorch.set_printoptions(precision=1)\n```\n"
    )
    assert torch.is_grad_enabled() and str(torch.tensor(0.1234)) == "tensor(0.1234)"


@pytest.mark.parametrize(
    ("found", "expected", "good"),
    [
        ("loss 0.501 of [1, 2]", "loss  0.500 of\n[1, 2]", True),
        ("loss 0.504 of [1, 2]", "loss 0.500 of [1, 2]", False),
        ("loss 0.500 of [1, 3]", "loss 0.500 of [1, 2]", False),
        ("gain 0.500 of [1, 2]", "loss 0.500 of [1, 2]", False),
        ("1.01e-05", "1.00e-05", True),
        ("1.01e-04", "1.00e-05", False),
        ("-0.001", "0.000", True),
        ("True", "False", False),
    ],
)
def test_outputs_may_differ_by_rounding_alone(found: str, expected: str, good: bool) -> None:
    assert refresh.same(found, expected) is good


# ---- the code that it quotes ----


def test_quotations_and_line_numbers_are_those_of_the_code() -> None:
    assert len(refresh.QUOTE.findall(TEXT)) > 20
    assert refresh.mend_links(TEXT) == TEXT, "run python docs/refresh.py"


def test_every_block_of_python_is_a_quotation_or_a_snippet() -> None:
    blocks = TEXT.count("```python\n")
    assert blocks == len(refresh.QUOTE.findall(TEXT)) + len(refresh.SNIPPET.findall(TEXT))
    assert TEXT.count("```text\n") == sum(bool(m["output"]) for m in refresh.SNIPPET.finditer(TEXT))


def test_another_line_number_is_mended_and_another_line_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code.py").write_text(
        "x = 1\n\n\nclass A:\n    def f(self):\n        y = 1\n        return y\n", encoding="utf-8"
    )
    monkeypatch.setattr(refresh, "ROOT", tmp_path)

    def document(lines: str, code: str) -> str:
        return f"See [`A.f`](../code.py{lines}):\n```python\n{code}\n```\nand [`A`](../code.py#L4-L7).\n"

    good = document("#L6-L7", "y = 1\nreturn y")
    assert refresh.mend_links(good) == good
    assert refresh.mend_links(document("#L1", "y = 1\nreturn y")) == good
    for other in ("y = 2\nreturn y", "x = 1", "class A:"):  # the two latter stand in the file, but not in A.f
        with pytest.raises(ValueError, match=r"expected these lines in A\.f"):
            refresh.mend_links(document("#L6-L7", other))
    with pytest.raises(ValueError, match=r"expected a definition of A\.g"):
        refresh.mend_links("[`A.g`](../code.py#L1)")


# ---- where it leads ----


@pytest.mark.parametrize("name", ["walkthrough.md", "exercises.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert targets
    for target in targets:
        path, _, part = target.partition("#")
        if not path.startswith("https://"):
            assert not path or (DOCS / path).exists(), target
            there = (DOCS / path).read_text(encoding="utf-8") if path.endswith(".md") else text
            assert not part or part in anchors(there) or re.fullmatch(r"L\d+(-L\d+)?", part), target
    defined = {label for label, _ in refresh.REFERENCE.findall(text)}
    prose = re.sub(r"```.*?```|`[^`\n]*`|\$[^$\n]*\$", "", text, flags=re.DOTALL)
    assert set(re.findall(r"\[([A-Z][^\]\n]*)\](?!\()", prose)) <= defined


def test_the_table_names_every_step_and_every_row_leads_to_code_and_to_its_step() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and "](#" in line]
    steps = [name for name in anchors(TEXT) if name[0].isdigit()]
    assert len(steps) == 19 and len(rows) > 20
    assert {step for row in rows for step in re.findall(r"\(#([\w-]+)\)", row)} == set(steps)
    for row in rows:
        assert refresh.LINK.search(row) or "autograd" in row, row


def test_every_formula_has_code_beside_it() -> None:
    for section in re.split(r"^## ", TEXT, flags=re.MULTILINE):
        if "```math" in section:
            assert refresh.SNIPPET.search(section), section


def test_formulas_in_a_line_of_text_keep_their_backslashes() -> None:
    # GitHub's Markdown takes the backslash of \\, and its like away before it reads $...$; blocks of math are safe
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    formulas = re.findall(r"\$[^$]+\$", prose)
    assert len(formulas) > 50 and prose.count("$") == 2 * len(formulas)
    assert not [formula for formula in formulas if re.search(r"\\[^A-Za-z]|\n", formula)]


# ---- the notebook ----


def test_the_notebook_is_made_of_the_document() -> None:
    assert refresh.NOTEBOOK.read_text(encoding="utf-8") == refresh.notebook(TEXT), "run python docs/refresh.py"


def test_the_notebook_runs_in_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    book = nbformat.read(refresh.NOTEBOOK, as_version=4)
    nbformat.validate(book)
    expected = [["".join(o["text"]) for o in cell["outputs"]] for cell in book.cells if cell["cell_type"] == "code"]
    where = {"metadata": {"path": str(DOCS)}}  # as Jupyter does: beside the notebook, not in the root
    nbclient.NotebookClient(book, timeout=600, startup_timeout=600, kernel_name="python3", resources=where).execute()
    cells = [cell for cell in book.cells if cell["cell_type"] == "code"]
    assert len(cells) == len(expected) > 25
    for cell, texts in zip(cells, expected, strict=True):
        printed = "".join(output["text"] for output in cell["outputs"])  # a KeyError where it is no text but an error
        assert refresh.same(printed, "".join(texts)), cell["source"]
