"""Pickles of arrays: what numpy writes is read, and nothing crafted reaches numpy."""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcss.errors import SourceError
from mcss.sources.human36m.annotations import read_videopose3d
from mcss.sources.pickles import load_arrays, number_array


def loaded(data: bytes) -> Any:
    return load_arrays(io.BytesIO(data), len(data))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i2", "u1", "<i8"])
def test_arrays_of_any_number_layout_and_protocol_are_read(protocol: int, dtype: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    table = {"c": values, "f": np.asfortranarray(values), "k": values.transpose(1, 0, 2), "one": values[0, 1, 2]}
    read = loaded(pickle.dumps(table, protocol))
    for name in ("c", "f", "k"):
        np.testing.assert_array_equal(number_array(read[name]), table[name])
        assert number_array(read[name]).dtype == np.float64
    assert read["one"] == 6.0


def test_what_is_no_array_of_numbers_is_named() -> None:
    read = loaded(pickle.dumps({"objects": np.array([{}, None]), "text": "x", "flags": np.array([True])}))
    with pytest.raises(TypeError, match="expected an array of numbers, got an array of object"):
        number_array(read["objects"])
    with pytest.raises(TypeError, match="expected an array of numbers, got a str"):
        number_array(read["text"])
    with pytest.raises(TypeError, match="expected an array of numbers, got an array of bool"):
        number_array(read["flags"])
    with pytest.raises(TypeError, match=r"expected an array of one object, got the shape \(2,\) of object"):
        read["objects"].item()


class Crafted:
    """Pickles as an array of the given parts, as numpy would never write it."""

    def __init__(self, shape: Any, dtype: Any, content: Any) -> None:
        self._state = (1, shape, dtype, False, content)

    def __reduce__(self) -> tuple[Any, ...]:
        return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), self._state


class CraftedType:
    """Pickles as a type of fields, one of which is an object, that claims to hold none (flags 0)."""

    def __init__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("f8", False, True), self._state


POINTER = struct.pack("<Q", 0x4141414141414141)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Crafted((1,), CraftedType((3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)), POINTER), "fields"),
        (Crafted((1,), CraftedType((3, "|", (np.dtype("O"), (1,)), None, None, 8, 1, 0)), POINTER), "fields"),
        (Crafted((1,), np.dtype("O"), POINTER), "holds 8 values"),
        (Crafted((1,), np.dtype([("a", "f8")]), POINTER), "type 'V8'"),
        (Crafted((1,), np.dtype("M8[s]"), POINTER), "type 'M8'"),
        (Crafted((1 << 40,), np.dtype("f8"), POINTER), r"8796093022208 bytes, but holds 8 bytes"),
        (Crafted((-1, -1), np.dtype("f8"), POINTER), r"shape \(-1, -1\)"),
        (Crafted((1,) * 9, np.dtype("f8"), POINTER), "shape"),
        (Crafted("1", np.dtype("f8"), POINTER), "not as numpy writes it"),
        (Crafted((1,), "f8", POINTER), "not as numpy writes it"),
        (Crafted((1,), np.dtype("f8"), "12345678"), "holds 8 bytes"),
    ],
)
def test_a_crafted_array_is_refused_before_numpy_sees_it(value: Crafted, message: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=message):
        loaded(pickle.dumps({"a": value}, 4))


def test_a_pickle_cannot_change_what_stands_for_numpy() -> None:
    change = b"cnumpy\ndtype\nN}X\x0c\x00\x00\x00__setstate__cnumpy\nndarray\ns\x86b."
    with pytest.raises(pickle.UnpicklingError, match="asks to change a function"):
        loaded(change)
    assert number_array(loaded(pickle.dumps(np.ones(2)))).tolist() == [1, 1]


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x80\x05\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # bytes
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",  # a bytearray
        b"\x80\x05\x95" + struct.pack("<Q", 1 << 40) + b"N.",  # a frame
        b"\x80\x05X" + struct.pack("<I", 0xFFFFFFFF) + b"x.",  # text
        b"\x80\x05\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"x.",  # a number
    ],
)
def test_sizes_in_a_pickle_are_held_against_the_size_of_the_file(bomb: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match="are left in the file"):
        loaded(bomb)


def test_a_large_memo_number_reserves_no_memory() -> None:
    assert loaded(b"\x80\x05Nr" + struct.pack("<I", 0xFFFFFFFF) + b".") is None


def written(path: Path, content: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("positions_3d.npy", header.getvalue() + content)
    return path


def test_an_npz_made_to_fill_the_memory_is_refused(tmp_path: Path) -> None:
    zeros = written(tmp_path / "bomb.npz", bytes(70_000_000), zipfile.ZIP_DEFLATED)
    with pytest.raises(SourceError, match=r"bomb\.npz.*states 70,000,\d+ bytes, which were compressed to"):
        read_videopose3d(zeros)
    pose = np.zeros((1000, 32, 3))
    table = np.array({"S1": {str(i): pose for i in range(1000)}}, dtype=object)
    shared = written(tmp_path / "shared.npz", pickle.dumps(table))
    with pytest.raises(SourceError, match=r"shared\.npz.*the same array for many sequences"):
        read_videopose3d(shared)


def test_a_crafted_npz_ends_in_the_error_of_the_file(tmp_path: Path) -> None:
    kind = CraftedType((3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))
    content = pickle.dumps(np.array({"S1": {"Walking 1": Crafted((1,), kind, POINTER)}}, dtype=object))
    with pytest.raises(SourceError, match=r"crafted\.npz: expected VideoPose3D's.*a type with fields"):
        read_videopose3d(written(tmp_path / "crafted.npz", content))
