"""Weights in safetensors files: round trips, and headers that lie."""

from __future__ import annotations

import io
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from s2s.errors import BundleError
from s2s.tensors import DTYPES, MAX_ROWS, headers, match, parse_tensors, sketched, write_tensors


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a safetensors file with any header and any claimed length of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def example() -> dict[str, Tensor]:
    found = {name: (torch.arange(6) % 2).reshape(2, 3).to(dtype) for name, dtype in DTYPES.items()}
    parameter = torch.nn.Parameter(torch.randn(3, 4))
    return {
        **found,
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "transposed": torch.randn(4, 3).T,
        "slice": torch.randn(10, 2)[3:5, 1],
        "expanded": torch.randn(1, 3).expand(5, 3),
        "parameter": parameter,
        "tied": parameter,
        "name with ü and \x1b": torch.ones(1),
    }


def test_round_trip_is_exact_and_the_library_agrees(tmp_path: Path) -> None:
    tensors = example()
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors)
    seen = headers(path)
    for loaded in (parse_tensors(path.read_bytes(), "a"), safetensors.torch.load_file(path)):
        assert loaded.keys() == tensors.keys() == seen.keys()
        for name, tensor in tensors.items():
            assert loaded[name].dtype == tensor.dtype == seen[name].dtype
            assert tuple(loaded[name].shape) == tuple(tensor.shape) == seen[name].shape
            assert torch.equal(loaded[name], tensor.detach())


def test_bits_survive_nan_and_negative_zero(tmp_path: Path) -> None:
    bits = torch.tensor([0x7FC00001, -0x80000000, 0x00000001, 0x7F800000], dtype=torch.int32)
    write_tensors(tmp_path / "a", {"x": bits.view(torch.float32)})
    assert torch.equal(parse_tensors((tmp_path / "a").read_bytes(), "a")["x"].view(torch.int32), bits)


