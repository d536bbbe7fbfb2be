"""Where a run computes: what is chosen, refused, and put into the T5."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from torch import nn

from attempt.command.options import Options
from attempt.machine import device as machine
from attempt.machine.device import Machine, choose_machine
from model.config import T5Config
from model.errors import AttemptError
from model.fast import FusedAttention, QuickDropout, SequenceDropout
from model.t5 import T5

TINY = T5Config(d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=20)


@pytest.mark.parametrize(
    ("capabilities", "allowed"),
    [
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": True}, True),
        ({"avx2": True, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_bf16_needs_a_cpu_that_has_it(
    capabilities: dict[str, Any], allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    if allowed:
        assert choose_machine("cpu", "bf16").precision == "bf16"
    else:
        with pytest.raises(AttemptError, match="slower than fp32"):
            choose_machine("cpu", "bf16")
    assert choose_machine("cpu", "auto").precision == "fp32"  # only when asked for
    with pytest.raises(AttemptError, match="--precision fp16"):
        choose_machine("cpu", "fp16")


def test_an_older_pytorch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not machine.cpu_has_bf16()


def kinds(t5: T5) -> set[type]:
    return {type(module) for module in t5.modules()}


def test_options_choose_the_forms() -> None:
    cpu = Machine(torch.device("cpu"), "bf16", "test")

    def quick(**options: bool) -> T5:
        t5 = T5(TINY).requires_grad_(False)
        cpu.quicken(t5, Options(["rte"], **options))
        return t5

    assert {FusedAttention, QuickDropout} <= kinds(quick())
    assert quick().encoder.blocks[0].feed_forward.wo.weight.dtype == torch.bfloat16
    plain = quick(plain=True)
    assert not {FusedAttention, QuickDropout} & kinds(plain) and nn.Dropout in kinds(plain)
    assert all(p.dtype == torch.float32 for p in plain.parameters())
    assert SequenceDropout in kinds(quick(sequence_dropout=True))
    assert SequenceDropout in kinds(quick(plain=True, sequence_dropout=True))
    assert quick(recompute=True).encoder.recompute and not quick().encoder.recompute
    assert QuickDropout not in kinds(quick(compile=True))


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="needs torch.compile")
def test_compile_takes_the_blocks_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **settings: asked.append((type(self).__name__, settings)))
    Machine(torch.device("cpu"), "fp32", "test").quicken(T5(TINY).requires_grad_(False), Options(["rte"], compile=True))
    assert asked == [("Block", {"dynamic": True})] * 2


FAULTS = """
import resource, torch
from attempt.machine.device import keep_memory
keep_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(16, 1 << 20).neg()  # two tensors of 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    """Without it each large tensor is mapped in anew: thousands of page faults for every one.

    In a process of its own: where many tests have run, the heap may have no room to grow in one piece.
    """
    pytest.importorskip("resource")
    found = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert int(found.stdout) < 1000  # 8 x 2 tensors of 64 MB have 262,144 pages
