"""The page of a diagnosis: what every check found, with images of the worst cases."""

import numpy as np
from jaxtyping import Int

from mcss.data.cameras import joints_in_crops
from mcss.data.capture import Capture
from mcss.data.contact_sheet import draw_skeleton
from mcss.data.doctor.checks import Diagnosis
from mcss.data.provenance import Provenance
from mcss.errors import CaptureError
from mcss.images import encode_jpeg
from mcss.viz.html import page_environment

MARKS = {"ok": "✓", "note": "i", "fault": "✗", "not checked": "–"}
"""Of the verdicts; a colour is never all that tells them apart."""


def doctor_page(diagnosis: Diagnosis, capture: Capture, made: Provenance) -> str:
    """An HTML page that holds its images; joints are drawn in where pose and camera are known."""
    shown = [check for check in diagnosis.checks if check.verdict in ("fault", "note")]
    images = {}
    for check in shown:
        for case in check.cases:
            images[case.where] = _images(capture, np.array(case.rows, np.int64))
    return (
        page_environment()
        .get_template("doctor.html")
        .render(diagnosis=diagnosis, shown=shown, images=images, marks=MARKS, made=made)
    )


def _images(capture: Capture, rows: Int[np.ndarray, " n"]) -> list[tuple[str, bytes]]:
    """(view, JPEG) of some rows; what cannot be decoded is left out."""
    instants = capture.instants()
    found = []
    for row in rows:
        instant, view = (int(place[0]) for place in np.nonzero(instants.rows == row))
        try:
            pixels = capture.decode(np.array([row]))[0]
        except CaptureError:
            continue
        draw_skeleton(pixels, joints_in_crops(capture, np.array([row]), instants.take(np.array([instant])))[0])
        found.append((instants.views[view], encode_jpeg(pixels)))
    return found
