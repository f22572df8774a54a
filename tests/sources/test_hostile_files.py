"""Files that state what they do not hold: each ends in the error of its reader, before memory is reserved."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filming import film

from mcss.data.formats.hdf5 import opened_hdf5
from mcss.data.formats.pose_files import READERS, read_pose_file
from mcss.errors import SourceError, damage_as
from mcss.files import checked_member
from mcss.progress import NO_PROGRESS
from mcss.sources.aist.annotations import read_cameras
from mcss.sources.aspset import read_camera
from mcss.sources.human36m.annotations import mask_boxes
from mcss.sources.human36m.metadata import read_metadata
from mcss.sources.mpi_inf_3dhp.annotations import read_annotation
from mcss.sources.videos import video_folder
from mcss.sources.videos.video_folder import Videos

h5py = pytest.importorskip("h5py")

NESTED = "[" * 100_000


class PanicError(BaseException):
    """Like the errors of libraries written in Rust, which are no `Exception`."""


def masks(path: Path, shape: tuple[int, int], **settings: object) -> Path:
    """Write a file of boxes whose only mask states a shape that takes no space."""
    with h5py.File(path, "w") as file:
        mask = file.create_dataset("mask", shape=shape, dtype="u1", **settings)
        cells = file.create_dataset("Masks", (1, 1), dtype=h5py.ref_dtype)
        cells[0, 0] = mask.ref
    return path


@pytest.mark.parametrize("shape", [(60_000, 60_000), (6_000, 6_000), (1 << 40, 1)])
def test_a_mask_that_states_more_pixels_than_a_camera_has_is_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    path = masks(tmp_path / "bb.mat", shape, chunks=(1, 1) if shape[0] > 60_000 else (1000, 1000))
    with pytest.raises(SourceError, match=r"bb\.mat: expected a MAT file of version 7\.3.*states \d+ × \d+ numbers"):
        mask_boxes(path, [0])


def test_numbers_that_lie_in_another_file_are_not_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["numbers"] = np.arange(4)
    (tmp_path / "raw").write_bytes(bytes(64))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["linked"] = h5py.ExternalLink("secret.h5", "numbers")
        file.create_dataset("raw", (8,), "f8", external=[(str(tmp_path / "raw"), 0, 64)])
        layout = h5py.VirtualLayout((4,), "i8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "numbers", (4,))
        file.create_virtual_dataset("virtual", layout)
        file.create_group("group")
        file["text"] = "x"
    with opened_hdf5(tmp_path / "a.h5") as found:
        for name in ("linked", "raw", "virtual"):
            with pytest.raises(ValueError, match=f"{name} lies in another file"):
                found.values(name)
        with pytest.raises(ValueError, match="group is no array of numbers"):
            found.values("group")


def test_an_annotation_that_states_more_than_its_file_holds_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "annot.mat", "w") as file:
        table = file.create_dataset("table", (56, 20_000_000), dtype="f8", chunks=(56, 1000))
        for name in ("annot2", "annot3", "univ_annot3"):
            cells = file.create_dataset(name, (1, 1), dtype=h5py.ref_dtype)
            cells[0, 0] = table.ref
    with pytest.raises(SourceError, match=r"annot\.mat: expected a MAT file.*states 56 × 20000000 numbers"):
        read_annotation(tmp_path / "annot.mat", (0,))


@pytest.mark.parametrize("read", [read_camera, read_cameras])
@pytest.mark.parametrize("text", [NESTED, "1", "null", '{"size": 1}', '[{"matrix": {}}]', "[1e999]"])
def test_json_of_any_shape_ends_in_the_error_of_the_file(
    read: Callable[[Path], object], text: str, tmp_path: Path
) -> None:
    (tmp_path / "camera.json").write_text(text)
    with pytest.raises(SourceError, match=r"camera\.json: expected"):
        read(tmp_path / "camera.json")


def test_xml_reads_no_other_file_and_does_not_multiply(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    outside = f'<!DOCTYPE r [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]><r><actionnames>&x;</actionnames></r>'
    laughs = "<!DOCTYPE r [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{n + 1} '{f'&a{n};' * 10}'>" for n in range(10))
    for text in (outside, f"{laughs}]><r>&a10;</r>"):
        (tmp_path / "metadata.xml").write_text(text)
        with pytest.raises(SourceError, match=r"metadata\.xml: expected (XML|Human3\.6M)") as error:
            read_metadata(tmp_path / "metadata.xml")
        assert "secret," not in str(error.value)


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_npz_files_made_to_break_their_reader_end_in_its_error(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", poses=np.random.default_rng(0).normal(size=(40, 17, 3)), names=["a"])
    whole = bytearray((tmp_path / "whole.npz").read_bytes())
    whole[200] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(whole)
    npz(tmp_path / "huge.npz", poses=header("(1000000000000,)"), names=b"")
    npz(tmp_path / "deep.npz", poses=header("(" * 60), names=b"")
    npz(tmp_path / "bomb.npz", poses=header("(10000000,)") + bytes(80_000_000), names=b"")
    encrypted = bytearray(npz(tmp_path / "encrypted.npz", poses=header("(1,)") + bytes(8)).read_bytes())
    for start in (b"PK\x03\x04", b"PK\x01\x02"):
        encrypted[encrypted.index(start) + (6 if start.endswith(b"\x04") else 8)] |= 1
    (tmp_path / "encrypted.npz").write_bytes(encrypted)
    for name in ("flipped", "huge", "deep", "bomb", "encrypted"):
        with pytest.raises(SourceError, match=rf"{name}\.npz: (cannot be read as NPZ|it holds Python objects)"):
            read_pose_file(tmp_path / f"{name}.npz")


def test_a_member_of_an_archive_may_be_large_or_compress_well_but_not_both() -> None:
    member = zipfile.ZipInfo("a.npy")
    member.file_size, member.compress_size = 64_000_000, 1
    assert checked_member(member) is member
    member.file_size, member.compress_size = 1_900_000_000, 1_000_000_000
    assert checked_member(member) is member
    for size, compressed in ((64_000_001, 640_000), (2_000_000_001, 2_000_000_001)):
        member.file_size, member.compress_size = size, compressed
        with pytest.raises(ValueError, match=rf"a\.npy states {size:,} bytes, which were compressed to {compressed:,}"):
            checked_member(member)


def test_a_bvh_without_channels_may_not_state_any_number_of_frames(tmp_path: Path) -> None:
    (tmp_path / "a.bvh").write_text(
        "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 0\nEnd Site\n{\nOFFSET 0 1 0\n}\n}\n"
        "MOTION\nFrames: 1000000000\nFrame Time: 0.01\n"
    )
    with pytest.raises(SourceError, match=r"a\.bvh: expected 1000000000 frames of 0 numbers, got 0 numbers"):
        read_pose_file(tmp_path / "a.bvh")


def test_a_number_that_is_none_to_python_is_no_raw_error(tmp_path: Path) -> None:
    lines = ["PathFileType\t4", "DataRate\tNumFrames\tUnits", "50\t²\tmm", "Frame#\tTime\ta", "\t\tX1\tY1\tZ1", ""]
    (tmp_path / "a.trc").write_text("\n".join([*lines, *(f"{n}\t{n / 50}\t1\t2\t{n}" for n in range(1, 4))]))
    assert len(read_pose_file(tmp_path / "a.trc")) == 3


def test_any_error_of_a_format_becomes_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("frame")

    def panics(_: Path) -> None:
        raise PanicError("called `Option::unwrap()` on a `None` value")

    monkeypatch.setitem(READERS, ".csv", panics)
    with pytest.raises(SourceError, match=r"a\.csv: cannot be read as CSV \(PanicError: called `Option::unwrap"):
        read_pose_file(tmp_path / "a.csv")


def test_requests_to_stop_and_missing_packages_stay_what_they_are() -> None:
    for error in (KeyboardInterrupt(), SystemExit(1), ImportError("h5py"), SourceError("own")):
        with pytest.raises(type(error)), damage_as(SourceError, lambda why: f"damage ({why})"):
            raise error
    for error, why in ((MemoryError(), "too little memory"), (RecursionError("maximum"), "nested too deeply")):
        with pytest.raises(SourceError, match=why), damage_as(SourceError, lambda why: f"damage ({why})"):
            raise error


def test_what_the_system_lacks_is_no_damage_of_a_file() -> None:
    buried = RuntimeError("LanceError(IO): Too many open files (os error 24)")
    for error in (OSError(24, "Too many open files"), buried):
        with (
            pytest.raises(OSError, match=r"^\[Errno 24\] Too many open files$"),
            damage_as(SourceError, lambda why: f"damage ({why})"),
        ):
            raise error
    with (
        pytest.raises(SourceError, match=r"^written \(No space left on device\)$"),
        damage_as(SourceError, lambda why: f"written ({why})"),
    ):
        raise RuntimeError("lance error: LanceError(IO): No space left on device (os error 28), /src/a.rs:1")


def test_one_damaged_recording_does_not_end_the_import_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sequence in ("whole", "damaged"):
        film(tmp_path / "videos" / "S1" / sequence)
    (tmp_path / "videos" / "S1" / "damaged" / "poses.npz").write_bytes(b"x")

    def panics(path: Path, *args: object) -> object:
        raise PanicError("index out of bounds")

    monkeypatch.setattr(video_folder, "read_labels", panics)
    found = Videos(size=64).list_contents(tmp_path / "videos", tmp_path / "out", NO_PROGRESS)
    assert [sequence.sequence for sequence in found.sequences] == ["whole"]
    assert any("damaged" in problem and "PanicError: index out of bounds" in problem for problem in found.problems)
