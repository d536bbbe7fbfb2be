"""Prompt checkpoints: what is saved comes back bit for bit; damaged and foreign files are named, never executed."""

import dataclasses
import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attempt.checkpoint import BEST, FORMAT, PromptConfig, load_prompt, load_sources, save_prompt
from attempt.prompt import SoftPrompt
from model.errors import AttemptError
from model.files import write_whole
from model.safetensors import read_safetensors, safetensors_bytes

L, D = 3, 8
G_NAMES = {"attention.down.weight", "attention.up.weight", "attention.norm.weight", "attention.norm.bias"}


def plain(K: int = 1) -> tuple[SoftPrompt, PromptConfig]:
    target = torch.randn(K, L, D, generator=torch.Generator().manual_seed(3))
    return SoftPrompt(target), PromptConfig("prompt", "t5-base", ["rte", "cb", "wic"][:K], [], "digits")


def mixed(K: int = 1, **options: Any) -> tuple[SoftPrompt, PromptConfig]:
    prompt = naive.mixture(K, **options)  # its LayerNorm is not 1/0
    return prompt, PromptConfig("attempt", "t5-base", ["rte", "cb", "wic"][:K], ["mnli", "sst2"], "digits", **options)


def observed(prompt: SoftPrompt, config: PromptConfig) -> tuple[SoftPrompt, PromptConfig]:
    """Its running mean after a batch of which no number is a special one."""
    assert prompt.attention is not None
    prompt.attention.observe(torch.arange(8, dtype=torch.float64) / 3 + 0.1, torch.tensor(7.0, dtype=torch.float64))
    return prompt, config


KINDS: dict[str, Callable[[], tuple[SoftPrompt, PromptConfig]]] = {
    "prompt tuning": plain,
    "three prompts": lambda: plain(3),
    "attempt": mixed,
    "three tasks share G": lambda: mixed(3),
    "temperature": lambda: mixed(temperature=0.3),
    "pads pooled": lambda: mixed(temperature=0.3, pool_pads=True),
    "mean pooled": lambda: mixed(pooling="mean"),
    "centred": lambda: observed(*mixed(pooling="centred")),
    "norm frozen": lambda: mixed(train_norm=False),
}


def refused(path: Path, action: Callable[[], object]) -> str:
    """The error's message, which must name the file in one line."""
    with pytest.raises(AttemptError) as caught:
        action()
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


