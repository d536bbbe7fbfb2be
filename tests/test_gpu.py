"""What only a CUDA GPU can show: graphs, fused kernels, and runs that are killed and go on bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from kill_runs import complete
from runs import metrics_of, result_of, same_prompt
from torch.profiler import ProfilerActivity, profile

import train
from attempt.answering.answers import answer
from attempt.command.options import Options
from attempt.machine.device import choose_machine
from attempt.machine.graphs import CudaRecorder, Graphs
from attempt.prompt import SoftPrompt
from attempt.runs.plan import Plan
from attempt.training.trainer import Trainer
from data.batches import Batch
from model.config import T5Config
from model.t5 import T5

pytestmark = pytest.mark.gpu


@pytest.fixture
def flags(attempt_flags: list[str]) -> list[str]:
    return [flag if flag != "cpu" else "cuda" for flag in attempt_flags]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("more", [[], ["--accumulate", "2"], ["--no-graphs"], ["--plain"], ["--compile"]], ids=" ".join)
def test_a_run_on_the_gpu(flags: list[str], precision: str, more: list[str], tmp_path: Path, capsys: Any) -> None:
    assert train.main([*flags, "--precision", precision, *more, "--out", str(tmp_path)]) == 0
    assert all(record["loss"] > 0 for record in metrics_of(tmp_path))
    out = capsys.readouterr().out
    assert "no graphs" not in out and ("graph      of the optimizer" in out) == (
        more not in (["--no-graphs"], ["--plain"])
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["attempt", "finetune", "adapter", "bitfit"])
def test_graphs_compute_what_kernels_one_by_one_do(
    common: list[str], attempt_flags: list[str], method: str, precision: str, tmp_path: Path
) -> None:
    """Without dropout, from the same first values: losses, what was trained, and the answers."""
    given = attempt_flags if method == "attempt" else ["--task", "cola", "--method", method, *common]
    flags = [*(flag if flag != "cpu" else "cuda" for flag in given), "--precision", precision, "--dropout", "0"]
    found = []
    for more in ([], ["--no-graphs"]):
        job = train.prepare(train.parse([*flags, *more, "--steps", "8", "--out", str(tmp_path)]).options)
        job.trainer.t5.train()
        for parts in train.training_batches(job.tokens, job.options, 0, not more):
            job.trainer.train_step(*parts)
        answers = answer(job.backbone, job.trainer.trained.prompt, job.splits[0]["dev"].tokens, 12, 8)
        found.append((torch.stack(job.trainer.losses), answers))
        assert (job.trainer.graphs is None) == bool(more)
        assert more or not job.trainer.graphs.failed  # type: ignore[union-attr]
    rough = 1e-4 if precision == "fp32" else 0.05
    torch.testing.assert_close(found[0][0], found[1][0], rtol=rough, atol=rough)
    assert precision != "fp32" or found[0][1] == found[1][1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["prompt", "attempt"])
def test_a_killed_run_goes_on_bit_by_bit(
    common: list[str], attempt_flags: list[str], method: str, precision: str, tmp_path: Path
) -> None:
    given = attempt_flags if method == "attempt" else ["--task", "cola", "--method", "prompt", *common]
    flags = [*(flag if flag != "cpu" else "cuda" for flag in given), "--precision", precision]
    flags += ["--steps", "400", "--eval-every", "50"]
    assert train.main([*flags, "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "cut"
    assert complete([*flags, "--out", str(out)], out, kills=3, seed=1) >= 1
    assert same_prompt(out, tmp_path / "whole") and metrics_of(out) == metrics_of(tmp_path / "whole")
    assert result_of(out)["scores"] == result_of(tmp_path / "whole")["scores"]


def test_a_recording_that_asks_for_a_number_leaves_the_gpu_as_it_was(capsys: Any) -> None:
    graphs, x = Graphs(CudaRecorder(torch.device("cuda"))), torch.ones(99, device="cuda")

    def asking() -> tuple[torch.Tensor, ...]:
        y = torch.nn.functional.dropout(x)
        return (y * y.sum().item(),)

    graphs.record("what asks", "key", asking, warm_ups=0)
    assert graphs.failed and "no graphs" in capsys.readouterr().out
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.manual_seed(1)
    first = torch.nn.functional.dropout(x)
    torch.manual_seed(1)
    assert torch.equal(first, torch.nn.functional.dropout(x)) and 0 < (first == 0).sum() < 99


def kernels_of_a_step(**options: Any) -> list[str]:
    """The kernels of a step of prompt tuning in bf16, of a T5 with widths that fused kernels take."""
    config = T5Config(d_model=256, d_kv=64, d_ff=512, num_layers=2, num_heads=4, vocab_size=512)
    t5 = T5(config).requires_grad_(False).cuda().train()
    plan = Plan.complete(Options(["a"], method="prompt", steps=9, prompt_length=20, **options), 99, None)
    machine = choose_machine("cuda", "bf16")
    machine.quicken(t5, plan)
    trainer = Trainer(plan, t5, machine, SoftPrompt(torch.randn(1, 20, 256)).to("cuda"))
    ids, zeros = torch.randint(3, 500, (32, 40)), torch.zeros(32, dtype=torch.long)
    mask = torch.arange(40) < torch.randint(20, 41, (32, 1))
    batch = Batch(ids, mask, ids[:, :2], zeros, zeros, 64)
    trainer.train_step(batch)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        trainer.train_step(batch)
        torch.cuda.synchronize()
    return [event.name for event in found.events()]


def test_a_step_in_bf16_runs_fused_attention_and_no_fp32_product() -> None:
    """fp32 products have sgemm, f32f32 or tf32 in their kernels' names, fused attention has fmha, flash or sdpa."""
    names = [name.lower() for name in kernels_of_a_step()]
    products = [name for name in names if any(part in name for part in ("gemm", "cutlass", "nvjet", "xmma"))]
    assert products and not [name for name in products if any(part in name for part in ("sgemm", "f32f32", "tf32"))]
    fused = [name for name in names if any(part in name for part in ("fmha", "flash", "sdpa"))]
    # Forward and backward of self-attention in both stacks' two layers, but for the decoder's first: what it reads is
    # frozen. Cross-attention is absorbed into products. (t5-base on an H200: 47 = 4 x 12 - 1.)
    assert len(fused) >= 2 * 4 - 1, sorted(set(names))
