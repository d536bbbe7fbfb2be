"""Checkpoint files: every form of them is read, and everything that is wrong with one is told, never obeyed."""

import json
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hugging_face import CONFIGS, FORMS, random_batch, random_state, save
from torch import Tensor

from model.checkpoint import WEIGHT_FILES, find_checkpoint, hugging_face_names, load_t5, read_torch
from model.config import T5Config
from model.errors import AttemptError, NotFound
from model.safetensors import read_safetensors, safetensors_bytes
from model.t5 import T5

V10, V11 = CONFIGS["v1.0"], CONFIGS["v1.1"]


def assert_equal_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


# ---- safetensors, by hand ----


def some_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, 5, generator=generator) * 50
    kinds = {
        "f64": torch.float64,
        "f32": torch.float32,
        "f16": torch.float16,
        "bf16": torch.bfloat16,
        "i64": torch.int64,
        "i32": torch.int32,
        "i16": torch.int16,
        "i8": torch.int8,
        "bool": torch.bool,
    }
    tensors = {name: numbers.to(dtype) for name, dtype in kinds.items()}
    return tensors | {
        "u8": torch.arange(7, dtype=torch.uint8),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "a \"name\" of Ünïcode": torch.ones(1, 1, 2),
    }  # fmt: skip


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    library.save_file(some_tensors(), tmp_path / "x.safetensors", metadata={"format": "pt", "ä": "ö"})
    found, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert_equal_tensors(found, some_tensors())
    assert metadata == {"format": "pt", "ä": "ö"}


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors")
    # the odd sizes come last: the library, too, keeps wide numbers at whole multiples of their size
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(some_tensors(), {"method": "attempt", "ä": "ö"}))
    with library.safe_open(path, "pt") as file:
        assert_equal_tensors({name: file.get_tensor(name) for name in file.keys()}, some_tensors())  # noqa: SIM118
        assert file.metadata() == {"method": "attempt", "ä": "ö"}


def test_we_read_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    odd_first = dict(sorted(some_tensors().items(), key=lambda item: item[1].nbytes))
    path.write_bytes(safetensors_bytes(odd_first, {"steps": "3"}))
    found, metadata = read_safetensors(path)
    assert_equal_tensors(found, odd_first)
    assert list(found) == sorted(found, key=lambda name: list(odd_first).index(name)) and metadata == {"steps": "3"}


def test_writes_a_view_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    view = torch.arange(24.0).view(4, 6)[1:, ::2].T
    path.write_bytes(safetensors_bytes({"view": view, "trained": view.clone().requires_grad_()}, {}))
    assert torch.equal(read_safetensors(path)[0]["view"], view)
    assert path.stat().st_size < 500  # the view alone, not what it looks at


def test_writes_the_same_bytes_each_time() -> None:
    assert safetensors_bytes(some_tensors(), {"a": "b"}) == safetensors_bytes(some_tensors(), {"a": "b"})


def test_a_file_takes_no_more_memory_than_its_bytes() -> None:
    tensors = {str(i): torch.full((1 << 18,), i, dtype=torch.bfloat16) for i in range(8)}
    tracemalloc.start()
    content = safetensors_bytes(tensors, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(content) > 4 << 20 and peak < 1.1 * len(content)


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: object = "F32", shape: object = (2,), begin: object = 0, end: object = 8) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("padding", range(9))
def test_any_length_of_the_header(tmp_path: Path, padding: int) -> None:
    path = tmp_path / "x.safetensors"
    numbers = torch.tensor([1.5, -2.0])
    header = json.dumps({"a": entry()}).encode() + b" " * padding
    path.write_bytes(raw(header, numbers.numpy().tobytes()))
    found = read_safetensors(path)[0]["a"]
    assert torch.equal(found, numbers) and found.data_ptr() % 4 == 0  # some processors need aligned numbers


def test_changes_do_not_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"a": torch.zeros(4)}, {}))
    read_safetensors(path)[0]["a"].fill_(7)
    assert read_safetensors(path)[0]["a"].sum() == 0


