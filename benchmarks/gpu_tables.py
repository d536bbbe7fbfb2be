"""The tables of docs/performance.md, from what benchmarks/gpu.sh wrote: python -m benchmarks.gpu tables DIR"""

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.timing import figure, markdown
from model.errors import AttemptError, briefly

PEERS = {"hugging face": "HF", "hugging face, compiled": "HF compiled"}
PEERS |= {"hugging face, static": "HF static", "hugging face, static, compiled": "HF static compiled"}
NAMES = {"ours, plain": "--plain", "ours, eager": "--no-graphs", "ours, all": "default", "ours, compiled": "--compile"}
LONGEST = 150  # characters of an error
VERSIONS = ("python", "torch", "transformers", "peft")


def read(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found["parts"], found["machine"] = list(found["parts"]), dict(found["machine"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise AttemptError(f"{path}: expected the results of benchmarks/gpu.sh, found {briefly(e)}") from None
    return found


def tables(results: dict[str, Any]) -> str:
    """All of it, as markdown."""
    parts = {part["name"]: part for part in results["parts"]}
    blocks = [about(results), how_they_ended(results["parts"]), correctness(results["parts"])]
    measured = [part for part in results["parts"] if cases_of(part)]
    first = [part for part in measured if part["name"].startswith("first")]
    timed = [part for part in measured if part not in first]
    blocks += [timed_table("Training steps", "step", timed), timed_table("Answers", "batch", timed)]
    blocks += [first_table(first), kernel_table(parts.get("kernels"))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def about(results: dict[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in VERSIONS if name in machine)
    gpu = (
        f"{machine['gpu']}, {machine['gpu_memory_gb']} GB, driver {machine['driver']}" if "gpu" in machine else "no GPU"
    )
    return (
        f"{gpu}; {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB; {versions}; "
        f"commit {machine['commit']}.\n\n`{results['command']}`"
    )


def how_they_ended(parts: list[dict[str, Any]]) -> str:
    """Only what did not end well."""
    bad = [part for part in parts if part["status"] != "done"]
    lines = [f"- {part['name']}: {part['status']}. {last_line(part['error'])}".rstrip() for part in bad]
    lines += [
        f"- {part['name']}, {name} failed: {last_line(error)}"
        for part in parts
        for case in cases_of(part)
        for name, error in case["failed"].items()
    ]
    lines += [
        f"- {part['name']}, {row['name']}: {told}"
        for part in parts
        for case in cases_of(part)
        for row in case["rows"]
        for told in row.get("graphs", [])
        if told.startswith("no graphs")
    ]
    return "Not whole:\n\n" + "\n".join(lines) if lines else ""


def last_line(text: str) -> str:
    return in_a_line(text.strip().rpartition("\n")[2])


def in_a_line(text: str) -> str:
    """What a cell of a table has room for: an error's beginning and end, without what would end the cell."""
    text = " ".join(text.replace("|", "/").split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 3]} … {text[-LONGEST * 2 // 3 :]}"


def correctness(parts: list[dict[str, Any]]) -> str:
    """How far all forms are from the plain one in fp32; and how disturbed runs ended."""
    blocks = []
    if rows := [row for part in parts if part["name"].startswith("forms") for row in rows_of(part)]:
        names = ("gradient", "losses", "labels", "tokens", "dropout")
        lines = [["against the plain form in fp32", "precision", *names, ""]]
        for row in rows:
            figures = [f"{row[name]:.1e}" if name in row else "-" for name in names[:3]]
            figures += [f"{100 * row['tokens']:.1f} %" if "tokens" in row else "-"]
            figures += [f"{row['dropout']:.2f}" if "dropout" in row else "-"]
            lines.append([shown(row["program"]), row["precision"], *figures, in_a_line(row["problem"]) or "agrees"])
        blocks.append("### Forms\n\n" + markdown(lines))
    if rows := [row for part in parts if part["name"] == "resumes" for row in rows_of(part)]:
        lines = [["run", "way", "disturbed", "against the undisturbed run"]]
        lines += [
            [row["kind"], row["way"], row["kills"], in_a_line(row["problem"]) or "bit for bit the same"] for row in rows
        ]
        blocks.append("### Runs\n\n" + markdown(lines))
    blocks += [f"The tests that want a GPU: {part['status']}." for part in parts if part["name"] == "tests"]
    return "\n\n".join(blocks)


def rows_of(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    return part["result"]["rows"] if part and part["result"] else []


def cases_of(part: dict[str, Any]) -> list[dict[str, Any]]:
    result = part["result"]
    return result.get("cases", []) if result else []


def timed_table(head: str, unit: str, parts: list[dict[str, Any]]) -> str:
    """A row for each program of each case: its median, and how many times as fast it is as each of the peers."""
    found = [(part, case) for part in parts for case in cases_of(part) if case["unit"] == unit]
    peers = [peer for peer in PEERS if any(peer in row["times"] for _, case in found for row in case["rows"])]
    lines = [["", "program", f"ms a {unit} (extremes)", *(f"times {PEERS[peer]}" for peer in peers)]]
    lines[0] += ["examples/s", "share of product rate", "peak GB"]
    for part, case in found:
        for row in case["rows"]:
            ms = [1e3 * value for value in row["seconds"]]
            cells = [f"{figure(statistics.median(ms))} ({figure(min(ms))} to {figure(max(ms))})"]
            cells += [f"{row['times'][peer]:.2f}" if peer in row["times"] else "-" for peer in peers]
            peak = figure(row["peak_bytes"] / 1e9) if "peak_bytes" in row else "-"
            cells += [figure(row["examples_per_second"]), f"{100 * row['share_of_product_rate']:.0f} %", peak]
            lines.append([part["title"] if row is case["rows"][0] else "", shown(row["name"]), *cells])
    return f"### {head}\n\n{conditions(found)}\n\n{markdown(lines)}" if found else ""


def conditions(found: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """What holds for all of a table, and the rates of the products."""
    case = found[0][1]["case"]
    rates = [case["product"]["rate"] / 1e12 for _, case in found]
    samples = sorted({len(row["seconds"]) for _, one in found for row in one["rows"]})
    return (
        f"{case['precision']}, prompt {case['prompt_length']}, {case['target_tokens']} target tokens, dropout "
        f"{case['dropout']:g}, {' to '.join(map(str, samples))} samples, programs in turns; one large product "
        f"{figure(min(rates))} to {figure(max(rates))} TFLOP/s."
    )


def first_table(parts: list[dict[str, Any]]) -> str:
    """Seconds to the end of the first step: kernels made, graphs captured."""
    lines = [["the first one, with nothing kept of earlier ones", "program", "s"]]
    for part in parts:
        for case in cases_of(part):
            lines += [[part["title"], shown(row["name"]), figure(row["first_seconds"])] for row in case["rows"]]
    text = "### Before the first step\n\nAll of these at the same time.\n\n"
    return text + markdown(lines) if len(lines) > 1 else ""


def kernel_table(part: dict[str, Any] | None) -> str:
    """What a step runs: kernels and device time by kind."""
    rows = rows_of(part)
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["kinds"]))
    lines = [["program", "", "ms", "graphs", "kernels", "ms on the device", *kinds, ""]]
    for row in rows:
        cells = [figure(row["step_milliseconds"]), f"{row['graph_launches']:g}", f"{row['kernels']:.0f}"]
        cells += [figure(row["milliseconds"])]
        cells += [
            f"{figure(row['kinds'][k][1])} ({row['kinds'][k][0]:.0f})" if k in row["kinds"] else "-" for k in kinds
        ]
        lines.append([shown(row["program"]), row["what"], *cells, in_a_line(row["problem"]) or "as it should be"])
    text = "### What a step runs\n\nBy kind: milliseconds on the device, and how many kernels.\n\n"
    return text + markdown(lines) if rows else ""


def shown(name: str) -> str:
    """A row's name as the tables have it: "ATTEMPT: default", "HF: 2 tokens"."""
    for known in sorted([*PEERS, *NAMES], key=len, reverse=True):
        if known in name:
            return name.replace(known, {**PEERS, **NAMES}[known])
    return name
