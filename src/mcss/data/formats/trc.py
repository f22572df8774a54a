"""TRC marker files, as Motion Analysis, OpenSim and Pose2Sim read and write them."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from mcss.data.formats.trajectories import Trajectories, read_text, to_number, trajectories
from mcss.errors import SourceError
from mcss.files import write_text
from mcss.skeletons import JOINTS


def read_trc(path: Path) -> Trajectories:
    """Read the markers of a TRC file; times count from its first line.

    Raises:
        SourceError: The file is not TRC, is cut short, or holds something that is not a number.
    """
    lines = read_text(path).splitlines()
    if len(lines) < 6 or not lines[0].startswith("PathFileType"):
        raise SourceError(
            f"{path}: cannot be read as TRC; expected a first line PathFileType, a header of five lines and then a "
            f"line per frame, got {len(lines)} lines, the first {lines[0][:30] if lines else ''!r}: export it again"
        )
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=False))
    names = [cell.strip() for cell in lines[3].rstrip("\r\n").split("\t")[2:] if cell.strip()]
    rows, times = [], []
    for number, line in enumerate(lines[5:], start=6):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells):
            continue
        coordinates = cells[2:] + [""] * (2 + 3 * len(names) - len(cells))
        if len(cells) < 2 or any(coordinates[3 * len(names) :]) or len(cells) < 3 * len(names) - 2:
            raise SourceError(
                f"{path} line {number}: expected {3 * len(names)} coordinates of {len(names)} markers, got "
                f"{len(cells) - 2}; the file was cut short, or a marker has no name: export it again"
            )
        rows.append([to_number(cell, path, number) for cell in coordinates[: 3 * len(names)]])
        times.append(to_number(cells[1], path, number))
    stated = header.get("NumFrames", "").strip()
    if stated.isdigit() and int(stated) != len(rows):
        raise SourceError(
            f"{path}: expected {stated} frames (NumFrames), got {len(rows)}; the file was cut short: copy it again"
        )
    points = np.array(rows, np.float64).reshape(len(rows), len(names), 3)
    seconds = np.array(times, np.float64)
    return trajectories(path, names, points, seconds - seconds[:1], header.get("Units", "").strip().lower() or None)


def write_trc(path: Path, pose: Float[np.ndarray, "n 17 3"], times: Float64[np.ndarray, " n"], rate: float) -> None:
    """Write poses as markers for OpenSim: mm, +Y up, canonical poses facing +X; the root stays at the origin.

    Args:
        path: The file.
        pose: Root-relative, mm, +Z up.
        times: Seconds of each pose.
        rate: Poses per second, for the header.
    """
    markers = np.stack([-pose[..., 1], pose[..., 2], -pose[..., 0]], axis=-1).reshape(len(pose), -1)
    count = len(pose)
    header = [
        f"PathFileType\t4\t(X/Y/Z)\t{path.name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate:.6g}\t{rate:.6g}\t{count}\t{len(JOINTS)}\tmm\t{rate:.6g}\t1\t{count}",
        "Frame#\tTime\t" + "\t\t\t".join(JOINTS) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{number}" for number in range(1, len(JOINTS) + 1) for axis in "XYZ"),
        "",
    ]
    lines = [
        "\t".join([str(i + 1), f"{times[i]:.6f}", *(f"{value:.4f}" for value in markers[i])]) for i in range(count)
    ]
    write_text(path, "\n".join(header + lines) + "\n")
