"""MediaPipe's pose model as something to compare with: in a process and an environment of its own.

Its last release that carries its models needs versions of numpy and protobuf that mcss cannot live with. So it is
installed into a virtual environment in the cache folder and spoken to over pipes (see
`mcss.experiments.mediapipe_driver`).
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from torch import Tensor

from mcss import metrics
from mcss.experiments import mediapipe_driver
from mcss.skeletons import JOINTS
from mcss.training.feature_cache import default_cache

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
"""The twelve joints that both have: ours (`JOINTS`; Foot is the ankle) to MediaPipe's name."""


class MediaPipeError(RuntimeError):
    """MediaPipe cannot be installed or does not run here."""


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What MediaPipe says of some images."""

    names: tuple[str, ...]
    """Of the 33 landmarks, MediaPipe's own."""
    world: Float32[np.ndarray, "n 33 3"]
    """Millimetres about the middle of the hips, x to the right, y down; NaN where no person was found."""
    found: Bool[np.ndarray, " n"]
    wall: Float64[np.ndarray, " n"]
    """Seconds that each image took."""
    processor: Float64[np.ndarray, " n"]
    """Seconds of all processors together that each image took."""

    def shared(self) -> Float32[np.ndarray, "n 12 3"]:
        """The joints that both have, in the order of `SHARED`."""
        return self.world[:, [self.names.index(name) for name in SHARED.values()]]


def shared_pa_mpjpe(pose: Float[Tensor, "n 12 3"], target: Float[Tensor, "n 17 3"]) -> Float[Tensor, " n"]:
    """PA-MPJPE in mm over the twelve joints that both have; NaN where one of the two poses is not known.

    Args:
        pose: In the order of `SHARED`, any frame and unit.
        target: The true poses, any frame, mm.
    """
    true = shared_joints(target)
    known = (pose.isfinite() & true.isfinite()).all(-1).all(-1)
    errors = torch.full((len(pose),), torch.nan, dtype=torch.float64)
    errors[known] = metrics.pa_mpjpe(pose[known], true[known])
    return errors


def shared_joints(pose: Float[Tensor, "n 17 3"]) -> Float[Tensor, "n 12 3"]:
    """The joints that MediaPipe has too, in the order of `SHARED`."""
    return pose[:, [JOINTS.index(name) for name in SHARED]]


def install(folder: Path | None = None) -> Path:
    """The Python of an environment that has MediaPipe; made at the first call, about a gigabyte.

    Args:
        folder: Where; by default in mcss's cache folder.

    Raises:
        MediaPipeError: pip cannot install it here (no connection, no wheel for this Python or system).
    """
    folder = folder or default_cache() / f"mediapipe-{VERSION}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed"
    if done.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)  # half an environment
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"mediapipe=={VERSION}"],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            lines = [line for line in ran.stderr.strip().splitlines() if line.startswith("ERROR")]
            reason = lines[-1] if lines else ran.stderr[-200:]
            raise MediaPipeError(
                f"mediapipe {VERSION} could not be installed in {folder} ({reason}); "
                "it needs a connection and CPython 3.9 to 3.12"
            )
    done.touch()
    return python


class MediaPipeProcess:
    """A running MediaPipe; see `mediapipe`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.names = tuple(self._answer()["landmarks"])

    def landmarks(self, images: UInt8[np.ndarray, "n height width 3"]) -> Landmarks:
        """Find the person in each image, RGB, independently of the others.

        Raises:
            MediaPipeError: The process ended.
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
        return Landmarks(
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
    """MediaPipe in a process of its own, which ends with the block.

    Args:
        python: Of an environment that has it; None to `install` one.
        complexity: 0 Lite, 1 Full, 2 Heavy (whose model the wheel does not carry).

    Raises:
        MediaPipeError: It cannot be installed, or does not start.
    """
    command = [str(python or install()), "-I", mediapipe_driver.__file__, str(complexity)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield MediaPipeProcess(process)
    finally:
        with contextlib.suppress(OSError):  # it ended before, and something was still to be sent
            _pipe(process.stdin).close()
        _pipe(process.stdout).close()
        process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
