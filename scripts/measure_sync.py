"""Measure `mcss sync` by motion on the real clip, with one view shifted by cutting the videos: docs/results/sync.json.

python scripts/fetch_real_clip.py footage
python scripts/measure_sync.py footage
"""

import argparse
import os
import platform
import tempfile
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from mcss.files import replacing, write_json
from mcss.progress import NO_PROGRESS
from mcss.video.reading.decoding import VideoFile, images, probe
from mcss.video.recordings import find_recordings
from mcss.video.sync.clocks import MIN_CONFIDENCE
from mcss.video.sync.motion import MotionProfile, motion_profile
from mcss.video.sync.synchronise import SyncSettings, clocks_by_motion, reference_clock
from write_table import write_between

DOCS = Path(__file__).parents[1] / "docs"
SETTINGS = SyncSettings()
SHIFTS = list(range(-37, 38))


def main() -> None:
    """Cut the videos, align them, and write the errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("footage", type=Path)
    parser.add_argument("--shifts", type=int, nargs="+", default=SHIFTS, help="in images")
    parser.add_argument("--keep", type=Path, help="folder of the motion of each cut video: a stopped run goes on there")
    arguments = parser.parse_args()
    views = find_recordings(arguments.footage)[0].views
    with tempfile.TemporaryDirectory() as folder:
        keep = arguments.keep or Path(folder)

        @cache
        def cut(view: int, first: int) -> tuple[VideoFile, MotionProfile]:
            video = replace(views[view], count=views[view].count - first)
            kept = keep / f"{video.name}-{first}.npz"
            if not kept.is_file():
                made = probe(cut_video(views[view], first, Path(folder) / f"{first}" / f"{video.name}.mp4"))
                with NO_PROGRESS.task("", 0) as task, replacing(kept) as path, path.open("wb") as file:
                    np.savez(file, speed=motion_profile(made, SETTINGS.seconds, task).speed)
                made.path.unlink()
            with np.load(kept, allow_pickle=False) as table:
                return video, MotionProfile(video.rate, table["speed"])

        rows = [measured(cut, len(views), k, shift) for k in range(len(views)) for shift in arguments.shifts]
    shifts = [] if arguments.shifts == SHIFTS else ["--shifts", *map(str, arguments.shifts)]
    about = {
        "command": " ".join(["python scripts/measure_sync.py footage", *shifts]),
        "clip": f"{len(views)} views, {views[0].count} images at {views[0].rate:g} per second; cut videos are "
        "640 pixels high; a late view lacks its first images, before an early one all others lack theirs",
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        "unit": "images",
        "rows": rows,
    }
    write_json(DOCS / "results" / "sync.json", about)
    lines = table(rows)
    write_between(DOCS / "real_footage.md", "sync", "\n".join(["Written by `scripts/measure_sync.py`.", "", *lines]))
    print("\n".join(lines))


def cut_video(view: VideoFile, first: int, path: Path) -> Path:
    """Return the video from frame `first` on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(view.rate).limit_denominator(1001))
        stream.pix_fmt, stream.options = "yuv444p", {"crf": "10", "preset": "veryfast"}
        for i, image in enumerate(images(view.path, 640)):
            if i < first:
                continue
            if i == first:
                stream.height, stream.width = image.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def measured(cut: Any, count: int, shifted: int, shift: int) -> dict[str, Any]:
    """Return the errors with one view shifted; positive shifts start late."""
    starts = [max(shift, 0) if k == shifted else max(-shift, 0) for k in range(count)]
    videos, profiles = zip(*(cut(k, first) for k, first in enumerate(starts)), strict=True)
    clocks = {videos[0].name: reference_clock(videos[0])}
    clocks |= clocks_by_motion(videos, profiles, clocks, SETTINGS)[0]
    found = np.array([clocks[video.name].start * video.rate for video in videos])
    wrong = (found - found[0]) - (np.array(starts) - starts[0])
    others = np.delete(wrong, shifted)
    return {
        "view": videos[shifted].name,
        "shift": shift,
        "error": round(float(wrong[shifted] - np.median(others)), 3),
        "worst_view": round(float(np.abs(wrong).max()), 3),
        "confidence": round(min(clock.confidence for clock in clocks.values()), 3),
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table of errors for each shifted view."""
    lines = [
        "| shifted view | shifts | median error | error ≤ 1 image | ≤ 2 | largest within ±30 | largest of all |",
        "|---|---|---|---|---|---|---|",
    ]
    for view in dict.fromkeys(row["view"] for row in rows):
        of = [row for row in rows if row["view"] == view]
        error = np.array([abs(row["error"]) for row in of])
        near = np.array([abs(row["shift"]) <= 30 for row in of])
        lines.append(
            f"| {view} | {len(of)} | {np.median(error):.2f} | {(error <= 1).sum()} | {(error <= 2).sum()} | "
            f"{error[near].max():.1f} | {error.max():.1f} |"
        )
    wrong = [row for row in rows if abs(row["error"]) > 4]
    warned = sum(row["confidence"] < MIN_CONFIDENCE for row in wrong)
    sure = sum(row["confidence"] >= MIN_CONFIDENCE for row in rows)
    lines += [
        "",
        f"Of {len(rows)} alignments {sum(abs(row['error']) <= 1 for row in rows)} are within an image, and {sure} "
        f"came without the warning that they are not sure. {len(wrong) or 'None'} are wrong by more than 4 images"
        + (f"; {warned} of these came with the warning." if wrong else "."),
    ]
    return lines


if __name__ == "__main__":
    main()