EIGHT = b"\0" * 8
DAMAGED = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "no header": raw(b""),
    "huge header": raw({}, length=2**63),
    "largest header": raw({}, length=2**64 - 1),
    "header beyond the end": raw({"a": entry()}, EIGHT, length=1000),
    "header cut short": raw({"a": entry()}, EIGHT, length=20),
    "no JSON": raw(b"hello"),
    "no UTF-8": raw(b'{"\xff": 1}'),
    "NaN": raw(b"NaN"),
    "NaN as an entry": raw(b'{"a": NaN}'),
    "NaN as a size": raw(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}', EIGHT),
    "infinite offset": raw(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, Infinity]}}', EIGHT),
    "a list": raw([1, 2]),
    "null": raw(None),
    "a text": raw("text"),
    "deep lists": raw(b"[" * 200_000),
    "deep objects": raw(b'{"a":' * 200_000),
    "deep shape": raw(b'{"a": {"dtype": "F32", "data_offsets": [0, 8], "shape": ' + b"[" * 100_000 + b"}"),
    "number of many digits": raw(b'{"a": ' + b"9" * 100_000 + b"}"),
    "entry of a number": raw({"a": 3}),
    "entry of a list": raw({"a": [1]}),
    "no dtype": raw({"a": {"shape": [2], "data_offsets": [0, 8]}}, EIGHT),
    "no shape": raw({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, EIGHT),
    "no offsets": raw({"a": {"dtype": "F32", "shape": [2]}}, EIGHT),
    "unknown dtype": raw({"a": entry("F31")}, EIGHT),
    "dtype in small letters": raw({"a": entry("f32")}, EIGHT),
    "dtype of a list": raw({"a": entry(["F32"])}, EIGHT),
    "shape of a number": raw({"a": entry(shape=2)}, EIGHT),
    "shape of texts": raw({"a": entry(shape=["2"])}, EIGHT),
    "shape of fractions": raw({"a": entry(shape=[2.0])}, EIGHT),
    "shape of truths": raw({"a": entry(shape=[True, 2])}, EIGHT),
    "negative shape": raw({"a": entry(shape=[-2])}, EIGHT),
    "twice negative shape": raw({"a": entry(shape=[-1, -2])}, EIGHT),
    "shape too large": raw({"a": entry(shape=[3])}, EIGHT),
    "shape too small": raw({"a": entry(shape=[1])}, EIGHT),
    "shape beyond 64 bits": raw({"a": entry(shape=[2**62 + 1, 4])}, EIGHT),
    "empty but huge": raw({"a": entry(shape=[2**62, 2**62, 0], end=0)}),
    "empty beyond 64 bits": raw({"a": entry(shape=[2**70, 0], end=0)}),
    "dtype too large": raw({"a": entry("F64")}, EIGHT),
    "negative begin": raw({"a": entry(begin=-8, end=0)}, EIGHT),
    "negative both": raw({"a": entry(begin=-8, end=-16)}, EIGHT),
    "end before begin": raw({"a": entry(begin=8, end=0)}, EIGHT),
    "out of the file": raw({"a": entry(begin=8, end=16)}, EIGHT),
    "far out of the file": raw({"a": entry(begin=2**40, end=2**40 + 8)}, EIGHT),
    "offsets beyond 64 bits": raw({"a": entry(shape=[2**70], end=2**72)}, EIGHT),
    "one offset": raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, EIGHT),
    "three offsets": raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}, EIGHT),
    "offsets of texts": raw({"a": entry(begin="0", end="8")}, EIGHT),
    "offsets of an object": raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": {"0": 8}}}, EIGHT),
    "hole before": raw({"a": entry(begin=8, end=16)}, EIGHT * 2),
    "hole between": raw({"a": entry(), "b": entry(begin=16, end=24)}, EIGHT * 3),
    "rest after": raw({"a": entry()}, EIGHT + b"\0"),
    "same bytes twice": raw({"a": entry(), "b": entry()}, EIGHT),
    "overlap": raw({"a": entry(), "b": entry(begin=4, end=12)}, EIGHT * 2),
    "overlap as long as the data": raw({"a": entry(), "b": entry(begin=4, end=12)}, EIGHT + b"\0" * 4),
    "metadata of a list": raw({"__metadata__": [], "a": entry()}, EIGHT),
    "metadata of numbers": raw({"__metadata__": {"steps": 3}, "a": entry()}, EIGHT),
    "metadata of null": raw({"__metadata__": None, "a": entry()}, EIGHT),
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "pickle": pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_safetensors(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(AttemptError, match=r"x\.safetensors"):
        read_safetensors(path)


def test_safetensors_cut_at_every_byte(tmp_path: Path) -> None:
    whole = safetensors_bytes(some_tensors(), {"a": "b"})
    path = tmp_path / "x.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(AttemptError, match=r"x\.safetensors"):
            read_safetensors(path)


def readable(read: Callable[[Path], object], path: Path) -> bool:
    """Whether a file is read at all; any error but AttemptError fails the test."""
    try:
        read(path)
    except AttemptError as e:
        assert path.name in str(e) and "\n" not in str(e)
        return False
    return True


def test_safetensors_with_any_wrong_byte_in_the_header(tmp_path: Path) -> None:
    whole = safetensors_bytes({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int64)}, {"a": "b"})
    path = tmp_path / "x.safetensors"
    refused = 0
    for position in range(len(whole) - 56):
        for wrong in b'\x00\x80\xff09-"{[:,.e ':
            path.write_bytes(whole[:position] + bytes([wrong]) + whole[position + 1 :])
            refused += not readable(read_safetensors, path)
    assert refused > 1000  # the rest are other names and other spaces


