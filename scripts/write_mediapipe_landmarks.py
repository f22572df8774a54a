"""Write what MediaPipe's pose model finds in the images of a capture, for `mcss reproduce table1 --landmarks FILE`.

    python scripts/write_mediapipe_landmarks.py captures/synthetic runs/mediapipe.parquet

The last MediaPipe release that carries its models needs versions of numpy and protobuf that mcss cannot use. So it is
installed at the first call into a virtual environment in mcss's cache folder (about a gigabyte; it needs a connection
and CPython 3.11 or 3.12), where this file runs again with ``--serve`` and exchanges images and landmarks over pipes:
first the names of the landmarks, a line of JSON; then for each request (a line of JSON and RGB bytes) a line of JSON
and the landmarks in metres as float32, NaN where no person was found.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

# Nothing of mcss is imported up here: the environment of MediaPipe, which runs `serve`, does not have it.
if TYPE_CHECKING:
    from torch import Tensor

    from mcss.data.capture import Capture
    from mcss.evaluation.predictions import EvaluationSettings
    from mcss.progress import Progress

VERSION = "0.10.21"
"""The last release whose wheel carries the models."""

LANDMARKS = 33

SHARED = {
    "RHip": "RIGHT_HIP",
    "RKnee": "RIGHT_KNEE",
    "RFoot": "RIGHT_ANKLE",
    "LHip": "LEFT_HIP",
    "LKnee": "LEFT_KNEE",
    "LFoot": "LEFT_ANKLE",
    "LShoulder": "LEFT_SHOULDER",
    "LElbow": "LEFT_ELBOW",
    "LWrist": "LEFT_WRIST",
    "RShoulder": "RIGHT_SHOULDER",
    "RElbow": "RIGHT_ELBOW",
    "RWrist": "RIGHT_WRIST",
}
"""The twelve joints that both have: name in `mcss.skeletons.JOINTS` (where Foot is the ankle) to MediaPipe's name."""

_BATCH_SIZE = 64


class MediaPipeError(RuntimeError):
    """MediaPipe cannot be installed or does not run here."""


@dataclass(frozen=True, eq=False)
class MediaPipeLandmarks:
    """What MediaPipe finds in some images."""

    names: tuple[str, ...]
    """MediaPipe's names of the 33 landmarks."""
    world: np.ndarray
    """float32 (n, 33, 3): millimetres from the middle of the hips, x right, y down; NaN where no person was found."""
    found: np.ndarray
    """bool (n): whether a person was found."""
    wall: np.ndarray
    """Elapsed seconds of each image."""
    processor: np.ndarray
    """Processor seconds of each image, over all processors."""

    def shared(self) -> np.ndarray:
        """The joints (n, 12, 3) that both have, in the order of `SHARED`."""
        return np.asarray(self.world[:, [self.names.index(name) for name in SHARED.values()]])


def shared_joints(pose: "Tensor") -> "Tensor":
    """The joints (n, 12, 3) of poses (n, 17, 3) that MediaPipe has too, in the order of `SHARED`."""
    from mcss.skeletons import JOINTS

    return pose[:, [JOINTS.index(name) for name in SHARED]]


def shared_pa_mpjpe(pose: "Tensor", target: "Tensor") -> "Tensor":
    """PA-MPJPE in mm (n) over the twelve shared joints; NaN where one of the two poses is unknown.

    Args:
        pose: (n, 12, 3), in the order of `SHARED`, in any frame and unit.
        target: The true poses (n, 17, 3) in mm, in any frame.
    """
    import torch

    from mcss import metrics

    true = shared_joints(target)
    known = (pose.isfinite() & true.isfinite()).all(-1).all(-1)
    errors = torch.full((len(pose),), torch.nan, dtype=torch.float64)
    errors[known] = metrics.pa_mpjpe(pose[known], true[known])
    return errors


def install(folder: Path | None = None) -> Path:
    """Make an environment that has MediaPipe, unless it is there, and return its Python.

    Args:
        folder: Folder of the environment; by default in mcss's cache folder.

    Raises:
        MediaPipeError: pip cannot install it here (no connection, no wheel for this Python or system).
    """
    if folder is None:
        from mcss.files import default_cache

        folder = default_cache() / f"mediapipe-{VERSION}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed"
    if done.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)  # an environment that was not finished
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"mediapipe=={VERSION}"],
    ):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            lines = [line for line in result.stderr.strip().splitlines() if line.startswith("ERROR")]
            reason = lines[-1] if lines else result.stderr[-200:]
            raise MediaPipeError(
                f"mediapipe {VERSION} could not be installed in {folder} ({reason}); "
                "it needs a connection and CPython 3.11 or 3.12"
            )
    done.touch()
    return python


