"""Loading in the dtype in which weights are kept: the same bits as by way of fp32, and no fp32 copy of them all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hugging_face import COMMON, CONFIGS, random_state, save
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from attempt.answering.backbone import Backbone
from attempt.command.options import Options
from attempt.machine.device import Machine
from data.download import Downloader
from model.checkpoint import load_t5
from model.fast import Forms, Joined, quicken
from model.t5 import T5, Attention, FeedForward, RelativeBias

LOW = (torch.bfloat16, torch.float16)


def by_way_of_fp32(t5: T5, dtype: torch.dtype) -> dict[str, Tensor]:
    """What every kept tensor of a fused T5 must be: all computed in fp32, and cast at the end."""
    expected = dict(t5.named_parameters())
    for name, module in t5.named_modules():
        if isinstance(module, nn.Linear | RelativeBias):
            weight = getattr(module, "table", module).weight
            key = f"{name}.table.weight" if isinstance(module, RelativeBias) else f"{name}.weight"
            expected[key] = weight
    for stack, blocks in (("encoder", t5.encoder.blocks), ("decoder", t5.decoder.blocks)):
        for i, block in enumerate(blocks):
            for part, matrices in (("attention", "qkv"), ("feed_forward", None)):
                module, norm = getattr(block, part), getattr(block, f"{part}_norm")
                names = [*matrices] if matrices else ["wi_0", "wi_1"] if module.gated else ["wi"]
                joined = torch.cat([getattr(module, n).weight for n in names]) * norm.weight
                for n in names:
                    del expected[f"{stack}.blocks.{i}.{part}.{n}.weight"]
                del expected[f"{stack}.blocks.{i}.{part}_norm.weight"]
                expected[f"{stack}.blocks.{i}.{part}.{'qkv' if matrices else 'wi'}.weight"] = joined
            if stack == "decoder":
                g = expected.pop(f"decoder.blocks.{i}.cross_attention_norm.weight")
                expected[f"decoder.blocks.{i}.cross_attention.q.weight"] = block.cross_attention.q.weight * g
    if t5.head is None:
        scale = t5.config.d_model**-0.5 if t5.config.scaled else 1.0
        expected["head.weight"] = t5.embedding.weight * scale
    wide = [n for n, m in t5.named_modules() if isinstance(m, Attention | FeedForward)] if dtype == LOW[1] else []
    for name in wide:  # fp16's o and wo are kept small (WideLinear)
        key = f"{name}.{'wo' if name.endswith('feed_forward') else 'o'}.weight"
        expected[key] = expected[key] * 2**-8
    matrix = {n for n, w in expected.items() if w.dim() == 2 and n != "embedding.weight"}
    return {n.replace("encoder.norm.weight", "encoder.norm.plain.weight"): w.to(dtype) if n in matrix else w
            for n, w in expected.items()}  # fmt: skip


@pytest.mark.parametrize("form", ["safetensors", "torch-legacy", "torch-sharded"])
@pytest.mark.parametrize("stored", [torch.float64, torch.float32, *LOW])
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", ["v1.0", "v1.1", "gated-and-tied"])
def test_same_bits_as_by_way_of_fp32(
    name: str, dtype: torch.dtype, stored: torch.dtype, form: str, tmp_path: Path
) -> None:
    state = {k: tensor.to(stored) for k, tensor in random_state(CONFIGS[name]).items()}
    folder = save(tmp_path, CONFIGS[name], state, form)
    expected = by_way_of_fp32(load_t5(folder), dtype)
    t5 = quicken(load_t5(folder, "cpu", dtype).requires_grad_(False), Forms(), dtype)
    found = dict(t5.named_parameters())
    assert found.keys() == expected.keys()
    for key, weight in expected.items():
        assert found[key].dtype == weight.dtype and torch.equal(found[key], weight), key
        assert not found[key].requires_grad


WIDE: dict[str, Any] = COMMON | {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 6}
LARGEST = 4 * WIDE["d_model"] * WIDE["d_ff"]  # bytes of the largest matrix in fp32


def test_no_fp32_copy_of_all_is_ever_there(tmp_path: Path) -> None:
    """The peak of what PyTorch allocates: what is kept, and a few single matrices."""
    folder = save(tmp_path, WIDE, {k: t.bfloat16() for k, t in random_state(WIDE).items()}, "safetensors")
    quicken(load_t5(folder, "cpu", torch.bfloat16).requires_grad_(False), Forms(), torch.bfloat16)  # warm up
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        t5 = quicken(load_t5(folder, "cpu", torch.bfloat16).requires_grad_(False), Forms(), torch.bfloat16)
    assert profiler.profiler is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    kept = sum(p.nbytes for p in t5.parameters())
    print(f"kept {kept}, peak {peak}, largest matrix in fp32 {LARGEST}")
    assert kept <= peak <= kept + 2 * LARGEST < 2 * kept  # an fp32 copy of all would be 2 * kept, and more


def test_matrices_wait_in_the_file(tmp_path: Path) -> None:
    """Until they are cast they are the mapped file's, in its dtype; fp32 ones are copies of their own."""
    state = {k: t.bfloat16() for k, t in random_state(WIDE).items()}
    folder = save(tmp_path, WIDE, state, "safetensors")
    t5 = load_t5(folder, "cpu", torch.float16)
    kinds = {type(m).__name__: m.weight.dtype for m in t5.modules() if getattr(m, "weight", None) is not None}
    assert kinds == {"Embedding": torch.float32, "Linear": torch.bfloat16, "RMSNorm": torch.float32}
    storages = {m.weight.untyped_storage().data_ptr() for m in t5.modules() if isinstance(m, nn.Linear)}
    size = (folder / "model.safetensors").stat().st_size
    assert max(storages) - min(storages) < size  # they lie in one place
    assert {p.dtype for p in load_t5(folder).parameters()} == {torch.float32}


@pytest.mark.parametrize("options", [{}, {"plain": True}, {"method": "finetune"}, {"method": "adapter"}])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_keeps_its_matrices_in_the_products_dtype_where_they_are_frozen(
    options: dict[str, Any], precision: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(torch.device("cpu"), precision, "test")
    monkeypatch.setattr("attempt.answering.backbone.choose_machine", lambda *_: machine)
    given = Options(["rte"], model=str(tiny_checkpoint), **{"method": "prompt"} | options)
    backbone = Backbone.load(given, Downloader(data_dir=tmp_path))
    assert backbone.t5.embedding.weight.dtype == torch.float32
    machine.quicken(backbone.t5, given)
    dtype = torch.bfloat16 if precision == "bf16" and not options else torch.float32
    assert {m.weight.dtype for m in backbone.t5.modules() if isinstance(m, nn.Linear)} == {dtype}
    assert any(isinstance(m, Joined) for m in backbone.t5.modules()) == (options.get("plain") is not True)
    assert machine.kept(given) == dtype
