"""Other programs' layouts, made here as they are described: what is read, and what is refused on one line."""

import json
import math
import random
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attempt.checkpoint import load_prompt, load_sources
from attempt.exchange.exchange import import_run
from attempt.foreign import read_foreign
from attempt.prompt import SoftPrompt
from model.errors import AttemptError
from model.safetensors import safetensors_bytes

L, D, R, S = 3, 8, 5, 2
LENGTHS = [5, 2, 7, 3]
SEQ2SEQ = {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": L}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def g_tensors() -> dict[str, Tensor]:
    return {
        "attn_W_down": numbers(R, D, seed=1),
        "attn_W_up": numbers(D, R, seed=2),
        "layer_norm.weight": numbers(D, seed=3),
        "layer_norm.bias": numbers(D, seed=4),
    }


def authors_run(folder: Path, tasks: list[str], norm: bool = True) -> Path:
    """The folder that ATTEMPT's program writes; prompts and G are Parameters, prompts views on one tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = nn.Parameter(numbers(max(1, len(tasks)), L, D, seed=5))
    if tasks:
        for i, task in enumerate(tasks):
            torch.save(shared[i], folder / f"prefix_embeddings_{task}.pt")
    else:
        torch.save(nn.Parameter(shared.detach()[0]), folder / "prefix_embeddings.pt")
    for name, tensor in g_tensors().items():
        if norm or not name.startswith("layer_norm"):
            torch.save(nn.Parameter(tensor), folder / f"{name.replace('.', '_')}.pt")
    return folder


def replication(rows: int, K: int = 0, flat: bool = False) -> dict[str, Any]:
    """The content of an adapter_model.bin of the replication; K = 0 is one prompt (rows,D)."""
    g = {name + ("" if "." in name else ".weight"): tensor for name, tensor in g_tensors().items()}
    inner = OrderedDict({f"peft.{k}": v for k, v in {"mul_prefix_emb": numbers(S, rows, D, seed=6), **g}.items()})
    prompts = numbers(*([K] if K else []), rows, D, seed=7)
    if flat:
        return {"prompt_embeddings": prompts, **{f"attention_module.{k}": v for k, v in inner.items()}}
    return {"prompt_embeddings": prompts, "attention_module": inner}


def write_adapter(folder: Path, content: Any, config: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "adapter_model.bin")
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def expected_prompt(
    table: Tensor, ids: Tensor, sources: Tensor, target: Tensor, g: dict[str, Tensor], temperature: float
) -> np.ndarray:
    """P_instance (B,L,D) in float64, from the tensors that were written; target is (B,L,D)."""
    texts = [naive.float64(table[row[:n]]) for row, n in zip(ids, LENGTHS, strict=True)]
    h = naive.hidden(naive.pooled(texts), *map(naive.float64, g.values()))
    Q = naive.float64(target)
    return naive.mixed(naive.weights(h, naive.float64(sources), Q, temperature), naive.float64(sources), Q)


def instance_prompt(prompt: SoftPrompt, tasks: Tensor | None = None) -> tuple[Tensor, Tensor, np.ndarray]:
    """The embedding, the ids of a padded batch, and what the encoder reads in front of it (B,L,D)."""
    model = naive.tiny_t5().double()
    ids, mask, _ = naive.batch(LENGTHS)
    seen = naive.encoder_input(model, ids, mask, prompt.double(), tasks)
    return model.embedding.weight, ids, naive.float64(seen[:, :L])


def check_mixture(run: Path, sources: Tensor, target: Tensor, g: dict[str, Tensor], T: float = D * math.e) -> None:
    """The imported run's prompts for a padded batch of all its tasks (K,L,D) are the recomputed ones."""
    tasks = torch.tensor([2, 0, 1, 2]) % len(target)
    table, ids, found = instance_prompt(load_prompt(run)[0], tasks)
    expected = expected_prompt(table, ids, sources, target[tasks], g, T)
    assert np.abs(found - expected).max() < 1e-12
    plain = naive.float64(target[tasks])
    assert np.abs(found - plain).max() > 0.1  # the sources take part


# ---- ATTEMPT's own program ----


@pytest.mark.parametrize("norm", [True, False], ids=["norm saved", "norm at 1/0"])
@pytest.mark.parametrize("K", [0, 3], ids=["one task", "three tasks"])
def test_authors_run_becomes_the_mixture_that_it_was(K: int, norm: bool, tmp_path: Path) -> None:
    names = ["wic", "cb", "boolq"][:K]
    folder = authors_run(tmp_path / "saved", names, norm)
    sources = numbers(S, L, D, seed=8)
    paths = [tmp_path / "mnli_prompt.pt", tmp_path / "sst2.npy"]
    torch.save(sources[0], paths[0])
    np.save(paths[1], sources[1].numpy())
    import_run(folder, "t5-base", names or ["rte"], tmp_path / "run", [str(path) for path in paths])
    g = g_tensors() if norm else g_tensors() | {"layer_norm.weight": torch.ones(D), "layer_norm.bias": torch.zeros(D)}
    check_mixture(tmp_path / "run", sources, numbers(max(1, K), L, D, seed=5), g)
    assert load_prompt(tmp_path / "run")[1].sources == ["mnli", "sst2"]


def test_sources_keep_their_order(tmp_path: Path) -> None:
    # G does not depend on it, the names beside the weights do
    folder = authors_run(tmp_path / "saved", [])
    for name in ("b", "a"):
        torch.save(numbers(L, D, seed=ord(name)), tmp_path / f"{name}_prompt.pt")
    import_run(folder, "t5-base", ["rte"], tmp_path / "run", [str(tmp_path / f"{n}_prompt.pt") for n in ("b", "a")])
    prompt, config = load_prompt(tmp_path / "run")
    assert config.sources == ["b", "a"] and prompt.sources is not None
    assert torch.equal(prompt.sources[0], numbers(L, D, seed=ord("b")))


def test_temperature_and_padding_of_the_authors_program_can_be_asked_for(tmp_path: Path) -> None:
    folder = authors_run(tmp_path / "saved", [])
    torch.save(numbers(L, D), tmp_path / "mnli.pt")
    import_run(
        folder, "t5-base", ["rte"], tmp_path / "run", [str(tmp_path / "mnli.pt")], temperature=2087, pool_pads=True
    )
    G = load_prompt(tmp_path / "run")[0].attention
    assert G is not None and G.temperature == 2087 and G.pool_pads


def test_numbered_prompts_of_the_authors_checkpoints_come_in_their_order(tmp_path: Path) -> None:
    folder = authors_run(tmp_path / "saved", [str(i) for i in range(11)])
    found = read_foreign(folder)
    assert torch.equal(found.target, numbers(11, L, D, seed=5)) and found.tasks == []


@pytest.mark.parametrize("names", [[], ["cb", "wic"]], ids=["one", "two"])
def test_authors_run_without_g_is_a_source(names: list[str], tmp_path: Path) -> None:
    folder = authors_run(tmp_path / "sst2-v1.0", names)
    with pytest.raises(AttemptError, match="depends on the instance"):
        load_sources([folder])
    for file in folder.glob("[al]*.pt"):
        file.unlink()
    found, found_names = load_sources([folder])
    assert torch.equal(found, numbers(max(1, len(names)), L, D, seed=5)) and found_names == (names or ["sst2-v1.0"])
    assert found.untyped_storage().nbytes() == found.numel() * 4


# ---- the replication ----


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("K", [0, 3], ids=["one task", "three tasks"])
@pytest.mark.parametrize("said", ["config", "config in small letters", "flag"])
def test_replications_adapter_becomes_the_mixture_that_it_was(K: int, flat: bool, said: str, tmp_path: Path) -> None:
    content = replication(2 * L, K, flat)
    config: dict[str, Any] | None = {"peft_type": "ATTEMPT", **SEQ2SEQ, "num_transformer_submodules": 2}
    if said == "config in small letters":
        config = {"peft_type": "attempt", "task_type": "seq_2_seq_lm", "num_virtual_tokens": L, "temperature": 3.5}
    folder = write_adapter(tmp_path / "saved", content, None if said == "flag" else config)
    tasks = ["rte", "cb", "wic"][: K or 1]
    length = L if said == "flag" else None
    found = import_run(folder, "t5-base", tasks, tmp_path / "run", prompt_length=length)
    assert len(found.notes) == 1 and "never prepended" in found.notes[0]
    inner = {
        k.removeprefix("attention_module."): v for k, v in (content if flat else content["attention_module"]).items()
    }
    target = content["prompt_embeddings"].reshape(-1, 2 * L, D)[:, :L]
    sources = inner["peft.mul_prefix_emb"][:, :L]
    T = 3.5 if said == "config in small letters" else D * math.e
    check_mixture(tmp_path / "run", sources, target, g_tensors(), T)
    assert load_prompt(tmp_path / "run")[1].sources == ["source1", "source2"]


def test_adapter_file_is_read_like_its_folder(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "saved", replication(2 * L), {"peft_type": "ATTEMPT", **SEQ2SEQ})
    assert torch.equal(read_foreign(folder).target, read_foreign(folder / "adapter_model.bin").target)


def test_replications_plain_prompts_are_sources(tmp_path: Path) -> None:
    content = {"prompt_embeddings": numbers(2, 2 * L, D)}
    config = {"peft_type": "prompt_tuning", "task_type": "seq_2_seq_lm", "num_virtual_tokens": L}
    found, names = load_sources([write_adapter(tmp_path / "both", content, config)])
    assert torch.equal(found, content["prompt_embeddings"][:, :L]) and names == ["both-0", "both-1"]


# ---- how many rows were used ----


def test_nobody_guesses_how_many_rows_were_used(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "saved", {"prompt_embeddings": numbers(100, D)})
    with pytest.raises(AttemptError, match="--prompt-length 100, or 50") as caught:
        read_foreign(folder)
    assert "\n" not in str(caught.value)
    assert torch.equal(read_foreign(folder, 50).target[0], numbers(100, D)[:50])
    assert torch.equal(read_foreign(folder, 100).target[0], numbers(100, D))


def test_an_odd_number_of_rows_cannot_be_doubled(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "saved", {"prompt_embeddings": numbers(7, D)})
    assert read_foreign(folder).target.shape == (1, 7, D)


@pytest.mark.parametrize(
    ("rows", "config", "asked"),
    [
        (2 * L, {"peft_type": "PROMPT_TUNING", **SEQ2SEQ}, L + 1),
        (L, {"peft_type": "PROMPT_TUNING", **SEQ2SEQ}, None),  # the default asks for two submodules
        (2 * L, {"peft_type": "PROMPT_TUNING", **SEQ2SEQ, "num_transformer_submodules": 1}, None),
        (L - 1, {"peft_type": "PROMPT_TUNING", **SEQ2SEQ, "num_transformer_submodules": 1}, None),
        (4, None, 5),
    ],
)
def test_rows_that_contradict_the_configuration_are_refused(
    rows: int, config: dict[str, Any] | None, asked: int | None, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "saved", {"prompt_embeddings": numbers(rows, D)}, config)
    refused(folder, lambda: read_foreign(folder, asked))


def test_a_bare_prompt_is_never_cut(tmp_path: Path) -> None:
    torch.save(numbers(L, D), tmp_path / "a.pt")
    assert read_foreign(tmp_path / "a.pt", L).target.shape == (1, L, D)
    refused(tmp_path, lambda: read_foreign(tmp_path / "a.pt", L - 1))


# ---- damage ----


def refused(path: Path, action: Callable[[], object]) -> str:
    with pytest.raises(AttemptError) as caught:
        action()
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


SPOILED: dict[str, Callable[[Tensor], object]] = {
    "NaN": lambda t: t / 0 * 0,
    "infinity": lambda t: t / 0,
    "too wide": lambda t: torch.cat([t, t], -1),
    "too long": lambda t: torch.cat([t, t], -2 if t.ndim > 1 else 0),
    "another rank": lambda t: t[None],
    "integers": lambda t: t.long(),
    "list": lambda t: t.tolist(),
    "text": lambda t: "x",
    "none": lambda t: None,
    "sparse": lambda t: t.to_sparse(),
    "empty": lambda t: t[..., :0],
}
G_FILES = ["attn_W_down.pt", "attn_W_up.pt", "layer_norm_weight.pt", "layer_norm_bias.pt"]


@pytest.mark.parametrize("damage", SPOILED)
@pytest.mark.parametrize("name", [*G_FILES, "prefix_embeddings_wic.pt"])
def test_damaged_tensor_of_the_authors_is_refused(name: str, damage: str, tmp_path: Path) -> None:
    folder = authors_run(tmp_path / "saved", ["cb", "wic"])
    read_foreign(folder)
    tensor = torch.load(folder / name).detach()
    torch.save(SPOILED[damage](tensor), folder / name)
    refused(folder, lambda: read_foreign(folder))


@pytest.mark.parametrize("name", G_FILES)
def test_missing_or_cut_file_of_the_authors_is_refused(name: str, tmp_path: Path) -> None:
    folder = authors_run(tmp_path / "saved", [])
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert name in refused(folder, lambda: read_foreign(folder))
    (folder / name).unlink()
    assert name in refused(folder, lambda: read_foreign(folder))


@pytest.mark.parametrize("extra", ["prefix_embeddings_cb.pt", "attn_Wa_weights.pt"])
def test_ambiguous_folder_of_the_authors_is_refused(extra: str, tmp_path: Path) -> None:
    # prompts of two runs; the G of another variant
    folder = authors_run(tmp_path / "saved", [])
    shutil.copy(folder / "attn_W_down.pt", folder / extra)
    refused(folder, lambda: read_foreign(folder))


ATTEMPT = {"peft_type": "ATTEMPT", **SEQ2SEQ}
NAMES = ["prompt_embeddings", *(name for name in replication(L, flat=True) if name != "prompt_embeddings")]


@pytest.mark.parametrize("damage", SPOILED)
@pytest.mark.parametrize("name", NAMES)
def test_damaged_tensor_of_the_replication_is_refused(name: str, damage: str, tmp_path: Path) -> None:
    content = replication(2 * L, K=2, flat=True)
    folder = write_adapter(tmp_path / "saved", content, ATTEMPT)
    read_foreign(folder)
    write_adapter(folder, content | {name: SPOILED[damage](content[name])})
    refused(folder, lambda: read_foreign(folder))


@pytest.mark.parametrize("name", NAMES)
def test_missing_or_unknown_tensor_of_the_replication_is_refused(name: str, tmp_path: Path) -> None:
    content = replication(2 * L, flat=True)
    folder = write_adapter(tmp_path / "saved", {k: v for k, v in content.items() if k != name}, ATTEMPT)
    assert name.removeprefix("attention_module.peft.") in refused(folder, lambda: read_foreign(folder))
    write_adapter(folder, content | {name + "2": content[name]}, ATTEMPT)
    assert name.removeprefix("attention_module.peft.") + "2" in refused(folder, lambda: read_foreign(folder))


@pytest.mark.parametrize("content", [[numbers(L, D)], numbers(L, D), {}, None, 5, {"attention_module": {}}, {1: 2}])
def test_adapter_without_a_dictionary_of_tensors_is_refused(content: object, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "saved", content, ATTEMPT)
    refused(folder, lambda: read_foreign(folder))


@pytest.mark.parametrize(
    "change",
    [
        {"num_virtual_tokens": "3"},
        {"num_virtual_tokens": True},
        {"num_virtual_tokens": 0},
        {"num_virtual_tokens": 3.0},
        {"num_transformer_submodules": 0},
        {"num_transformer_submodules": [2]},
        {"task_type": "CAUSAL_LM"},
        {"task_type": ["SEQ_2_SEQ_LM"]},
        {"peft_type": "LORA"},
        {"peft_type": "PREFIX_TUNING"},  # the same tensor's name, another meaning
        {"peft_type": 7},
        {"temperature": -1},
        {"temperature": "2000"},
        {"temperature": float("nan")},
    ],
    ids=str,
)
def test_wrong_field_in_an_adapters_configuration_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "saved", replication(2 * L), ATTEMPT | change)
    message = refused(folder / "adapter_config.json", lambda: read_foreign(folder))
    assert next(iter(change)) in message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", "\udcff", "[" * 100_000], ids=lambda t: t[:3] or "empty")
def test_configuration_that_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "saved", replication(2 * L))
    (folder / "adapter_config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(folder / "adapter_config.json", lambda: read_foreign(folder))


@pytest.mark.parametrize(
    "shapes",
    [
        {"prefix_task_cols": (2, 2 * L + 1, R)},
        {"prefix_task_cols": (2, 2 * L, R + 1)},
        {"prefix_task_cols": (2 * L, R)},
        {"prefix_task_rows": (3, R, D)},
        {"prefix_task_rows": (2, R, D + 1)},
        {"prompt_embeddings": (2, 2 * L, D)},
        {"prompt_embeddings": (2 * L + 2, D)},
    ],
    ids=str,
)
def test_multitask_factors_that_do_not_fit_are_refused(shapes: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    good = {"prompt_embeddings": (2 * L, D), "prefix_task_cols": (2, 2 * L, R), "prefix_task_rows": (2, R, D)}
    folder, config = tmp_path / "saved", {"peft_type": "MULTITASK_PROMPT_TUNING", **SEQ2SEQ}
    write_adapter(folder, {name: numbers(*shape) for name, shape in good.items()}, config)
    assert read_foreign(folder).target.shape == (2, L, D)
    write_adapter(folder, {name: numbers(*shape) for name, shape in (good | shapes).items()}, config)
    refused(folder, lambda: read_foreign(folder))


@pytest.mark.parametrize("names", ["{", '["a"]', '["a", 5]', "5", '"ab"'])
def test_damaged_names_in_the_metadata_are_refused(names: str, tmp_path: Path) -> None:
    content = {"prompt_embeddings": numbers(2, L, D)}
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(safetensors_bytes(content, {"attempt.tasks": '["a", "b"]'}))
    assert read_foreign(path).tasks == ["a", "b"]
    path.write_bytes(safetensors_bytes(content, {"attempt.tasks": names}))
    refused(path, lambda: read_foreign(path))


@pytest.mark.parametrize("name", ["none", "none.pt", "none.bin", "none.safetensors", "none.npy", "empty"])
def test_missing_file_and_empty_folder_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / name, lambda: read_foreign(tmp_path / name))
    (tmp_path / "empty/adapter_config.json").write_text(json.dumps(ATTEMPT))  # without its tensors
    refused(tmp_path / name, lambda: read_foreign(tmp_path / name))
    refused(tmp_path / name, lambda: load_sources([tmp_path / name]))


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_config.json", "adapter_model.safetensors"])
def test_flipped_bytes_never_raise_anything_but_our_error(name: str, tmp_path: Path) -> None:
    draw, content = random.Random(0), {"prompt_embeddings": numbers(2 * L, D)}
    folder = write_adapter(tmp_path / "saved", content, {"peft_type": "PROMPT_TUNING", **SEQ2SEQ})
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(content, {"attempt.tasks": '["a"]'}))
    if name.endswith(".bin"):
        (folder / "adapter_model.safetensors").unlink()
    good = (folder / name).read_bytes()
    for _ in range(300):
        bad = bytearray(good)
        bad[draw.randrange(len(good))] = draw.randrange(256)
        (folder / name).write_bytes(bad)
        try:
            found = read_foreign(folder)
        except AttemptError as e:
            assert str(folder) in str(e) and "\n" not in str(e)
        else:
            assert found.target.isfinite().all()
