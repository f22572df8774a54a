"""The page of a diagnosis: the result of every check, with images of the worst cases."""

import numpy as np
from jaxtyping import Int

from mcss.data.capture import Capture
from mcss.data.doctor.checks import Diagnosis
from mcss.data.provenance import Provenance
from mcss.errors import CaptureError
from mcss.images import encode_jpeg
from mcss.viz.html import page_environment
from mcss.viz.skeleton import draw_skeleton

MARKS = {"ok": "✓", "note": "i", "fault": "✗", "not checked": "–"}
"""A sign for each verdict, so that colour is not all that tells them apart."""


def doctor_page(diagnosis: Diagnosis, capture: Capture, made: Provenance) -> str:
    """An HTML page that contains its images; joints are drawn if pose and camera are known."""
    shown = [check for check in diagnosis.checks if check.verdict in ("fault", "note")]
    images = {case.where: _images(capture, np.array(case.rows, np.int64)) for check in shown for case in check.cases}
    return (
        page_environment()
        .get_template("doctor.html")
        .render(diagnosis=diagnosis, shown=shown, images=images, marks=MARKS, made=made)
    )


def _images(capture: Capture, rows: Int[np.ndarray, " n"]) -> list[tuple[str, bytes]]:
    """(view, JPEG) of the given rows; images that cannot be decoded are left out."""
    instants = capture.instants()
    images = []
    for row in rows:
        instant, view = (int(index[0]) for index in np.nonzero(instants.rows == row))
        try:
            pixels = capture.decode(np.array([row]))[0]
        except CaptureError:
            continue
        draw_skeleton(pixels, capture.joints_in_crops(np.array([row]), instants.pose[[instant]])[0])
        images.append((instants.views[view], encode_jpeg(pixels)))
    return images