def test_files_of_the_library_are_read_and_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3), "a": torch.randn(2, 2), "c": torch.tensor([True])}
    safetensors.torch.save_file(tensors, tmp_path / "library", metadata={"format": "pt"})
    assert all(torch.equal(t, tensors[n]) for n, t in parse_tensors((tmp_path / "library").read_bytes(), "x").items())
    write_tensors(tmp_path / "one", tensors)
    write_tensors(tmp_path / "two", dict(reversed(tensors.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    for bad in (torch.zeros(2, dtype=torch.complex64), torch.zeros(2, 2).to_sparse()):
        with pytest.raises(BundleError, match="the tensor w can't be saved"):
            write_tensors(tmp_path / "a", {"w": bad})
    assert not (tmp_path / "a").exists()


GOOD = raw({"a": entry(0, 4), "b": entry(4, 12, [1], "I64")}, bytes(12))
HOSTILE = {
    "empty file": (b"", "no safetensors file or was cut off"),
    "seven bytes": (b"\x02" + bytes(6), "cut off"),
    "length beyond the file": (raw({}, b"", 1000), "cut off"),
    "length of 2^63": (raw({"a": entry(0, 4)}, bytes(4), 1 << 63), "cut off"),
    "length too small": (raw({"a": entry(0, 4)}, bytes(4), 10), "no JSON"),
    "length too big by one": (raw({"a": entry(0, 4)}, bytes(4), len(json.dumps({"a": entry(0, 4)})) + 1), "no JSON"),
    "length zero": (bytes(20), "cut off"),
    "a list": (raw([1, 2]), "cut off"),
    "no UTF-8": (raw(b'{"\xff": 1}'), "no UTF-8"),
    "duplicate name": (
        raw(b'{"a": %s, "a": %s}' % ((json.dumps(entry(0, 1)).encode(),) * 2), b"x"),
        "'a' stands twice",
    ),
    "depth bomb": (raw(b'{"a":' + b"[" * 100_000), "nested too deeply"),
    "truncated data": (GOOD[:-1], "cut off or too long"),
    "trailing data": (GOOD + b"x", "cut off or too long"),
    "unknown dtype": (raw({"a": entry(0, 4, [1], "C64")}, bytes(4)), "the dtype C64"),
    "dtype of another type": (raw({"a": {**entry(0, 4), "dtype": ["U8"]}}, bytes(4)), "the dtype"),
    "negative shape": (raw({"a": entry(0, 4, [-2, -2])}, bytes(4)), "shape that is none"),
    "shape of floats": (raw({"a": entry(0, 4, [4.0])}, bytes(4)), "shape that is none"),
    "shape of bools": (raw({"a": entry(0, 1, [True])}, b"x"), "shape that is none"),
    "shape of 17 dimensions": (raw({"a": entry(0, 1, [1] * 17)}, b"x"), "shape that is none"),
    "shape that overflows": (raw({"a": entry(0, 0, [1 << 32, 1 << 32])}), "don't fit its shape"),
    "shape beyond 2^53": (raw({"a": entry(0, 0, [1 << 60])}), "shape that is none"),
    "shape that isn't the data": (raw({"a": entry(0, 4, [5])}, bytes(4)), "don't fit its shape"),
    "offset beyond the file": (raw({"a": entry(0, 1 << 40)}, bytes(4)), "cut off or too long"),
    "negative offset": (raw({"a": entry(-4, 0)}, bytes(4)), "offsets that are none"),
    "reversed offsets": (raw({"a": entry(4, 0, [4])}, bytes(4)), "don't fit its shape"),
    "three offsets": (raw({"a": {**entry(0, 4), "data_offsets": [0, 2, 4]}}, bytes(4)), "offsets that are none"),
    "overlap": (raw({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)), "overlaps"),
    "same place twice": (raw({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)), "overlaps"),
    "hole": (raw({"a": entry(0, 4), "b": entry(5, 6)}, bytes(6)), "leaves a hole"),
    "hole at the start": (raw({"a": entry(2, 6)}, bytes(6)), "leaves a hole"),
    "extra key": (raw({"a": {**entry(0, 4), "code": "x"}}, bytes(4)), "damaged header"),
    "missing key": (raw({"a": {"dtype": "U8", "shape": [4]}}, bytes(4)), "damaged header"),
    "entry that is a number": (raw({"a": 4}, bytes(4)), "damaged header"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_with_the_file_named(tmp_path: Path, name: str) -> None:
    data, why = HOSTILE[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    for function in (lambda: headers(path), lambda: parse_tensors(data, str(path))):
        with pytest.raises(BundleError, match=why) as caught:
            function()
        assert str(path) in str(caught.value)


def test_the_good_one_of_the_hostile_is_good(tmp_path: Path) -> None:
    assert parse_tensors(GOOD, "x")["b"].tolist() == [0]


def test_a_header_of_another_size_is_not_taken_for_pickle(tmp_path: Path) -> None:
    for length in (640, 896, 1152, 1408):  # their first two bytes are those of pickle protocol 2 to 5
        header = json.dumps({"a": entry(0, 4)}).encode()
        assert parse_tensors(raw(header.ljust(length), bytes(4)), "x")["a"].tolist() == [0] * 4


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def pickles(mark: Path) -> dict[str, bytes]:
    found = {f"protocol {n}": pickle.dumps({"w": Trap(mark), "pad": "x" * 99}, protocol=n) for n in range(2, 6)}
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"w": torch.ones(3), "trap": Trap(mark)}, buffer, _use_new_zipfile_serialization=zipped)
        found[f"torch.save, zip {zipped}"] = buffer.getvalue()
    return found


def test_pickle_under_another_name_is_refused_and_not_run(tmp_path: Path) -> None:
    for name, data in pickles(tmp_path / "mark").items():
        (tmp_path / "model.safetensors").write_bytes(data)
        with pytest.raises(BundleError, match="pickle is not loaded"):
            headers(tmp_path / "model.safetensors")
        with pytest.raises(BundleError, match="pickle is not loaded"):
            parse_tensors(data, name)
    old = pickle.dumps(Trap(tmp_path / "mark"), protocol=0)  # plain text: no magic number, still no safetensors
    with pytest.raises(BundleError, match="no safetensors file"):
        parse_tensors(old, "x")
    assert not (tmp_path / "mark").exists()


def test_random_damage_is_refused_or_read_but_never_a_crash(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(5), "c": torch.tensor([True, False])}
    write_tensors(tmp_path / "x", tensors)
    data, rng, refused = (tmp_path / "x").read_bytes(), random.Random(1), 0
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(data) - 48)] = rng.randrange(256)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        try:
            found = parse_tensors(bytes(damaged), "x")
            assert sum(t.numel() * t.element_size() for t in found.values()) == 24 + 40 + 2
        except BundleError:
            refused += 1
    assert refused > 300


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"a": torch.ones(1)})
    (tmp_path / "link").symlink_to("x")
    for name, why in (("link", "is a link"), (".", "is a link or no file"), ("none", "No such file")):
        with pytest.raises(BundleError, match=why):
            headers(tmp_path / name)