def test_safetensors_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(AttemptError, match=path.name):
            read_safetensors(path)


# ---- torch.save, without its dangers ----


class Evil:
    """What runs a command when a careless program unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_pickle_is_not_obeyed(tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / "pytorch_model.bin", tmp_path / "executed"
    content = {"shared.weight": Evil(marker), "lm_head.weight": torch.ones(2)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(AttemptError, match=r"pytorch_model\.bin") as error:
        read_torch(path)
    assert not marker.exists() and "\n" not in str(error.value)
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert marker.exists()  # else this test would prove nothing


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_file_cut_anywhere(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "x.bin"
    torch.save({"a": torch.ones(5, 3), "b": torch.zeros(2)}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    assert readable(read_torch, path)
    for length in range(0, len(whole), 1 if legacy else 5):
        path.write_bytes(whole[:length])
        assert not readable(read_torch, path), length


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_file_with_any_wrong_byte(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "x.bin"
    torch.save({"a": torch.ones(5, 3), "b": torch.zeros(2)}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    failures: dict[str, list[int]] = {}
    for position in (i for i, byte in enumerate(whole) if byte):  # the zeros are nearly all padding
        for wrong in (0, 0xFF, whole[position] ^ 1):
            path.write_bytes(whole[:position] + bytes([wrong]) + whole[position + 1 :])
            try:
                readable(read_torch, path)
            except Exception as e:  # collected, so that the message tells all of them at once
                failures.setdefault(type(e).__name__, []).append(position)
    assert not failures


@pytest.mark.parametrize("content", [b"", b"\0", b"hello, world", b"PK\x03\x04", b"\x80\x02.", b"{}", b"\x80\x02}q\0."])
def test_no_torch_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    assert not readable(read_torch, tmp_path / "x.bin")


def test_torch_file_that_cannot_be_opened(tmp_path: Path) -> None:
    assert not readable(read_torch, tmp_path / "absent.bin")
    assert not readable(read_torch, tmp_path)


# ---- whole checkpoints ----


def logits(model: T5) -> Tensor:
    ids, mask = random_batch((9, 4), model.config.vocab_size)
    labels, _ = random_batch((5, 5), model.config.vocab_size, seed=1)
    with torch.no_grad():
        return model(ids, mask, labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fields", [V10, V11], ids=["v1.0", "v1.1"])
def test_every_form_gives_the_same_model(tmp_path: Path, fields: dict[str, Any], form: str, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in random_state(fields).items()}
    model = load_t5(save(tmp_path / "a", fields, state, form))
    assert not model.training
    names = hugging_face_names(model.config)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, state[names[name]].float())
    same = load_t5(save(tmp_path / "b", fields, {name: tensor.float() for name, tensor in state.items()}))
    assert torch.equal(logits(model), logits(same))


def test_every_parameter_has_a_name_in_the_files() -> None:
    for fields in CONFIGS.values():
        model = T5(T5Config(**{k: v for k, v in fields.items() if k in T5Config.__dataclass_fields__}))
        assert sorted(hugging_face_names(model.config)) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("form", FORMS)
def test_model_does_not_need_its_files(tmp_path: Path, form: str) -> None:
    model = load_t5(save(tmp_path, V11, random_state(V11), form))
    before = logits(model)
    with torch.no_grad():  # neither does it write into them
        for parameter in load_t5(tmp_path).parameters():
            parameter.zero_()
    assert torch.equal(logits(load_t5(tmp_path)), before)
    for file in tmp_path.iterdir():
        file.write_bytes(b"\0" * file.stat().st_size)  # the same file on the disk, other content
    assert torch.equal(logits(model), before)


def test_files_are_tried_in_order(tmp_path: Path) -> None:
    good = random_state(V11)
    save(tmp_path, V11, {}, "torch")
    save(tmp_path, V11, good, "safetensors")
    assert torch.equal(logits(load_t5(tmp_path)), logits(load_t5(save(tmp_path / "b", V11, good))))


NAME = "decoder.block.0.layer.1.EncDecAttention.k.weight"


@pytest.mark.parametrize("form", FORMS)
def test_missing_tensor_is_named(tmp_path: Path, form: str) -> None:
    state = random_state(V11)
    del state[NAME]
    with pytest.raises(AttemptError, match=NAME):
        load_t5(save(tmp_path, V11, state, form))


def test_many_missing_tensors_are_counted(tmp_path: Path) -> None:
    state = random_state(V10)
    with pytest.raises(AttemptError, match=rf"{len(state)} are missing.*shared\.weight"):
        load_t5(save(tmp_path, V10, {}))


@pytest.mark.parametrize("form", FORMS)
def test_unknown_tensor_is_named(tmp_path: Path, form: str) -> None:
    state = random_state(V11) | {"encoder.block.2.layer.0.SelfAttention.q.weight": torch.ones(80, 32)}
    with pytest.raises(AttemptError, match=r"encoder\.block\.2\.layer\.0\.SelfAttention\.q\.weight"):
        load_t5(save(tmp_path, V11, state, form))


@pytest.mark.parametrize("wrong", [torch.ones(80, 33), torch.ones(80 * 32), torch.ones(32, 80), torch.tensor(1.0)])
def test_misshapen_tensor_is_named(tmp_path: Path, wrong: Tensor) -> None:
    with pytest.raises(AttemptError, match=f"{NAME}.*80, 32"):
        load_t5(save(tmp_path, V11, random_state(V11) | {NAME: wrong}))


def test_tensor_of_integers_is_named(tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match=NAME):
        load_t5(save(tmp_path, V11, random_state(V11) | {NAME: torch.ones(80, 32, dtype=torch.int8)}))


@pytest.mark.parametrize("form", ["safetensors-sharded", "torch-sharded"])
def test_tensor_in_two_shards_is_named(tmp_path: Path, form: str) -> None:
    state = random_state(V11)
    save(tmp_path, V11, state, form)
    shards = sorted(file for file in tmp_path.iterdir() if "-of-" in file.name)
    if form == "torch-sharded":
        first, second = (torch.load(file, weights_only=True) for file in shards[:2])
        torch.save(second | {next(iter(first)): next(iter(first.values()))}, shards[1])
        name = next(iter(first))
    else:
        first, second = (read_safetensors(file)[0] for file in shards[:2])
        name = next(iter(first))
        shards[1].write_bytes(safetensors_bytes(second | {name: first[name]}, {}))
    with pytest.raises(AttemptError, match=name):
        load_t5(tmp_path)


@pytest.mark.parametrize("form", ["safetensors", "safetensors-sharded", "torch", "torch-sharded"])
def test_weights_cut_short(tmp_path: Path, form: str) -> None:
    save(tmp_path, V11, random_state(V11), form)
    file = max(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(AttemptError, match=file.name):
        load_t5(tmp_path)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    save(tmp_path, V11, random_state(V11), "safetensors-sharded")
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(AttemptError, match="model-00002-of-00003"):
        load_t5(tmp_path)


@pytest.mark.parametrize("copy", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"])
def test_copies_of_the_embedding_must_be_equal(tmp_path: Path, copy: str) -> None:
    state = random_state(V11)
    expected = logits(load_t5(save(tmp_path / "a", V11, state)))
    equal = state | {copy: state["shared.weight"].clone()}
    assert torch.equal(logits(load_t5(save(tmp_path / "b", V11, equal))), expected)
    for other in (state["shared.weight"] + 1, state["shared.weight"][:-1], torch.ones(2)):
        with pytest.raises(AttemptError, match=copy):
            load_t5(save(tmp_path / "c", V11, state | {copy: other}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_copies_in_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in random_state(V10).items()}
    copies = {"encoder.embed_tokens.weight": state["shared.weight"], "lm_head.weight": state["shared.weight"]}
    load_t5(save(tmp_path, V10, state | copies))


def test_copy_of_the_embedding_as_a_head(tmp_path: Path) -> None:
    state = random_state(V10)
    equal = state | {"lm_head.weight": state["shared.weight"].clone()}
    assert torch.equal(
        logits(load_t5(save(tmp_path / "a", V10, equal))), logits(load_t5(save(tmp_path / "b", V10, state)))
    )


@pytest.mark.parametrize("fields", [V10, V11], ids=["v1.0", "v1.1"])
def test_bias_of_cross_attention_has_no_effect(tmp_path: Path, fields: dict[str, Any]) -> None:
    state = random_state(fields)
    bias = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(32, 4)}
    found = logits(load_t5(save(tmp_path / "a", fields, state | bias)))
    assert torch.equal(found, logits(load_t5(save(tmp_path / "b", fields, state))))


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), {"state_dict": {}}, {"a": 1}, None, 3, "text"])
def test_torch_file_of_something_else(tmp_path: Path, content: object) -> None:
    save(tmp_path, V11, {})
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(AttemptError, match=r"pytorch_model\.bin"):
        load_t5(tmp_path)


def test_keys_that_are_no_texts(tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match=r"pytorch_model\.bin"):
        load_t5(save(tmp_path, V11, random_state(V11) | {3: torch.ones(2)}))  # type: ignore[dict-item]


def test_folder_without_weights(tmp_path: Path) -> None:
    save(tmp_path, V11, {})
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(AttemptError, match=r"model\.safetensors.*pytorch_model\.bin"):
        load_t5(tmp_path)


@pytest.mark.parametrize("size", ["d_model", "num_layers", "vocab_size"])
def test_sizes_that_no_machine_has(tmp_path: Path, size: str) -> None:
    value = 2**62 if size != "num_layers" else 3  # as many layers as no file has; 2**62 would take for ever
    with pytest.raises(AttemptError):
        load_t5(save(tmp_path, V11 | {size: value}, random_state(V11)))


INDEXES = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "no map": "{}",
    "empty map": '{"weight_map": {}}',
    "map of a list": '{"weight_map": ["a.bin"]}',
    "numbers": '{"weight_map": {"a": 1}}',
    "numbers and names": '{"weight_map": {"a": 1, "b": "a.bin"}}',
    "lists": '{"weight_map": {"a": ["a.bin"]}}',
    "null": '{"weight_map": {"a": null}}',
    "deep": "[" * 100_000,
    "the folder above": '{"weight_map": {"a": "../secret.bin"}}',
    "a folder below": '{"weight_map": {"a": "below/secret.bin"}}',
    "an absolute path": '{"weight_map": {"a": "/etc/passwd"}}',
    "two dots": '{"weight_map": {"a": ".."}}',
    "a name of 300 characters": '{"weight_map": {"a": "' + "9" * 300 + '.bin"}}',
    "one dot": '{"weight_map": {"a": "."}}',
    "no name": '{"weight_map": {"a": ""}}',
}


@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize("ending", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_index(tmp_path: Path, kind: str, ending: str) -> None:
    folder = tmp_path / "checkpoint"
    for place in (tmp_path, folder / "below"):  # what such an index would like to have read
        place.mkdir(parents=True, exist_ok=True)
        torch.save(random_state(V11), place / "secret.bin")
    (folder / "config.json").write_text(json.dumps(V11))
    (folder / f"{ending}.index.json").write_text(INDEXES[kind])
    with pytest.raises(AttemptError, match=r"index\.json"):
        load_t5(folder)


def test_shard_with_an_impossible_name(tmp_path: Path) -> None:
    save(tmp_path, V11, random_state(V11), "torch-sharded")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "a\0.bin"}}))
    with pytest.raises(AttemptError):
        load_t5(tmp_path)


# ---- finding them ----


class Server:
    """Stands for Hugging Face's: has some files, and remembers which addresses were asked for."""

    def __init__(self, folder: Path, *files: str) -> None:
        self.folder, self.asked = folder, []
        for file in files:
            (folder / file).write_text("{}")

    def __call__(self, address: str) -> Path:
        self.asked.append(address)
        path = self.folder / address.rsplit("/", 1)[1]
        if not path.is_file():
            raise NotFound(f"no file {address}")
        return path


