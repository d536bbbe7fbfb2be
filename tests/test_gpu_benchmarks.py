"""benchmarks/gpu.sh and its parts, gone through on a CPU with tiny shapes: what they find, and what they find wrong."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import REPOSITORY, error_of
from stand_in import StandIn
from torch import Tensor

from attempt.machine.device import Machine
from attempt.machine.graphs import Graphs, Inputs
from attempt.runs.parsing import parse
from attempt.runs.plan import Plan
from benchmarks import evaluate, forms, gpu, gpu_parts, gpu_tables, harness, kernels, ours, resumes, step
from benchmarks.gpu_parts import Part
from benchmarks.gpu_tables import tables
from benchmarks.ours import Ours
from model.safetensors import safetensors_bytes

CPU = torch.device("cpu")
CASE = harness.Case("tiny", 24, 8, 0.0, "fp32", 20, 3, True)


@pytest.fixture(autouse=True)
def extras() -> None:
    for name in ("transformers", "peft"):
        pytest.importorskip(name)


@pytest.mark.long
def test_it_goes_through_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the script, from another folder; then the tables from what it wrote."""
    out = tmp_path / "found"
    script = [
        str(REPOSITORY / "benchmarks/gpu.sh"),
        "--tiny",
        "--out",
        str(out),
        "--commit",
        "abc1234",
        "--minutes",
        "60",
    ]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    job = subprocess.run(script, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert job.returncode == 0, job.stdout + job.stderr

    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) <= 8 and max(path.stat().st_size for path in files) < 16e6
    results = json.loads((out / "results.json").read_text())
    parts = {part["name"]: part for part in results["parts"]}
    assert list(parts)[2:] == ["step", "answers", "kernels"] and set(parts) == {
        p.name for p in gpu_parts.plan("cpu", True)
    }
    assert {part["status"] for part in parts.values()} == {"done"} and results["machine"]["commit"] == "abc1234"
    assert [row["problem"] for row in parts["forms"]["result"]["rows"]] == [""] * 4
    (disturbed,) = parts["resumes"]["result"]["rows"]
    assert disturbed["kills"].startswith("SIGKILL") and "SIGTERM" in disturbed["kills"] and not disturbed["problem"]
    assert "--- step: done" in (out / "log.txt").read_text()

    assert gpu.main(["tables", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown == (out / "tables.md").read_text() and "failed" not in shown and "Not whole" not in shown
    for words in (
        "commit abc1234",
        "### Forms",
        "### Runs",
        "### Training steps",
        "### Answers",
        "### What a step runs",
    ):
        assert words in shown
    assert "| default: 10 tokens |" in shown and "transformers " in shown


def session(folder: Path, parts: list[Part], minutes: float = 5.0) -> dict[str, dict[str, Any]]:
    machine = {"processor": "a", "cores": 1, "memory_gb": 2, "commit": "c"}
    one = gpu.Session(folder, {"command": "x", "machine": machine}, time.monotonic() + 60 * minutes)
    (folder / "parts").mkdir()
    one.run(parts, folder / "parts")
    assert json.loads((folder / "results.json").read_text())["parts"] == one.records
    return {record["name"]: record for record in one.records}


def test_a_part_that_fails_or_hangs_costs_the_others_nothing(tmp_path: Path) -> None:
    hanging = (
        "import subprocess, time; subprocess.Popen(['sleep', '77.125']); print('it hangs', flush=True); time.sleep(60)"
    )
    parts = [
        Part("whole", ["platform"], 60, correctness=True, side="checks", writes=False),
        Part("fails", ["json.tool", "/nowhere"], 60, side="checks", writes=False),
        Part("hangs", ["timeit", "-n", "1", "-r", "1", hanging], 2, writes=False),
        Part("after", ["platform"], 60, writes=False),
    ]
    found = session(tmp_path, parts)
    assert {name: record["status"] for name, record in found.items()} == {
        "whole": "done",
        "fails": "failed",
        "hangs": "cut",
        "after": "done",
    }
    assert "/nowhere" in found["fails"]["error"] and "it hangs" in found["hangs"]["error"]
    shown = (tmp_path / "tables.md").read_text()
    assert "- fails: failed. " in shown and "- hangs: cut. it hangs" in shown and "- whole" not in shown
    assert not any(b"sleep\x0077.125" in line for line in command_lines())  # the processes that a part started


def command_lines() -> list[bytes]:
    """Of all processes, where the system tells them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found.append(path.read_bytes())
    return found


def test_time_is_kept_for_the_last_part(tmp_path: Path) -> None:
    parts = [Part("tables", ["platform"], 60, writes=False), Part("last", ["platform"], 60, last=True, writes=False)]
    found = session(tmp_path, parts, minutes=(gpu_parts.KEPT + 5) / 60)
    assert [found[name]["status"] for name in ("tables", "last")] == ["left out", "done"]


def test_what_a_part_has_written_is_kept_when_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "import sys, time", "open(sys.argv[-1], 'w').write('{\"rows\": [1]}')", "time.sleep(60)"
    (tmp_path / "slow_part.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (record,) = session(tmp_path, [Part("slow", ["slow_part"], 3)]).values()
    assert record["status"] == "cut" and record["result"] == {"rows": [1]}


def test_the_status_says_whether_all_is_correct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, status in (["platform"], 0), (["json.tool", "/nowhere"], 1):
        parts = [Part("check", words, 60, correctness=True, writes=False)]
        parts.append(Part("table", ["json.tool", "/nowhere"], 60, writes=False))
        monkeypatch.setattr(gpu, "plan", lambda device, tiny, found=parts: found)
        assert gpu.main(["run", "--tiny", "--out", str(tmp_path / str(status))]) == status


def test_what_cannot_be_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["run", "--tiny", "--out", str(tmp_path), "--parts", "formes"]) == 2
    assert "--parts: expected some of forms" in error_of(capsys)
    assert gpu.main(["tables", str(tmp_path)]) == 2
    assert "results.json: expected the results" in error_of(capsys)
    (tmp_path / "results.json").write_text("{}")
    assert gpu.main(["run", "--tiny", "--out", str(tmp_path)]) == 2
    assert "expected a folder without results" in error_of(capsys)
    if not torch.cuda.is_available():
        assert gpu.main(["run", "--out", str(tmp_path / "new")]) == 2
        assert "expected a CUDA GPU" in error_of(capsys) and not (tmp_path / "new").exists()


def test_every_part_is_a_command_that_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the plan for a GPU, which no CPU runs: no program or flag in it is unknown."""
    parts = gpu_parts.full_plan("cuda")
    assert len({part.name for part in parts}) == len(parts) and parts[-1].last and parts[0].correctness
    benchmarks = {"benchmarks.step": step.STEP, "benchmarks.evaluate": evaluate.EVALUATE}
    checks: dict[str, Any] = {"benchmarks.forms": forms, "benchmarks.resumes": resumes, "benchmarks.kernels": kernels}
    rows = ""
    for part in parts:
        program, *words = part.words
        words += ["--first-limit", "9"] * bool(part.after_first)
        if program in benchmarks:
            assert harness.main(benchmarks[program], [*words, "--dry-run"]) == 0, part
            rows += capsys.readouterr().out
        elif program in checks:
            assert checks[program].new_parser().parse_args(words).device == "cuda"
        else:
            assert program == "pytest" and "tests/test_gpu.py" in words
    for name in ("hugging face, compiled", "hugging face, static", "attempt: ours, all", "tasks: ours, compiled"):
        assert f"    {name}: " in rows
    for name in ("finetune: hugging face", "adapter: hugging face", "ours, plain", "ours, eager"):
        assert f"    {name}: " in rows
    assert {name for part in parts if part.name.startswith("forms") for name in part.words if "ours" in name} == {
        "ours, eager",
        "ours, all",
        "ours, compiled",
    }
    names = [part.name for part in parts]
    compiled = [part.name for part in parts if any("compiled" in word for word in part.words)]
    assert compiled[0] == "first-32" and names.index("base-128") < names.index("first-32") < names.index("compiled-32")
    beginning = [part for part in parts if part.side == "checks"]
    assert max(part.limit for part in beginning) + 3 * 80 < 540  # checks and three tables, of nine minutes


def test_a_run_of_every_kind_is_taken_by_train_py(tmp_path: Path) -> None:
    """Of resumes: no flag in them is refused for the run's method."""
    for words in resumes.KINDS.values():
        assert parse([*words, *resumes.COMMON, "--out", str(tmp_path)]).options.batch_size == 32


def test_a_part_s_programs_have_their_first_samples_before_it_is_cut(tmp_path: Path) -> None:
    """However little of its time is left."""
    for limit, expected in (80.0, "55"), (40.0, "15"), (20.0, "5"):
        running = gpu.Running(Part("a", ["platform"], 80, writes=False, after_first=25), tmp_path, limit)
        running.kill()
        assert running.command[-2:] == ["--first-limit", expected]


def test_forms_write_each_row_when_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a part that is cut leaves them."""
    found: list[int] = []

    def row(self: forms.Check, name: str, precision: str, base: Any) -> dict[str, Any]:
        written = tmp_path / "found.json"
        found.append(len(json.loads(written.read_text())["rows"]) if written.exists() else 0)
        return {"program": name, "precision": precision, "problem": ""}

    monkeypatch.setattr(forms.Check, "row", row)
    monkeypatch.setattr(forms.Check, "found", lambda *_: {})
    words = ["--model", "tiny", "--methods", "prompt", "--precisions", "fp32", "--out", str(tmp_path / "found.json")]
    assert forms.main(words) == 0 and found == [0, 1, 2]


def test_an_error_is_a_line_in_a_table() -> None:
    problem = "status 2:\n" + "| a trace\n" * 200 + "--prompt-length: refused"
    rows = [{"kind": "a", "way": "again", "kills": "", "problem": problem}]
    shown = gpu_tables.correctness([{"name": "resumes", "status": "failed", "result": {"rows": rows}}])
    (line,) = [line for line in shown.splitlines() if "| again " in line]
    assert line.count("|") == 5 and len(line) < 250 and "status 2:" in line and "refused" in line


@pytest.mark.long
@pytest.mark.parametrize("part", ["loss", "step", "generate", "label_scores"])
def test_a_form_that_computes_something_else_is_found(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which on a GPU could be a graph whose inputs are not the batch's."""
    check, right = forms.Check(CASE, "prompt", CPU), getattr(Ours, part)
    base = forms.found_by(check.program("ours, plain", "fp32"), check.batches)
    assert check.row("ours, all", "fp32", base)["problem"] == ""
    batches: list[Any] = []

    def stale(self: Ours, batch: Any, *given: Any) -> Any:
        batches.append(batch)
        return right(self, batches[0], *given)  # the first batch, whatever comes

    if part == "loss":
        monkeypatch.setattr(Ours, "step", lambda self, batch: right(self, batch) and None)
    else:
        monkeypatch.setattr(Ours, part, stale if part != "label_scores" else lambda *given: right(*given) * 1.01)
    assert check.row("ours, all", "fp32", base)["problem"]


@pytest.fixture
def graphs_made(monkeypatch: pytest.MonkeyPatch) -> list[Graphs]:
    """Graphs as a GPU has them, by what records without one."""
    made: list[Graphs] = []

    def new_graphs(machine: Machine, plan: Plan) -> Graphs | None:
        if not plan.graphs or plan.plain:
            return None
        made.append(Graphs(StandIn()))
        return made[-1]

    monkeypatch.setattr(ours, "new_graphs", new_graphs)
    return made


@pytest.mark.long
@pytest.mark.parametrize("method", ours.METHODS)
def test_graphs_agree_with_the_plain_form(method: str, graphs_made: list[Graphs]) -> None:
    rows = list(forms.Check(CASE, method, CPU).rows({"fp32": ("ours, eager", "ours, all")}))
    assert [row["problem"] for row in rows] == [""] * len(rows) and rows[-1]["program"].endswith("ours, all")
    assert len(graphs_made) == 2 and not any(graphs.failed for graphs in graphs_made)
    assert len(graphs_made[0].graphs) > 5  # of steps of several shapes, of answers, of the optimizer


@pytest.mark.long
def test_graphs_that_do_not_read_their_inputs_are_found(
    graphs_made: list[Graphs], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill, filled = Inputs.fill, set[int]()

    def once(self: Inputs, tensors: Any) -> None:
        if id(self.bytes) not in filled:
            filled.add(id(self.bytes))
            fill(self, tensors)

    monkeypatch.setattr(Inputs, "fill", once)
    rows = list(forms.Check(CASE, "prompt", CPU).rows({"fp32": ("ours, eager", "ours, all")}))
    assert [bool(row["problem"]) for row in rows] == [False, False, True]


@pytest.mark.long
def test_graphs_that_cannot_be_made_are_found(graphs_made: list[Graphs], monkeypatch: pytest.MonkeyPatch) -> None:
    """The program goes on without them, and is right."""
    check = forms.Check(CASE, "prompt", CPU)
    base = check.found("ours, plain", "fp32")

    def refused(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(StandIn, "record", refused)
    assert check.row("ours, all", "fp32", base)["problem"] == "no graphs"


@pytest.mark.long
def test_masks_that_do_not_change_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a graph that replays the numbers of its capture."""
    check, right = forms.Check(CASE, "prompt", CPU), Ours.step
    assert check.dropout("ours, eager", "fp32") == 1.0

    def frozen(self: Ours, batch: Any) -> None:
        torch.manual_seed(0)
        right(self, batch)

    monkeypatch.setattr(Ours, "step", frozen)
    assert check.dropout("ours, all", "fp32") < forms.SPREAD[0]
    base = check.found("ours, plain", "fp32")
    assert check.row("ours, all", "fp32", base)["problem"] == "dropout does not draw"


def test_the_moment_is_the_gradient() -> None:
    check = forms.Check(CASE, "finetune", CPU)
    program = check.program("ours, plain", "fp32")
    assert isinstance(program, Ours)
    torch.autograd.backward(program.loss(check.batches[0]))
    gradient = program.gradient()
    program.step(check.batches[0])
    found = forms.moment(program)
    assert found is not None
    clipped = gradient / max(1.0, gradient.norm().item())
    assert torch.allclose(found, clipped, rtol=1e-4, atol=1e-6)


def tensors_file(path: Path, tensor: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes({"target": tensor}, {}))


def test_runs_that_end_otherwise_are_found(tmp_path: Path) -> None:
    trials = {name: resumes.Trial([], tmp_path / name) for name in ("whole", "same", "tensor", "score", "metric")}
    for name, trial in trials.items():
        for path in (trial.run.best, trial.run.last):
            tensors_file(path, torch.ones(2) * (1 + 1e-6 * (name == "tensor" and path == trial.run.last)))
        record = {"step": 5, "loss": 1.0 + (name == "metric"), "seconds": len(name)}
        trial.run.metrics.write_text(json.dumps(record) + "\n")
        trial.run.result.write_text(json.dumps({"scores": [name == "score"]}))
    found = {name: resumes.problem(trial, trials["whole"]) for name, trial in trials.items()}
    assert not found["whole"] and not found["same"]
    assert found["tensor"].startswith("1 of 2 tensors differ") and found["score"] == found["metric"] != ""


def test_products_in_fp32_and_plain_attention_are_seen() -> None:
    """In the operations of forward and backward."""

    def found(form: str, precision: str) -> str:
        case = harness.Case("tiny", 30, 2, 0.1, precision, 20, 2, False)
        return str(kernels.seen(dict(kernels.works_of(case, f"ours, {form}", CPU))["step"]))

    assert "product in fp32" in found("plain", "fp32") and "attention spelled out, (2, 4, 50, 50)" in found(
        "plain", "fp32"
    )
    assert "product in fp32" not in found("all", "bf16")


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["short", "short-v1_1"])
def test_on_a_gpu_a_step_runs_what_it_should(model: str, tmp_path: Path) -> None:
    """In bf16 no product in fp32 and no attention spelled out; a graph, in steps and in answers."""
    flags = ["--model", model, "--device", "cuda", "--precision", "bf16", "--out", str(tmp_path / "found.json")]
    assert kernels.main(flags) == 0
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert len(rows) == 6 and all(row["kernels"] > 10 for row in rows)


def test_kernels_are_told_by_their_names() -> None:
    names = {
        "fmha_cutlassB_bf16_aligned_128x64_k64_dropout_sm80": "attention",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3": "attention",
        "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT": "products",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64": "products",
        "void at::native::(anonymous namespace)::fused_dropout_kernel_vec<float>": "dropout",
        "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>": "copies",
        "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0": "compiled",
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>": "elementwise",
        "Memcpy DtoD (Device -> Device)": "copies",
    }
    assert {name: kernels.kind_of(name) for name in names} == names
    fp32 = (
        "ampere_sgemm_128x64_tn",
        "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n",
        "cutlass_80_tensorop_s1688gemm_tf32_128x128",
    )
    assert all(kernels.IN_FP32.search(name) for name in fp32)
    assert not any(kernels.IN_FP32.search(name) for name in names)
    assert not kernels.IN_FP32.search("ampere_bf16_s1688gemm_bf16_128x128_ldg8_f2f_stages_32x1_tn")


def test_a_step_without_graph_or_fused_attention_is_a_problem() -> None:
    good: dict[str, Any] = {
        "what": "step",
        "graph_launches": 1.0,
        "seen": {},
        "in_fp32": [],
        "kinds": {"attention": [9, 1]},
    }
    for form, changes, problem in (
        ("all", {}, []),
        ("eager", {"graph_launches": 0.0}, []),
        ("all", {"graph_launches": 0.0}, ["no graph was launched"]),
        ("all", {"seen": {"product in fp32, mm": 2}}, ["product in fp32, mm: 2 times"]),
        ("eager", {"in_fp32": ["sgemm"]}, ["a kernel in fp32: sgemm"]),
        ("all", {"kinds": {}}, ["no fused attention ran"]),
    ):
        assert kernels.problems({**good, **changes}, form, "bf16", mixes=False) == problem


def test_tables_have_a_row_a_program_with_its_ratios() -> None:
    row = {
        "seconds": [0.01, 0.012, 0.011],
        "examples_per_second": 2909.0,
        "share_of_product_rate": 0.21,
        "first_seconds": 8.0,
    }
    rows = [
        {**row, "name": "hugging face", "times": {"hugging face": 1.0, "hugging face, compiled": 0.4}},
        {
            **row,
            "name": "attempt: ours, compiled",
            "graphs": ["graph of a step", "no graphs of a step (why)"],
            "times": {"hugging face": 7.456, "hugging face, compiled": 3.0},
        },
    ]
    case = {"precision": "bf16", "prompt_length": 100, "target_tokens": 2, "dropout": 0.1}
    found = {
        "case": case,
        "unit": "step",
        "product": {"rate": 7e14},
        "rows": rows,
        "failed": {"ours, plain": "a\nout of memory"},
    }
    common = {"correctness": False, "status": "done", "error": "", "words": []}
    parts = [
        {**common, "name": "base-32", "title": "t5-base, batch 32", "result": {"cases": [found]}},
        {**common, "name": "first-32", "title": "t5-base, batch 32", "result": {"cases": [found]}},
        {**common, "name": "forms-prompt", "title": "", "result": None, "status": "running"},
    ]
    machine = {
        "processor": "a",
        "cores": 1,
        "memory_gb": 2,
        "commit": "c",
        "gpu": "H",
        "gpu_memory_gb": 140,
        "driver": "5",
    }
    shown = tables({"command": "x", "machine": machine, "parts": parts})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if "--compile" in line]
    assert cells[0][1:] == ["attempt: --compile", "11 (10 to 12)", "7.46", "3.00", "2,909", "21 %", "-"]
    assert cells[1] == ["t5-base, batch 32", "attempt: --compile", "8"]
    assert "- base-32, ours, plain failed: out of memory" in shown and "- forms-prompt: running" in shown
    assert "- base-32, attempt: ours, compiled: no graphs of a step (why)" in shown and shown.count("no graphs") == 2
    assert "H, 140 GB, driver 5" in shown and "700 to 700 TFLOP/s" in shown