def test_match_gives_one_table_of_at_most_ten_rows() -> None:
    shape, kind = (3, 4), torch.float32
    expected = {"same": (shape, kind), "gone": (shape, kind), "shape": (shape, kind), "kind": (shape, kind)}
    found = {
        "same": torch.zeros(3, 4),
        "shape": torch.zeros(3, 5),
        "kind": torch.zeros(3, 4).half(),
        "new": torch.ones(2),
    }
    match({"same": (shape, kind)}, {"same": torch.zeros(3, 4)})
    with pytest.raises(BundleError) as caught:
        match(expected, found)
    text = str(caught.value)
    assert "4 differences" in text
    for row in (
        "gone: missing, expected (3, 4) float32",
        "shape: expected (3, 4) float32, found (3, 5) float32",
        "kind: expected (3, 4) float32, found (3, 4) float16",
        "new: extra, found (2,) float32",
    ):
        assert row in text
    with pytest.raises(BundleError, match="and 90 more") as caught:
        match({f"layer{n}": (shape, kind) for n in range(100)}, {})
    assert str(caught.value).count("missing") == MAX_ROWS


def test_a_huge_model_is_compared_with_the_file_before_memory_is_taken(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"weight": torch.zeros(4, 4)})
    with torch.device("meta"):
        wanted = torch.nn.Linear(10**6, 10**6, bias=False)
    expected = {name: (tuple(t.shape), t.dtype) for name, t in wanted.state_dict().items()}
    with pytest.raises(BundleError, match=r"weight: expected \(1000000, 1000000\) float32, found \(4, 4\)"):
        match(expected, headers(tmp_path / "x"))


def test_a_sketch_has_the_shapes_of_the_thing_and_no_memory() -> None:
    def made() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Embedding(7, 3), torch.nn.LSTM(3, 5), torch.nn.Linear(5, 2))

    with sketched():
        sketch = made()
    assert all(value.is_meta for value in sketch.state_dict().values())
    assert {n: v.shape for n, v in sketch.state_dict().items()} == {n: v.shape for n, v in made().state_dict().items()}
    assert torch.empty(50).normal_().std() > 0.5  # outside, all is drawn as ever


def test_one_element_without_a_stride_is_written(tmp_path: Path) -> None:
    tensors = {"one": torch.arange(6, dtype=torch.int64)[::3][:1].expand(1), "many": torch.ones(1).expand(3)}
    tensors["none"] = torch.as_strided(torch.tensor([7]), (1,), (0,))
    write_tensors(tmp_path / "x", tensors)
    found = parse_tensors((tmp_path / "x").read_bytes(), "x")
    assert {name: value.tolist() for name, value in found.items()} == {"one": [0], "many": [1, 1, 1], "none": [7]}
