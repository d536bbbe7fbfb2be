"""Damages that know a file's format: JSON, safetensors, NumPy's and protobuf's; damage_torch.py has PyTorch's.

What comes out is still nearly right, so that it reaches the checks behind those of the format. `fuzz_files.mutated`
damages the bytes of any file.
"""

import hashlib
import io
import json
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from fuzz_files import mutated

Damage = Callable[[bytes, random.Random], bytes]

ODD = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**40, 0.5, -0.0, 1e308),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        " ",
        "0",
        "5",
        "prompt",
        "a\nb",
        "\x1b[31m",
        "\0",
        "\ud800",
        "é" * 9,
    ),
    *("x" * 5000, "../../etc/passwd", "/etc/passwd", "..", ".", "a/b", [], {}, [[]], [None], [0], [1, 2, 3], [-1, 5]),
    *(["a", "b"], {"a": 1}, {"": {}}, [{}] * 3, "F32", "I64", "U8", "BF16", "F8_E4M3", "vocab", "attempt", "spot"),
]


def any_of(*damages: Damage) -> Damage:
    return lambda content, draw: draw.choice(damages)(content, draw)


# ---- JSON ----


def json_text(content: bytes, draw: random.Random) -> bytes:
    """A JSON document with one to three other values, keys that are gone, doubled or new, or a deep nest."""
    value = json.loads(content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        value = odd_value(value, draw)
    text = json.dumps(value)
    kind = draw.randrange(12)
    if kind == 0:  # a key twice: json.dumps cannot
        text = text.replace("{", '{"' + draw.choice(("a", "__metadata__", "format", *_keys(value))) + '": 1, ', 1)
    elif kind == 1:
        depth = draw.choice((50, 2000, 100_000))
        text = text.replace(":", ":" + "[" * depth + "]" * depth + ',"z":', 1)
    elif kind == 2:
        text = draw.choice(("﻿", " " * 50, "\n\n", "//x\n")) + text
    elif kind == 3:
        text = text.replace("1", draw.choice(("1e999", "9" * 5000, "-0", "1.0", "01", "NaN", "-Infinity")), 1)
    return text.encode("utf-8", "surrogatepass")


def _keys(value: Any) -> list[str]:
    return [str(key) for key in value] if isinstance(value, dict) else []


def odd_value(value: Any, draw: random.Random) -> Any:
    """The value with one of its nodes changed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        kind = draw.randrange(10)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {**value, draw.choice(("a", "x" * 3000, "\n", "tau", "target", key + " ")): draw.choice(ODD)}
        if kind == 2:
            return {**value, key: value[draw.choice(list(value))]}
        if kind == 3:  # another order
            return dict(draw.sample(list(value.items()), len(value)))
        return {**value, key: odd_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        i = draw.randrange(len(value))
        return draw.choice(
            (
                [*value[:i], odd_value(value[i], draw), *value[i + 1 :]],
                value[:i] + value[i + 1 :],
                value + value,
                value * 50,
            )
        )
    if type(value) is int and draw.random() < 0.6:
        return value + draw.choice((-1, 1, 2, -(2**40), 2**40, value, 10**20))
    return draw.choice(ODD)


def json_lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines()
    i = draw.randrange(len(lines))
    lines[i] = json_text(lines[i], draw)
    return b"\n".join(lines) + b"\n"


# ---- safetensors ----


def safetensors(content: bytes, draw: random.Random) -> bytes:
    """Another header, another length of it, other numbers, or JSON in its metadata damaged."""
    length = int.from_bytes(content[:8], "little")
    text, data = content[8 : 8 + length], content[8 + length :]
    kind = draw.randrange(7)
    if kind == 0:
        sizes = (0, 1, length - 1, length + 8, len(content), 2**31, 2**40, 2**63, 2**64 - 1)
        return draw.choice(sizes).to_bytes(8, "little") + text + data
    header = json.loads(text)
    if kind == 1:
        return _packed(json_text(text, draw), data)
    if kind == 2 and "config" in header.get("__metadata__", {}):
        header["__metadata__"]["config"] = json_text(header["__metadata__"]["config"].encode(), draw).decode(
            "utf-8", "replace"
        )
    elif kind == 3:
        data = numbers(data, draw)
    elif kind == 4:  # an entry moved, or one more on the same bytes, or one without any
        name = draw.choice([key for key in header if key != "__metadata__"])
        shape = draw.choice(([0], [0, 2**60], [2**40, 0], [2**30, 2**30, 2**30, 2**30], [], [-1], [1] * 100, [True]))
        at = draw.choice((0, len(data), len(data) - 4, header[name]["data_offsets"][0], 2**62))
        header[draw.choice((name, "more", ""))] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at]}
    else:
        _change_entry(header, draw)
    return _packed(json.dumps(header).encode("utf-8", "surrogatepass"), data)


def _change_entry(header: dict[str, Any], draw: random.Random) -> None:
    """A tensor's entry with another dtype, shape or place; some that still agree with each other."""
    entry = header[draw.choice([key for key in header if key != "__metadata__"])]
    kind = draw.randrange(5)
    if kind == 0:
        entry["dtype"] = draw.choice(("F64", "F16", "BF16", "I32", "BOOL", "U64", "f32", None, 7, []))
    elif kind == 1:  # the same bytes as other numbers
        entry["dtype"], factor = draw.choice((("F16", 2), ("BF16", 2), ("U8", 4), ("BOOL", 4), ("I32", 1)))
        entry["shape"] = [*entry["shape"][:-1], entry["shape"][-1] * factor] if entry["shape"] else [factor]
    elif kind == 2:
        entry["shape"] = draw.choice(
            (entry["shape"][::-1], [1, *entry["shape"]], [*entry["shape"], 1], entry["shape"][1:])
        )
    else:
        begin, end = entry["data_offsets"]
        moved = draw.choice(((begin + 4, end + 4), (end, begin), (-4, end), (begin, 2**62), (-(2**63), 2**63)))
        entry["data_offsets"] = draw.choice(
            ([*moved], [begin], [begin, end, end], [float(begin), end], [str(begin), end])
        )


def _packed(text: bytes, data: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def numbers(data: bytes, draw: random.Random) -> bytes:
    """NaN, infinity or random bits in the place of some numbers."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 5, 1000)) if len(data) >= 4 else 0):
        at = draw.randrange(len(data) // 4) * 4
        bits = draw.choice((0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 1, draw.getrandbits(32)))
        changed[at : at + 4] = bits.to_bytes(4, "little")
    return bytes(changed)


# ---- NumPy's and protobuf's ----


def npy(content: bytes, draw: random.Random) -> bytes:
    """Another header or other numbers."""
    length = struct.unpack("<H", content[8:10])[0]
    header, data = eval(content[10 : 10 + length]), content[10 + length :]
    kind = draw.randrange(6)
    if kind == 0:
        return content[:10] + content[10 : 10 + length] + numbers(data, draw)
    if kind == 1:
        header["shape"] = draw.choice(
            ((2**40, 2**20), (-1, 8), (0, 8), (3,), (8, 3), (3, 8, 1), (), "x", (3.0, 8), None, (True, 24))
        )
    elif kind == 2:
        kinds = (
            "|O",
            "<f8",
            ">f4",
            "<f2",
            "<i4",
            "|S96",
            "<U24",
            "<M8[s]",
            "<c16",
            "|V4",
            "<f1000000000",
            "f",
            5,
            None,
        )
        header["descr"] = draw.choice((*kinds, [("a", "<f4")], [("a", "<f4", (2**30,))], [("x" * 5000, "<f4")]))
    elif kind == 3:
        header["fortran_order"] = draw.choice((True, 1, None, "x"))
    elif kind == 4:
        header = draw.choice(({}, {**header, "more": 1}, [], {"shape": (1, 1)}))
    text = (
        repr(header).encode()
        if kind != 5
        else draw.choice((b"__import__('os').mkdir('marker')", b"(" * 5000, b"9" * 9000))
    )
    version = draw.choice((b"\x01\0", b"\x01\0", b"\x02\0", b"\x03\0", b"\x09\0"))
    size = struct.pack("<H" if version == b"\x01\0" else "<I", len(text) + 1)
    return content[:6] + version + size + text + b"\n" + data


def protobuf(content: bytes, draw: random.Random) -> bytes:
    """Fields that are gone, doubled, moved, or damaged inside while their lengths are right; two levels deep."""
    try:
        fields = list(_fields(content))
    except IndexError:
        return mutated(content, draw)
    if not fields:
        return mutated(content, draw)
    others = [i for i, (key, _) in enumerate(fields) if key[0] != 0x0A]  # T5's 32,000 pieces are field 1
    i = draw.choice(others) if others and draw.random() < 0.5 else draw.randrange(len(fields))
    kind, (key, inside) = draw.randrange(7), fields[i]
    if kind == 0:
        del fields[i]
    elif kind == 1:
        fields[i:i] = [fields[draw.randrange(len(fields))]] * draw.choice((1, 1, 1000))
    elif kind == 2:
        j = draw.randrange(len(fields))
        fields[i], fields[j] = fields[j], fields[i]
    elif kind == 3 and key[0] & 7 == 2:
        fields[i] = (key, mutated(inside, draw))
    elif kind == 4:
        other = fields[draw.randrange(len(fields))][1]
        fields[i] = (key, other)
    elif key[0] & 7 == 2:
        fields[i] = (key, protobuf(inside, draw))
    else:
        fields[i] = (key, draw.choice((b"\0", b"\x01", b"\x05", b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x07")))
    return b"".join(key + (_varint(len(inside)) + inside if key[0] & 7 == 2 else inside) for key, inside in fields)


def _fields(content: bytes) -> Any:
    """(key, content) of each field of a message. Raises IndexError where it is none."""
    at = 0
    while at < len(content):
        start, kind = at, content[at] & 7
        at += _varint_size(content, at)
        key = content[start:at]
        if kind == 2:
            size, shift = 0, 0
            for byte in content[at : at + _varint_size(content, at)]:
                size |= (byte & 127) << shift
                shift += 7
            at += _varint_size(content, at)
        else:
            size = {0: _varint_size(content, at), 1: 8, 5: 4}.get(kind, len(content))
        if at + size > len(content):
            raise IndexError
        yield key, content[at : at + size]
        at += size


def _varint_size(content: bytes, at: int) -> int:
    size = 1
    while content[at + size - 1] & 128:
        size += 1
    return size


def _varint(number: int) -> bytes:
    low = bytes([number & 127 | (128 if number > 127 else 0)])
    return low + (_varint(number >> 7) if number > 127 else b"")


def token_words(content: bytes, draw: random.Random) -> bytes:
    """A set of data/token_cache.py with other numbers in it, and the sum that belongs to them."""
    words = np.load(io.BytesIO(content)).copy()
    at = draw.randrange(4, 10) if draw.random() < 0.7 else draw.randrange(4, len(words))
    words[at] = draw.choice((-1, 0, 1, 2, 4, 8, 2**31, 2**62, -(2**63), int(words[at]) + 1, len(words)))
    words[:4] = np.frombuffer(hashlib.sha256(words[4:].data).digest(), np.int64)
    buffer = io.BytesIO()
    np.save(buffer, words)
    return buffer.getvalue()
