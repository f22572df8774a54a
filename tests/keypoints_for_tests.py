"""2D keypoints of a standing person, and files of them as tools write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mcss.data.formats.keypoint_layouts import COCO

PLACES = {
    **{"nose": (100, 40), "left_eye": (104, 36), "right_eye": (96, 36), "left_ear": (108, 38), "right_ear": (92, 38)},
    **{"left_shoulder": (120, 70), "right_shoulder": (80, 70), "left_elbow": (130, 100), "right_elbow": (70, 100)},
    **{"left_wrist": (135, 130), "right_wrist": (65, 130), "left_hip": (112, 140), "right_hip": (88, 140)},
    **{"left_knee": (114, 180), "right_knee": (86, 180), "left_ankle": (115, 220), "right_ankle": (85, 220)},
    **{"neck": (100, 70), "mid_hip": (100, 140)},
}


def triples(names: tuple[str, ...], shift: float = 0.0, score: float = 0.9) -> list[float]:
    return [float(v) for n in names for v in (*(np.array(PLACES.get(n, (0, 0))) + shift), score * (n in PLACES))]


def dump(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco(names: list[str], **more: Any) -> dict[str, Any]:
    """A file of COCO in which the person of image i is shifted by i pixels."""
    people = [{"image_id": i, "category_id": 1, "keypoints": triples(COCO, shift=i)} for i in range(len(names))]
    images = [{"id": i, "file_name": name, **more} for i, name in enumerate(names)]
    category = {"id": 1, "name": "person", "keypoints": list(COCO)}
    return {"images": images, "annotations": people, "categories": [category]}