# ---- save and load ----


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_prompt_is_the_saved_one_bit_for_bit(kind: str, tmp_path: Path) -> None:
    prompt, config = KINDS[kind]()
    with torch.no_grad():
        prompt.target[0, 0, :3] = torch.tensor([-0.0, 1e-42, 3e38])
    save_prompt(tmp_path / "p.safetensors", prompt, config)
    loaded, loaded_config = load_prompt(tmp_path / "p.safetensors")
    assert loaded_config == dataclasses.replace(config, **(prompt.attention.settings() if prompt.attention else {}))
    before, after = prompt.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(*(one[name].reshape(-1).view(torch.int32) for one in (before, after))), name
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == {
        n for n, p in prompt.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_prompt_gives_identical_logits(kind: str, tmp_path: Path) -> None:
    # the LayerNorm of G that evaluation did not restore was a bug of the released program
    prompt, config = KINDS[kind]()
    save_prompt(tmp_path / "p.safetensors", prompt, config)
    loaded, _ = load_prompt(tmp_path / "p.safetensors")
    model = naive.tiny_t5()
    model.embedding.weight[0] += 2  # so that pooling the pads makes a difference
    for one in (prompt, loaded):
        if one.attention is not None:
            one.attention.see_pads(model.embedding.weight[0], 6)
    ids, mask, labels = naive.batch([4, 2, 6])
    tasks = torch.tensor([2, 0, 1]) % len(config.tasks)
    assert torch.equal(model(ids, mask, labels, prompt, tasks), model(ids, mask, labels, loaded, tasks))


def test_the_file_alone_is_enough(tmp_path: Path) -> None:
    # sources that are read again from where they once were may have moved
    sources = [tmp_path / "mnli_prompt.pt", tmp_path / "sst2_prompt.pt"]
    for path in sources:
        torch.save(torch.randn(L, D), path)
    stacked, names = load_sources(sources)
    prompt = SoftPrompt(torch.zeros(1, L, D), stacked, naive.mixture().attention)
    save_prompt(tmp_path / "p.safetensors", prompt, PromptConfig("attempt", "t5-base", ["rte"], names, "digits"))
    for path in sources:
        path.unlink()
    loaded, config = load_prompt(tmp_path / "p.safetensors")
    assert loaded.sources is not None and torch.equal(loaded.sources, stacked)
    assert config.sources == ["mnli", "sst2"]


def test_nothing_of_the_backbone_is_saved(tmp_path: Path) -> None:
    for kind, names in (("prompt tuning", {"target"}), ("attempt", {"target", "sources"} | G_NAMES)):
        prompt, config = KINDS[kind]()
        save_prompt(tmp_path / "p.safetensors", prompt, config)
        tensors, _ = read_safetensors(tmp_path / "p.safetensors")
        assert set(tensors) == names
        numbers = sum(t.numel() for t in tensors.values())
        assert (tmp_path / "p.safetensors").stat().st_size < 4 * numbers + 2000


def test_other_programs_can_read_the_file(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    prompt, config = mixed()
    save_prompt(tmp_path / "p.safetensors", prompt, config)
    theirs = safetensors.load_file(tmp_path / "p.safetensors")
    assert all(torch.equal(theirs[name], tensor) for name, tensor in prompt.state_dict().items())


def test_a_run_folder_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    prompt, config = plain()
    other, _ = mixed()
    save_prompt(tmp_path / BEST, prompt, config)
    save_prompt(tmp_path / "last.safetensors", other, config)
    assert torch.equal(load_prompt(tmp_path)[0].target, prompt.target)


def test_loaded_prompt_lives_on_when_the_file_is_overwritten_in_place(tmp_path: Path) -> None:
    # tensors are read as views on the mapped file
    prompt, config = mixed()
    path = tmp_path / "p.safetensors"
    save_prompt(path, prompt, config)
    loaded, _ = load_prompt(path)
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, prompt.state_dict()[name]), name


# ---- damaged and foreign files ----


def write(
    path: Path, tensors: dict[str, Tensor], config: PromptConfig | dict[str, Any] | str, form: str = FORMAT
) -> None:
    """A checkpoint with anything in it."""
    if isinstance(config, PromptConfig):
        config = dataclasses.asdict(config)
    text = config if isinstance(config, str) else json.dumps(config)
    path.write_bytes(safetensors_bytes(tensors, {"format": form, "config": text}))


@pytest.mark.parametrize("kind", ["prompt tuning", "attempt"])
def test_truncated_file_is_refused_wherever_it_is_cut(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_prompt(path, *KINDS[kind]())
    content = path.read_bytes()
    for length in [0, 1, 7, 8, 9, *range(16, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        refused(path, lambda: load_prompt(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint at all",
        b"\xff" * 64,
        b"\x02\0\0\0\0\0\0\0[]",
        safetensors_bytes({}, {}),
        safetensors_bytes({"shared.weight": torch.zeros(4, 4)}, {"format": "pt"}),
        safetensors_bytes({"target": torch.zeros(1, L, D)}, {"format": FORMAT}),
    ],
    ids=["empty", "text", "ones", "list header", "no tensors", "Hugging Face's", "no config"],
)
def test_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(content)
    refused(path, lambda: load_prompt(path))


def test_a_later_format_is_refused_by_name(tmp_path: Path) -> None:
    prompt, config = plain()
    write(tmp_path / "p.safetensors", prompt.state_dict(), config, form="attempt-prompt-9")
    assert "attempt-prompt-9" in refused(tmp_path / "p.safetensors", lambda: load_prompt(tmp_path / "p.safetensors"))


@pytest.mark.parametrize("name", ["none.safetensors", "folder"])
def test_missing_file_and_folder_without_checkpoint_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(tmp_path / name, lambda: load_prompt(tmp_path / name))


@pytest.mark.parametrize(
    "change",
    [
        {"method": "adapter"},
        {"method": None},
        {"method": "prompt"},  # of a file with sources
        {"model": None},
        {"model": 5},
        {"tasks": 5},
        {"tasks": None},
        {"tasks": "r"},  # a text of the right length
        {"tasks": [5]},
        {"tasks": []},
        {"tasks": ["rte", "cb"]},
        {"sources": None},
        {"sources": "ab"},
        {"sources": [1, 2]},
        {"sources": ["mnli"]},
        {"labels": None},
        {"labels": 1},
        {"temperature": "x"},
        {"temperature": [1.0]},
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"pool_pads": "no"},
        {"pool_pads": None},
        {"pooling": "median"},
        {"pooling": None},
        {"train_norm": "yes"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_wrong_configuration_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    prompt, config = mixed()
    path = tmp_path / "p.safetensors"
    write(path, prompt.state_dict(), dataclasses.asdict(config) | change)
    refused(path, lambda: load_prompt(path))


@pytest.mark.parametrize("name", ["method", "model", "tasks", "sources", "labels"])
def test_configuration_without_a_field_is_refused(name: str, tmp_path: Path) -> None:
    prompt, config = plain()
    path = tmp_path / "p.safetensors"
    write(path, prompt.state_dict(), {k: v for k, v in dataclasses.asdict(config).items() if k != name})
    refused(path, lambda: load_prompt(path))


@pytest.mark.parametrize(
    "text", ["", "{", "5", "null", "[]", '"x"', "[" * 100_000], ids=lambda text: text[:3] or "empty"
)
def test_configuration_that_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    prompt, _ = plain()
    path = tmp_path / "p.safetensors"
    write(path, prompt.state_dict(), text)
    refused(path, lambda: load_prompt(path))


@pytest.mark.parametrize("name", ["target", "sources", *sorted(G_NAMES)])
def test_missing_tensor_is_refused(name: str, tmp_path: Path) -> None:
    prompt, config = mixed()
    path = tmp_path / "p.safetensors"
    write(path, {k: v for k, v in prompt.state_dict().items() if k != name}, config)
    refused(path, lambda: load_prompt(path))


def test_unknown_tensor_is_refused(tmp_path: Path) -> None:
    prompt, config = plain()
    path = tmp_path / "p.safetensors"
    write(path, prompt.state_dict() | {"shared.weight": torch.zeros(2, 2)}, config)
    assert "shared.weight" in refused(path, lambda: load_prompt(path))


@pytest.mark.parametrize(
    "change",
    [
        {"target": (1, L, D + 1)},
        {"target": (1, L + 1, D)},
        {"target": (L, D)},
        {"target": (D,)},
        {"target": ()},
        {"target": (2, L, D)},
        {"sources": (3, L, D)},
        {"sources": (1, L, D)},
        {"sources": (2, L, D - 1)},
        {"sources": (L, D)},
        {"attention.down.weight": (5, D + 1)},
        {"attention.down.weight": (6, D)},
        {"attention.down.weight": (5,)},
        {"attention.up.weight": (D, 4)},
        {"attention.norm.weight": (1,)},
        {"attention.norm.bias": ()},
        # a G that fits together, but not with the prompts
        {
            "attention.down.weight": (5, 12),
            "attention.up.weight": (12, 5),
            "attention.norm.weight": (12,),
            "attention.norm.bias": (12,),
        },
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_together_are_refused(change: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    prompt, config = mixed()
    path = tmp_path / "p.safetensors"
    write(path, prompt.state_dict() | {name: torch.zeros(shape) for name, shape in change.items()}, config)
    refused(path, lambda: load_prompt(path))


@pytest.mark.parametrize("shape", [(), (1,), (1, D), (1, 1, L, D), (2, L, D)], ids=str)
def test_prompt_tuning_target_of_another_shape_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    # (1,D) has as many rows as there are tasks
    path = tmp_path / "p.safetensors"
    write(path, {"target": torch.zeros(shape)}, plain()[1])
    refused(path, lambda: load_prompt(path))


# ---- write_whole ----


def fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_writing_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.safetensors"
    old, config = plain()
    save_prompt(path, old, config)
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(AttemptError, match="No space"):
        save_prompt(path, *mixed())
    assert torch.equal(load_prompt(path)[0].target, old.target)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_writing_leaves_no_new_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(AttemptError, match="No space"):
        write_whole(tmp_path / "new", b"content")
    assert not list(tmp_path.iterdir())


def test_content_is_on_the_disk_before_the_file_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "folder" / "new", []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        seen.append(("sync", os.fstat(descriptor).st_size, path.exists()))
        sync(descriptor)

    def replaced(old: Path, new: Path) -> None:
        seen.append(("replace", os.stat(old).st_size, path.exists()))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_whole(path, b"12345")
    assert seen[:2] == [("sync", 5, False), ("replace", 5, False)]
    assert path.read_bytes() == b"12345"
    assert [p.name for p in path.parent.iterdir()] == ["new"]  # nothing temporary stays


# ---- source prompts from other programs' files ----


def numbers(seed: int = 0) -> Tensor:
    return torch.randn(L, D, generator=torch.Generator().manual_seed(seed))


def save_bare(path: Path, kind: str) -> Tensor:
    """A source prompt as one of the known programs leaves it; returns what must be read."""
    value = numbers()
    big = torch.stack([numbers(9), value, numbers(8)])
    if kind == "npy":
        np.save(path, value.numpy())
    elif kind == "npy fp64, columns first":
        np.save(path, np.asfortranarray(value.double().numpy()))
    elif kind == "half":
        torch.save(value.half(), path)
        value = value.half().float()
    elif kind == "bfloat16":
        torch.save(value.bfloat16(), path)
        value = value.bfloat16().float()
    elif kind == "old format":
        torch.save(value, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(
            {"plain": value, "parameter": nn.Parameter(value), "view": big[1], "strided": big.mT[1].T}[kind], path
        )
    return value


@pytest.mark.parametrize("kind", ["plain", "parameter", "view", "strided", "half", "bfloat16", "old format"])
def test_bare_torch_tensor_is_read(kind: str, tmp_path: Path) -> None:
    value = save_bare(tmp_path / "mnli_prompt.pt", kind)
    found, names = load_sources([tmp_path / "mnli_prompt.pt"])
    assert torch.equal(found, value[None]) and names == ["mnli"]
    assert type(found) is Tensor and found.dtype == torch.float32 and not found.requires_grad
    assert found.untyped_storage().nbytes() == 4 * L * D  # without the rest of a larger storage


def test_tensor_from_a_gpu_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the released prompts were saved on one; this machine may have none
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save(numbers(), tmp_path / "sst2_prompt.pt")
    monkeypatch.undo()
    assert b"cuda:0" in (tmp_path / "sst2_prompt.pt").read_bytes()
    found, _ = load_sources([tmp_path / "sst2_prompt.pt"])
    assert found.device.type == "cpu" and torch.equal(found[0], numbers())


@pytest.mark.parametrize("kind", ["npy", "npy fp64, columns first"])
def test_numpy_array_is_read(kind: str, tmp_path: Path) -> None:
    value = save_bare(tmp_path / "google_rte.npy", kind)
    found, names = load_sources([tmp_path / "google_rte.npy"])
    assert torch.equal(found, value[None]) and names == ["google_rte"] and found.dtype == torch.float32


def test_checkpoints_and_run_folders_are_sources_under_their_tasks_names(tmp_path: Path) -> None:
    one, one_config = plain()
    three, three_config = plain(3)
    save_prompt(tmp_path / "file.safetensors", one, one_config)
    save_prompt(tmp_path / "run" / BEST, three, three_config)
    torch.save(numbers(), tmp_path / "mnli_prompt.pt")
    found, names = load_sources([tmp_path / "mnli_prompt.pt", tmp_path / "run", tmp_path / "file.safetensors"])
    assert names == ["mnli", "rte", "cb", "wic", "rte"]
    assert torch.equal(found, torch.cat([numbers()[None], three.target, one.target]))
    assert not found.requires_grad


def test_sources_of_different_shapes_are_refused_with_both_shapes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pt", tmp_path / "b.npy"
    torch.save(torch.zeros(L, D), first)
    np.save(second, np.zeros((L, D + 1), np.float32))
    message = refused(second, lambda: load_sources([first, second]))
    assert str(first) in message and f"({L}, {D})" in message and f"({L}, {D + 1})" in message


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(D),
        torch.zeros(1, L, D),
        torch.tensor(1.0),
        torch.zeros(0, D),
        torch.zeros(L, D, dtype=torch.long),
        torch.zeros(L, D, dtype=torch.complex64),
        torch.full((L, D), torch.nan),
        torch.tensor([[1.0, torch.inf]]),
        {"prompt_embeddings": torch.zeros(L, D)},
        [torch.zeros(L, D)],
        None,
    ],
    ids=["1-D", "3-D", "0-D", "empty", "integers", "complex", "NaN", "infinity", "dict", "list", "none"],
)
def test_file_with_anything_but_one_finite_matrix_is_refused(value: object, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", lambda: load_sources([tmp_path / "a.pt"]))
    if isinstance(value, Tensor):
        np.save(tmp_path / "a.npy", value.numpy())
        refused(tmp_path / "a.npy", lambda: load_sources([tmp_path / "a.npy"]))


def test_checkpoint_with_nan_is_refused_as_a_source(tmp_path: Path) -> None:
    # of a run that diverged: its NaN would spread over every instance
    path = tmp_path / "p.safetensors"
    save_prompt(path, SoftPrompt(torch.full((1, L, D), torch.nan)), plain()[1])
    refused(path, lambda: load_sources([path]))


def test_attempt_run_is_refused_as_a_source(tmp_path: Path) -> None:
    save_prompt(tmp_path / BEST, *mixed())
    assert "attempt" in refused(tmp_path, lambda: load_sources([tmp_path]))


class Bomb:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("form", ["torch", "torch, old", "pickle", "numpy", "pickle named npy"])
def test_pickled_object_is_refused_and_not_executed(form: str, tmp_path: Path) -> None:
    trace, path = (
        tmp_path / "executed",
        tmp_path / ("a.npy" if form.startswith("n") or form.endswith("npy") else "a.pt"),
    )
    bomb = Bomb(trace)
    if form.startswith("torch"):
        torch.save(bomb, path, _use_new_zipfile_serialization="old" not in form)
    elif form == "numpy":
        np.save(path, np.array([bomb], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(bomb, protocol=2))
    refused(path, lambda: load_sources([path]))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["none.pt", "none.npy", "none.safetensors", "none"])
def test_missing_source_is_refused(name: str, tmp_path: Path) -> None:
    refused(tmp_path / name, lambda: load_sources([tmp_path / name]))


@pytest.mark.parametrize("name", ["a.pt", "a.npy"])
def test_cut_source_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save_bare(path, "npy" if name == "a.npy" else "plain")
    content = path.read_bytes()
    for length in (0, 1, 5, 20, 100, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, lambda: load_sources([path]))


def npy(header: str) -> bytes:
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1") + bytes(4 * L * D)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000, 8), }",  # more than any memory
        "((((",
        "{",
        "",
        pytest.param(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, -8), }",
            marks=pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.3.0", reason="older NumPy reads it as 8"),
        ),
        "{'descr': 'O', 'fortran_order': False, 'shape': (3, 8), }",
        "{'descr': '>f4', 'fortran_order': False, 'shape': (3, 9), }",
    ],
)
def test_numpy_file_with_a_damaged_header_is_refused(header: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(header))
    refused(path, lambda: load_sources([path]))


@pytest.mark.parametrize("name", ["a.pt", "a.npy", "a.safetensors"])
def test_flipped_bytes_never_raise_anything_but_our_error(name: str, tmp_path: Path) -> None:
    path, draw = tmp_path / name, random.Random(0)
    if name == "a.safetensors":
        save_prompt(path, *plain())
    else:
        save_bare(path, "npy" if name == "a.npy" else "plain")
    content = path.read_bytes()
    for _ in range(400):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            found, _ = load_sources([path])
        except AttemptError as e:
            assert str(path) in str(e)
        else:
            assert found.isfinite().all()


# ---- real files ----


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("attempt_record_t5_base.pt", 768),
        ("attempt_record_width1024.pt", 1024),
        ("google_mrpc_t5_1_1_lm100k_base.npy", 768),
        ("google_rte_t5_1_1_lm100k_base.npy", 768),
        ("google_sst2_t5_1_1_lm100k_base.npy", 768),
    ],
)
def test_released_prompts_are_read(name: str, width: int, fixtures: Path) -> None:
    path = fixtures / "prompts" / name
    found, names = load_sources([path])
    assert found.shape == (1, 100, width) and names == [path.stem]
    norms = found[0].norm(dim=1)
    if name.endswith(".npy"):
        assert torch.equal(found[0], torch.from_numpy(np.load(path)))
        assert 800 < norms.mean() < 1400  # the measured row norms, 870 to 1385
    elif width == 768:
        assert abs(found.std() - 1) < 0.05  # statistically N(0,1)


def test_released_prompts_of_one_model_are_mixed_and_saved(fixtures: Path, tmp_path: Path) -> None:
    paths = sorted((fixtures / "prompts").glob("google_*.npy"))
    sources, names = load_sources(paths)
    assert sources.shape == (3, 100, 768) and len(names) == 3
    prompt = SoftPrompt(sources[:1], sources, naive.mixture(D=768).attention)
    save_prompt(tmp_path / BEST, prompt, PromptConfig("attempt", "google/t5-base-lm-adapt", ["rte"], names, "words"))
    loaded, config = load_prompt(tmp_path)
    assert config.sources == names
    assert loaded.sources is not None and torch.equal(loaded.sources, sources)


def test_released_prompts_of_two_models_are_not_mixed(fixtures: Path) -> None:
    paths = [fixtures / "prompts" / f"attempt_record_{name}.pt" for name in ("t5_base", "width1024")]
    message = refused(paths[1], lambda: load_sources(paths))
    assert "(100, 768)" in message and "(100, 1024)" in message