def asked_for(name: str, *files: str) -> list[str]:
    return [f"https://huggingface.co/{name}/resolve/main/{file}" for file in files]


def test_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    server = Server(tmp_path)
    assert find_checkpoint(str(tmp_path), server) == tmp_path and not server.asked


@pytest.mark.parametrize("name", ["t5-base", "google/t5-v1_1-xl", "google/t5-small-lm-adapt", "google/flan-t5-xxl"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_known_name_is_fetched(tmp_path: Path, name: str, file: str) -> None:
    server = Server(tmp_path, "config.json", "spiece.model", file)
    assert find_checkpoint(name, server) == tmp_path
    tried = WEIGHT_FILES[: WEIGHT_FILES.index(file) + 1]
    assert server.asked == asked_for(name, "config.json", "spiece.model", *tried)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_every_shard_is_fetched(tmp_path: Path, file: str) -> None:
    server = Server(tmp_path, "config.json", "spiece.model", "a.bin", "b.bin")
    index = f"{file}.index.json"
    (tmp_path / index).write_text('{"weight_map": {"x": "b.bin", "y": "a.bin", "z": "b.bin"}}')
    assert find_checkpoint("t5-3b", server) == tmp_path
    assert server.asked[-3:] == asked_for("t5-3b", index, "a.bin", "b.bin")


@pytest.mark.parametrize("missing", ["config.json", "spiece.model", "a.bin", "model.safetensors.index.json"])
def test_file_that_the_server_lacks_is_named(tmp_path: Path, missing: str) -> None:
    server = Server(tmp_path, "config.json", "spiece.model", "a.bin")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "a.bin"}}')
    (tmp_path / missing).unlink()
    with pytest.raises(NotFound, match=f"t5-3b.*{missing}"):
        find_checkpoint("t5-3b", server)


