"""Runs in MediaPipe's own environment, started by `mcss.experiments.mediapipe_process`; knows nothing of mcss.

First it writes a line of JSON with the names of the landmarks. Then it answers requests: a line of JSON
(images, height, width) and the images, RGB bytes; the answer is a line of JSON (found, wall, processor) and
the world landmarks, (images, 33, 3) float32 in metres, NaN where nobody was found.
"""

import json
import os
import sys
import time
from typing import IO, Any

import numpy as np


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    import mediapipe

    pose = mediapipe.solutions.pose
    model = pose.Pose(static_image_mode=True, model_complexity=int(sys.argv[1]))
    _write(answers, {"landmarks": [landmark.name for landmark in pose.PoseLandmark]})
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        shape = (asked["images"], asked["height"], asked["width"], 3)
        images = np.frombuffer(sys.stdin.buffer.read(int(np.prod(shape))), np.uint8).reshape(shape)
        world = np.full((len(images), 33, 3), np.nan, np.float32)
        wall, processor = [], []
        for number, image in enumerate(images):
            started = time.perf_counter(), time.process_time()
            found = model.process(image).pose_world_landmarks
            wall.append(time.perf_counter() - started[0])
            processor.append(time.process_time() - started[1])
            if found is not None:
                world[number] = [(point.x, point.y, point.z) for point in found.landmark]
        present = np.isfinite(world).all((1, 2)).tolist()
        _write(answers, {"found": present, "wall": wall, "processor": processor}, world.tobytes())


def _write(answers: IO[bytes], header: dict[str, Any], payload: bytes = b"") -> None:
    answers.write(json.dumps(header).encode() + b"\n" + payload)
    answers.flush()


if __name__ == "__main__":
    main()