class MediaPipeProcess:
    """A running MediaPipe; see `mediapipe`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.names = tuple(self._answer()["landmarks"])

    def landmarks(self, images: np.ndarray) -> MediaPipeLandmarks:
        """Find the person in each RGB image (n, height, width, 3), independently of the others.

        Raises:
            MediaPipeError: The process has ended.
        """
        count, height, width, _ = images.shape
        request = json.dumps({"images": count, "height": height, "width": width}).encode() + b"\n"
        try:
            _pipe(self._process.stdin).write(request + np.ascontiguousarray(images).tobytes())
            _pipe(self._process.stdin).flush()
        except OSError as error:
            raise MediaPipeError(f"MediaPipe's process ended ({error})") from error
        answer = self._answer()
        size = count * LANDMARKS * 3 * 4
        raw = _pipe(self._process.stdout).read(size)
        if len(raw) != size:
            raise MediaPipeError("MediaPipe's process ended within an answer")
        return MediaPipeLandmarks(
            names=self.names,
            world=1000 * np.frombuffer(raw, np.float32).reshape(count, LANDMARKS, 3),
            found=np.array(answer["found"], bool),
            wall=np.array(answer["wall"], np.float64),
            processor=np.array(answer["processor"], np.float64),
        )

    def _answer(self) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise MediaPipeError(f"MediaPipe's process ended (status {self._process.wait()}); run it to see why")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def mediapipe(python: Path | None = None, complexity: int = 1) -> Iterator[MediaPipeProcess]:
    """Run MediaPipe in a process of its own, which ends with the block.

    Args:
        python: Python of an environment that has MediaPipe; None to `install` one.
        complexity: 0 Lite, 1 Full, 2 Heavy (whose model the wheel does not carry).

    Raises:
        MediaPipeError: It cannot be installed, or does not start.
    """
    command = [str(python or install()), "-I", __file__, "--serve", str(complexity)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield MediaPipeProcess(process)
    finally:
        with contextlib.suppress(OSError):  # the process has ended before all was sent
            _pipe(process.stdin).close()
        _pipe(process.stdout).close()
        process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def serve(complexity: int) -> None:
    """Answer requests in MediaPipe's environment until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    import mediapipe

    pose = mediapipe.solutions.pose
    model = pose.Pose(static_image_mode=True, model_complexity=complexity)
    _write_answer(answers, {"landmarks": [landmark.name for landmark in pose.PoseLandmark]})
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        shape = (request["images"], request["height"], request["width"], 3)
        images = np.frombuffer(sys.stdin.buffer.read(int(np.prod(shape))), np.uint8).reshape(shape)
        world = np.full((len(images), LANDMARKS, 3), np.nan, np.float32)
        wall, processor = [], []
        for number, image in enumerate(images):
            started = time.perf_counter(), time.process_time()
            landmarks = model.process(image).pose_world_landmarks
            wall.append(time.perf_counter() - started[0])
            processor.append(time.process_time() - started[1])
            if landmarks is not None:
                world[number] = [(point.x, point.y, point.z) for point in landmarks.landmark]
        found = np.isfinite(world).all((1, 2)).tolist()
        _write_answer(answers, {"found": found, "wall": wall, "processor": processor}, world.tobytes())


def _write_answer(answers: IO[bytes], header: dict[str, Any], payload: bytes = b"") -> None:
    answers.write(json.dumps(header).encode() + b"\n" + payload)
    answers.flush()


def write_landmarks(
    path: Path,
    capture: "Capture",
    split: str,
    settings: "EvaluationSettings",
    progress: "Progress",
    python: Path | None = None,
) -> None:
    """Write what MediaPipe finds in the evaluated images of a split, as `mcss.experiments.landmarks` reads it.

    Raises:
        MediaPipeError: It cannot be installed, or does not run.
    """
    import pyarrow as pa
    import pyarrow.parquet

    from mcss.evaluation.predictions import evaluated_instants
    from mcss.experiments.landmarks import MILLISECONDS, PROGRAM
    from mcss.files import replacing
    from mcss.models.prediction import predict_rows

    instants = evaluated_instants(capture, split, settings)
    instant, view = np.nonzero(instants.rows >= 0)
    rows = instants.rows[instant, view]
    with mediapipe(python) as process, progress.task("MediaPipe", len(rows)) as task:
        batches = predict_rows(lambda batch: process.landmarks(capture.decode(batch)), rows, task, _BATCH_SIZE)
    joints = np.concatenate([batch.shared() for batch in batches])
    milliseconds = 1000 * float(np.median(np.concatenate([batch.wall for batch in batches])))
    found = np.isfinite(joints).all(axis=(1, 2))
    of_image = {
        "subject": [instants.subjects[s] for s in instants.subject[instant[found]]],
        "sequence": [instants.sequences[s] for s in instants.sequence[instant[found]]],
        "frame": instants.frame[instant[found]].tolist(),
        "view": [instants.views[v] for v in view[found]],
    }
    columns = {name: [value for value in values for _ in SHARED] for name, values in of_image.items()}
    coordinates = joints[found].reshape(-1, 3)
    table = pa.table(
        {
            **columns,
            "joint": list(SHARED) * int(found.sum()),
            **{axis: coordinates[:, i] for i, axis in enumerate("xyz")},
        }
    )
    metadata = {PROGRAM: f"MediaPipe {VERSION}".encode(), MILLISECONDS: f"{milliseconds:.1f}".encode()}
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), temporary)


def main() -> None:
    """Read the command line and write the file."""
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture")
    parser.add_argument("out", type=Path, help="the .parquet file")
    parser.add_argument("--split", default="test")
    parser.add_argument("--instants", type=int, default=500, help="evenly spread over the split; 0 for all")
    options = parser.parse_args()

    from mcss.data.capture import Capture
    from mcss.evaluation.predictions import EvaluationSettings
    from mcss.progress import RichProgress

    settings = EvaluationSettings(max_instants=options.instants or None)
    write_landmarks(options.out, Capture.open(options.capture), options.split, settings, RichProgress())


if __name__ == "__main__":
    main()
