"""Damages to PyTorch's files: zips, pickles, and other objects in the place of tensors; and which suit which file."""

import io
import pickletools
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from damage import ODD, Damage, any_of, json_lines, json_text, npy, numbers, protobuf, safetensors
from fuzz_files import mutated
from torch import Tensor

EVIL = (  # what a pickle may do to a reader that executes it: make a folder
    b"\x80\x02cposix\nmkdir\nX\x06\0\0\0marker\x85R.",
    b"\x80\x02c__builtin__\nexec\nX\x1e\0\0\0import os; os.mkdir('marker')  \x85R.",
    b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93\x8c\x06marker\x85R.",
    b"\x80\x02ctorch.serialization\nload\nX\x06\0\0\0marker\x85R.",
    b"\x80\x02ctorch\nset_default_dtype\nctorch\nfloat64\n\x85R.",
    b"\x80\x02cbuiltins\ngetattr\n\x8c\x02os\x8c\x06system\x86R.",
    b"(iposix\nmkdir\n.",
)


def pickled(content: bytes, draw: random.Random) -> bytes:
    """Another pickle: other names, numbers, opcodes that are gone, doubled or in another order; or one that acts."""
    if draw.random() < 0.1:
        return draw.choice(EVIL)
    try:
        places = [at for _, _, at in pickletools.genops(content) if at is not None]
    except ValueError:  # of several pickles in a row the first alone counts
        return mutated(content, draw)
    ends = [*places[1:], len(content)]
    pieces = [content[a:b] for a, b in zip(places, ends, strict=True)]
    for _ in range(draw.choice((1, 1, 2, 5))):
        i, j = draw.randrange(len(pieces)), draw.randrange(len(pieces))
        kind, piece = draw.randrange(8), pieces[i]
        if kind == 0:
            pieces[i] = b""
        elif kind == 1:
            pieces[i] = piece * (draw.choice((2, 100, 10_000)) if len(piece) < 50 else 2)
        elif kind in (2, 3):
            pieces[i] = pieces[j]
        elif kind == 4:
            pieces[i] = piece + draw.choice(
                (b"N", b"]", b"}", b"(", b"0", b"K\x05", b"\x8a\x08" + b"\x7f" * 8, b"\x85", b"R", b"Q")
            )
        else:
            pieces[i] = _other_argument(piece, draw)
    return b"".join(pieces)


def _other_argument(piece: bytes, draw: random.Random) -> bytes:
    """An opcode with another number or name."""
    code = piece[:1]
    if code == b"c":
        names = (b"cbuiltins\neval\n", b"ctorch\nLongStorage\n", b"ctorch\nfloat64\n", b"ccollections\nOrderedDict\n",
                 b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_sparse_tensor\n",
                 b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n", b"ctorch\nBoolStorage\n", b"ctorch\nSize\n",
                 b"ctorch._utils\n_rebuild_parameter\n", b"ctorch._tensor\n_rebuild_from_type_v2\n",
                 b"cx" * 500 + b"\n\xff\n")  # fmt: skip
        return draw.choice(names)
    if code in (b"K", b"M", b"J"):
        size = {b"K": 1, b"M": 2, b"J": 4}[code]
        big = (b"J\xff\xff\xff\x7f", b"J\0\0\0\x80", b"\x8a\x05\0\0\0\0\x40", b"\x8a\x08" + b"\xff" * 7 + b"\x7f")
        return draw.choice(
            (code + draw.randbytes(size), *big, b"K\0", b"K\x01", b"G\x7f\xf8" + bytes(6), b"N", b"X\0\0\0\0")
        )
    if code == b"X":
        return draw.choice(
            (b"X\0\0\0\0", b"X\xff\xff\xff\x7f", b"X\x04\0\0\0cuda", b"X\x04\0\0\0meta", b"X\x03\0\0\0\x1b[m", b"N")
        )
    return draw.choice((b"", piece[:-1], piece + b"\0"))