def test_trouble_on_the_way_is_not_taken_for_an_absent_file(tmp_path: Path) -> None:
    def fetch(address: str) -> Path:
        if address.endswith("model.safetensors"):
            raise AttemptError("no network")
        return server(address)

    server = Server(tmp_path, "config.json", "spiece.model", "pytorch_model.bin")
    with pytest.raises(AttemptError, match="no network"):
        find_checkpoint("t5-base", fetch)


@pytest.mark.parametrize("shard", ["../x.bin", "..", ".", "", "/x.bin", "a/x.bin"])
def test_no_odd_shard_is_fetched(tmp_path: Path, shard: str) -> None:
    server = Server(tmp_path, "config.json", "spiece.model")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
    with pytest.raises(AttemptError, match=r"index\.json"):
        find_checkpoint("t5-3b", server)
    assert server.asked[-1].endswith("index.json")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("t5-bsae", "t5-base"),
        ("google/t5-v1.1-base", "google/t5-v1_1-base"),
        ("flan-t5-small", "google/flan-t5-small"),
        ("t5-base-lm-adapt", "google/t5-base-lm-adapt"),
    ],
)
def test_unknown_name_gets_a_hint(tmp_path: Path, name: str, near: str) -> None:
    server = Server(tmp_path)
    with pytest.raises(AttemptError, match=f"{name}.*{near}"):
        find_checkpoint(name, server)
    assert not server.asked


def test_name_like_no_other_gets_the_list(tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match=r"t5-small.*google/flan-t5-xxl"):
        find_checkpoint("/no/such/folder", Server(tmp_path))
