"""Measure the crops of the real clip against the 2D keypoints that come with it, and write docs/real_footage.md.

    python scripts/fetch_real_clip.py footage --keypoints keypoints
    mcss import videos footage captures/real
    python scripts/check_real_crops.py captures/real keypoints

If a detector found the people, this writes only the table of that detector:

    mcss import videos footage captures/blazepose --find blazepose
    python scripts/check_real_crops.py captures/blazepose keypoints --find blazepose
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import lance
import numpy as np

from mcss.images import decode_jpeg
from write_table import write_between

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Measure, then write the table and the contact sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("keypoints", type=Path)
    parser.add_argument("--find", help="the detector that found the people in the capture")
    arguments = parser.parse_args()
    rows = lance.dataset(str(arguments.capture / "frames.lance")).to_table().to_pylist()
    views = sorted({row["view"] for row in rows})
    lines = [
        "| view | instants | body points inside the crop | worst instant | the body's longer side, of the crop's |",
        "|---|---|---|---|---|",
    ]
    for view in views:
        of_view = rows_of(rows, view)
        inside, fill = zip(*(measured(row, arguments.keypoints) for row in of_view), strict=True)
        share = np.concatenate(inside).mean()
        worst = min(float(points.mean()) for points in inside)
        lines.append(f"| {view} | {len(of_view)} | {share:.1%} | {worst:.0%} | {np.mean(fill):.0%} |")
    note = (
        "Written by `scripts/check_real_crops.py`. Body points: OpenPose BODY_25B of the largest person, confidence "
        "above 0.3, as they come with the clip; a detector's, not marked by hand."
    )
    block = "crops" if arguments.find is None else f"crops-{arguments.find}"
    write_between(DOCS / "real_footage.md", block, "\n".join([note, "", *lines]))
    print("\n".join(lines))
    if arguments.find is not None:
        return
    (tracks,) = Path(f"{arguments.capture}.tracks").glob("*/*.jpg")
    shutil.copyfile(tracks, DOCS / "real_clip_tracks.jpg")
    sheet = np.vstack([np.hstack([decode_jpeg(row["image"]) for row in rows_of(rows, view)[::9]]) for view in views])
    cv2.imwrite(str(DOCS / "real_clip_sheet.jpg"), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def rows_of(rows: list[dict[str, Any]], view: str) -> list[dict[str, Any]]:
    """Return the rows of a view in order of time."""
    return sorted((row for row in rows if row["view"] == view), key=lambda row: int(row["frame"]))


def measured(row: dict[str, Any], keypoints: Path) -> tuple[Any, float]:
    """Return which body points lie inside a crop, and how much of its side the body takes."""
    view, frame = row["view"], row["frame"]
    people = json.loads((keypoints / f"{view}_json" / f"{view}.{frame:04d}.json").read_text())["people"]
    bodies = [np.array(person["pose_keypoints_2d"]).reshape(-1, 3) for person in people]
    bodies = [body[body[:, 2] > 0.3, :2] for body in bodies]
    body = max((body for body in bodies if len(body) >= 8), key=lambda body: float(np.prod(np.ptp(body, axis=0))))
    x0, y0, x1, y1 = row["box"]
    return ((body >= (x0, y0)) & (body <= (x1, y1))).all(axis=1), float(np.ptp(body, axis=0).max() / (x1 - x0))


if __name__ == "__main__":
    main()