def torch_zip(content: bytes, draw: random.Random) -> bytes:
    """Members that are gone, cut, renamed, doubled, packed, or longer than they are; another pickle; other numbers."""
    if content[:2] != b"PK":
        return pickled(content, draw)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    packing, names = zipfile.ZIP_STORED, [name for name, _ in members]
    i = draw.choice([i for i, name in enumerate(names) if "/data" in name] or [0])
    name, inside = members[i]
    kind = draw.randrange(9)
    if kind == 0:
        del members[i]
    elif kind == 1:
        members[i] = (name, inside[: draw.randrange(len(inside) + 1)])
    elif kind == 2:
        members[i] = (draw.choice((name + "x", "../../x", "/x/data.pkl", "archive/data/99", "\x1b[31m", "é")), inside)
    elif kind == 3:
        members.append(draw.choice(((name, b"x"), ("other/data.pkl", inside), ("archive/version", b"999999999999"))))
    elif kind == 4:
        packing = zipfile.ZIP_DEFLATED
        members[i] = (name, inside + bytes(draw.choice((0, 0, 300_000_000))) if draw.random() < 0.02 else inside)
    elif kind == 5 and "data.pkl" not in name:
        members[i] = (name, numbers(inside, draw))
    else:
        j = next((i for i, name in enumerate(names) if name.endswith("data.pkl")), 0)
        members[j] = (names[j], pickled(members[j][1], draw))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, inside in members:
            archive.writestr(name, inside)
    packed = bytearray(buffer.getvalue())
    if draw.random() < 0.1:  # sizes in the directory
        at = packed.rfind(b"PK\x01\x02") + draw.choice((20, 24, 42))
        packed[at : at + 4] = draw.choice((b"\xff" * 4, bytes(4), b"\0\0\0\x7f"))
    return bytes(packed)


def odd_tensor(tensor: Tensor, draw: random.Random) -> object:
    """Something that PyTorch stores, and that is no plain tensor of this shape."""
    huge = torch.zeros(1).expand(2**18, 2**20) if tensor.ndim != 3 else torch.zeros(1).expand(4, 2**18, 2**20)
    made: list[Callable[[], object]] = [
        *(lambda: huge, lambda: tensor[:0], lambda: tensor[None], tensor.flatten, lambda: tensor.mT),
        *(
            tensor.double,
            tensor.half,
            tensor.bfloat16,
            tensor.long,
            tensor.bool,
        ),
        *(lambda: tensor.to(torch.complex64), lambda: tensor.to("meta"), tensor.to_sparse, tensor.to_mkldnn),
        lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        *(lambda: torch.nn.Parameter(tensor), lambda: tensor.as_strided(tensor.shape, [0] * tensor.ndim)),
        *(lambda: tensor * float("nan"), lambda: tensor + float("inf"), lambda: tensor.double() * 1e300),
        *(lambda: tensor.to(torch.float8_e5m2), lambda: torch.nested.nested_tensor([tensor, tensor])),
        *(lambda: torch.conj(tensor.to(torch.complex64)).imag, tensor.tolist, lambda: {"a": tensor}),
        *(lambda: None, lambda: "text\n", lambda: 5, lambda: [tensor], lambda: torch.Size([2]), lambda: torch.float32),
        *(lambda: torch.tensor(1.0), lambda: torch.empty(0), lambda: torch.empty(0, 2**40), tensor.untyped_storage),
    ]
    try:
        return draw.choice(made)()
    except RuntimeError:  # not for a tensor of this kind
        return tensor.to("meta")


def torch_objects(content: bytes, draw: random.Random) -> bytes:
    """A file of torch.save with another object in the place of one of its tensors, or around all, old or new format."""
    found = torch.load(io.BytesIO(content), weights_only=True)
    changed = _replaced(found, draw)
    if draw.random() < 0.1:
        changed = draw.choice(([changed], {"a": changed}, {1: changed, None: 2}, (changed, changed), {}, [], None))
    buffer = io.BytesIO()
    try:
        torch.save(changed, buffer, _use_new_zipfile_serialization=draw.random() < 0.7)
    except Exception:  # some of these cannot be stored in the old format
        return mutated(content, draw)
    return buffer.getvalue()


def _replaced(value: Any, draw: random.Random) -> Any:
    if isinstance(value, Tensor):
        return odd_tensor(value.detach(), draw)
    if isinstance(value, dict) and value:
        key = draw.choice(list(value))
        kind = draw.randrange(12)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {**value, draw.choice((5, "more", "\n", ("a", "b"), None, b"bytes", "x" * 5000)): value[key]}
        return {**value, key: _replaced(value[key], draw)}
    if isinstance(value, list) and value:
        i = draw.randrange(len(value))
        return draw.choice(([*value[:i], _replaced(value[i], draw), *value[i + 1 :]], value[:i], value + value))
    return draw.choice([*ODD, torch.ones(3), torch.ones(3, dtype=torch.uint8)])


def for_file(path: Path) -> Damage:
    """The damages that suit a file's format, by its name."""
    kinds: dict[str, Damage] = {
        ".json": json_text,
        ".jsonl": json_lines,
        ".safetensors": safetensors,
        ".pt": any_of(torch_zip, torch_objects),
        ".bin": any_of(torch_zip, torch_objects),
        ".npy": npy,
        ".model": protobuf,
    }
    return kinds.get(path.suffix, mutated)
