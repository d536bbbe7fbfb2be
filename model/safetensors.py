"""The safetensors file format, read and written by hand.

    8 bytes       little-endian length n of the header
    n bytes       JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
                         "__metadata__": {"text": "text"}}
    the rest      the tensors' bytes, row-major; offsets count from here; no holes, no overlaps

Nothing in such a file is ever executed, and nothing outside it is ever read: every length and offset is checked.
"""

import json
import math
import mmap
import os
from pathlib import Path

import torch
from torch import Tensor

from model.errors import AttemptError, briefly, meant_path

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# Valid, and in no T5.
OTHERS = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4",
          "U16", "U32", "U64", "C64")  # fmt: skip
POINTER = b"version https://git-lfs.github.com/spec/"
MAX_HEADER = 10_000_000  # bytes; the format allows ten times as many, T5's largest has 150,000
MAX_NUMBERS = 2**48  # in a tensor


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file and its metadata. The tensors are views on the mapped file: read when touched."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8:
                raise AttemptError(f"{path}: expected a safetensors file, found {size} bytes; fetch it again")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise AttemptError(f"{path}: expected a safetensors file, found none there{meant_path(path)}") from None
    except (OSError, ValueError) as e:  # a name can hold NUL, or half a surrogate pair
        raise AttemptError(f"{path}: expected a safetensors file, found one that cannot be read ({e})") from None
    check_pointer(path, data[: len(POINTER)])
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER, size - 8):
        raise AttemptError(
            f"{path}: expected a safetensors file, found a header of {length} bytes in a file of {size}; fetch it again"
        )
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"), object_pairs_hook=_once)
        metadata = header.pop("__metadata__", {})
        for name, entry in header.items():
            if entry["dtype"] in OTHERS:
                raise AttemptError(
                    f"{path}: expected numbers of {', '.join(DTYPES)}, found {name:.200} of {entry['dtype']}, which is "
                    "not supported; save it in another dtype"
                )
        spans = {name: _check_entry(name, entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        problem = f"{type(e).__name__}: {briefly(e)}"
        raise AttemptError(f"{path}: expected a safetensors header, found a damaged one ({problem})") from None
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise AttemptError(f"{path}: expected texts in the header's __metadata__, found something else")
    _check_cover(path, spans, size - 8 - length)
    return {name: _view(data, 8 + length, *span) for name, span in spans.items()}, metadata


def check_pointer(path: Path, begin: bytes) -> None:
    """Raises AttemptError where a file begins as what git leaves in a file's place when git-lfs is not there."""
    if begin.startswith(POINTER):
        raise AttemptError(
            f"{path}: expected a file of weights or pieces, found a git-lfs pointer to one; run git lfs pull there"
        )


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object. Of two entries of one name programs would read different ones."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


Span = tuple[torch.dtype, list[int], int, int]  # dtype, shape, begin, end


def _check_entry(name: str, entry: dict[str, object]) -> Span:
    dtype, shape, offsets = DTYPES[str(entry["dtype"])], entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"tensor {name:.200}: {numbers!s:.200} is no list of sizes")
    assert isinstance(shape, list) and isinstance(offsets, list)
    if math.prod(n or 1 for n in shape) > MAX_NUMBERS:  # an empty tensor can still have a side of any length
        raise ValueError(f"tensor {name:.200}: shape {shape} is too large")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name:.200}: offsets {offsets} do not hold shape {shape} of {entry['dtype']}")
    return dtype, shape, offsets[0], offsets[1]


def _check_cover(path: Path, spans: dict[str, Span], size: int) -> None:
    position = 0
    for name, (_, _, begin, end) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise AttemptError(
                f"{path}: expected tensor {name:.200} at byte {position} of the data, found it at {begin}"
            )
        position = end
    if position != size:
        raise AttemptError(f"{path}: expected {position} bytes of data, found {size}: cut or damaged; fetch it again")


def _view(data: mmap.mmap, start: int, dtype: torch.dtype, shape: list[int], begin: int, end: int) -> Tensor:
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    count = (end - begin) // dtype.itemsize
    if (start + begin) % dtype.itemsize:  # a header that is not padded to 8 bytes: copy, so that the data are aligned
        return torch.frombuffer(bytearray(data[start + begin : start + end]), dtype=dtype).view(shape)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=start + begin).view(shape)


def safetensors_bytes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The content of a safetensors file, tensors in the given order, the header padded to 8 bytes."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, object] = {"__metadata__": metadata}
    chunks, position = [], 0
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous().flatten()
        chunk = flat.view(torch.uint8).numpy().data  # the tensor's own memory: what is below copies it once
        offsets = [position, position + len(chunk)]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        chunks.append(chunk)
        position = offsets[1]
    text = json.dumps(header, ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])
