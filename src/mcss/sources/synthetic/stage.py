"""Stages: the places in which the synthetic people perform, whose panoramas light them, and the cameras around.

A panorama is projected onto a disc of floor and a dome over it, so that all cameras see one consistent place.
Coordinates are metres with +Z up; the floor is z = 0, and the centre of the stage is the origin.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from mcss.data.cameras import Camera
from mcss.images import read_image
from mcss.sources.synthetic.rasteriser import facing

PanoramaName = Literal[
    "apartment", "bridge", "city", "dawn", "esplanade", "forest", "hall", "lab", "lobby",
    "night", "park", "sky", "studio", "sunrise", "sunset", "venice", "warehouse", "workshop",
]  # fmt: skip
"""The panoramas of @pmndrs/assets (CC0)."""

StageName = PanoramaName | Literal["cyclorama"]
"""A place: one of the panoramas, or the plain studio of `_cyclorama`."""

PANORAMAS: tuple[PanoramaName, ...] = get_args(PanoramaName)
STAGES: tuple[StageName, ...] = ("cyclorama", *PANORAMAS)
ASSETS = Path(__file__).parent / "assets"

MAX_LIGHT = 60.0
"""Brightest value of a panorama. What is brighter is the sun itself, which is a light of its own."""

SOURCE_SIZE = 1000
"""Width and height of a camera's full image in pixels."""

MARGIN = 200
"""Pixels of the stage that are rendered around the full image, for crops that reach beyond its border."""

STAGE_RADIUS = 1.4
"""Metres around the centre within which people stay; all cameras see all of it."""

_WHITE = 3.0
"""Brightest light that is shown; see `empty_stage`."""

_FILL = 0.45
"""Least mean light on a person, so that they are visible in dark rooms (1 is a white wall in the light)."""


def encode_light(light: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Encode linear light in 8 bits as x / (1 + x) with a gamma of 2.2, which is finest where an image shows it."""
    return np.asarray(np.round((light / (1 + light)) ** (1 / 2.2) * 255), np.uint8)


def decode_light(coded: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """Decode what `encode_light` encoded."""
    share = (coded.astype(np.float32) / 255) ** 2.2
    return np.minimum(share / np.maximum(1 - share, 1e-3), MAX_LIGHT).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Stage:
    """A place with its light.

    Attributes:
        name: Name of the place.
        panorama: Linear light; rows from the zenith down, columns from −X through −Y, +X and +Y.
        harmonics: Irradiance as spherical harmonics (see `lighting.light_vertices`).
        sun: Unit vector towards the brightest spot of the sky or ceiling.
        sun_colour: Irradiance by the sun.
        eye: Height from which the panorama was taken.
        radius: Radius of floor and dome.
        wear: How much dirt and wear the floor shows, 0 to 1.
    """

    name: StageName
    panorama: Float32[np.ndarray, "h w 3"]
    harmonics: Float32[np.ndarray, "9 3"]
    sun: Float32[np.ndarray, " 3"]
    sun_colour: Float32[np.ndarray, " 3"]
    eye: float = 1.6
    radius: float = 10.0
    wear: float = 1.0


@cache
def load_stage(name: StageName) -> Stage:
    """Load a place, and compute its light from its panorama."""
    if name == "cyclorama":
        return _cyclorama()
    path = ASSETS / f"panorama_{name}.jpg"
    if not path.is_file():
        raise FileNotFoundError(f"no panorama at {path}: install mcss again, or run scripts/make_panoramas.py")
    light = decode_light(read_image(path))
    height, width = light.shape[:2]
    # The sun is the brightest spot of the upper part, but never so low that shadows leave the stage.
    blurred = cv2.GaussianBlur(light, (0, 0), 6)
    upper = blurred.mean(axis=-1)[: int(height * 0.42)]
    row, column = np.unravel_index(int(upper.argmax()), upper.shape)
    polar = float(np.clip((row + 0.5) / height * np.pi, 0.25, 1.0))
    turn = ((column + 0.5) / width - 0.5) * 2 * np.pi
    sun = np.array([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)])
    harmonics = _irradiance(light.clip(0, 4)) * 0.9
    strength = float(np.clip(blurred.max() / 4, 0.4, 1.6))
    sky = light[: height // 2].clip(0, 4).mean((0, 1))
    level = float(harmonics[0].mean())
    gain = max(1.0, _FILL / level)
    sun_colour = (0.5 + 0.5 * sky / sky.mean()) * level * gain * strength
    return Stage(
        name,
        light,
        (harmonics * gain).astype(np.float32),
        sun.astype(np.float32),
        sun_colour.astype(np.float32),
    )


def _cyclorama() -> Stage:
    """Make a studio whose grey floor merges into a grey wall all around, lit evenly from above.

    Nothing in an image reveals where in the room the person stands, or which camera took it.
    """
    height, width = 128, 256
    up = np.cos((np.arange(height) + 0.5) / height * np.pi)
    light = np.where(up > 0, _WALL + (_CEILING - _WALL) * np.clip(up - 0.6, 0, 1) / 0.4, _WALL)
    panorama = np.tile(light[:, None, None], (1, width, 3)).astype(np.float32)
    harmonics = _irradiance(panorama)
    sun = np.array([0.1, 0.0, 1.0]) / np.hypot(0.1, 1.0)
    return Stage(
        "cyclorama",
        panorama,
        harmonics.astype(np.float32),
        sun.astype(np.float32),
        np.full(3, 1.2 * harmonics[0].mean(), np.float32),
        wear=0.0,
    )


_WALL, _CEILING = 0.42, 2.4
"""Light of the cyclorama's wall and floor, and of its ceiling (1 is a white wall in the light)."""


def _irradiance(light: Float32[np.ndarray, "h w 3"]) -> Float[np.ndarray, "9 3"]:
    """Return the irradiance, divided by π, as spherical harmonics of degree 2.

    Reference:
        Ramamoorthi and Hanrahan, SIGGRAPH 2001. Normalisation constants are included in the coefficients.
    """
    height, width = light.shape[:2]
    polar = (np.arange(height) + 0.5) / height * np.pi
    turn = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    x, y = np.outer(np.sin(polar), np.cos(turn)), np.outer(np.sin(polar), np.sin(turn))
    z = np.broadcast_to(np.cos(polar)[:, None], x.shape)
    area = np.broadcast_to(np.sin(polar)[:, None], x.shape) * np.pi / height * 2 * np.pi / width
    basis = [np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y]
    norms = [0.282095, *[0.488603] * 3, 1.092548, 1.092548, 0.315392, 1.092548, 0.546274]
    spread = [np.pi, *[2 * np.pi / 3] * 3, *[np.pi / 4] * 5]
    return np.stack(
        [
            (light * (b * area)[..., None]).sum((0, 1)) * k * k * a / np.pi
            for b, k, a in zip(basis, norms, spread, strict=True)
        ]
    )


@dataclass(frozen=True, eq=False)
class StageCamera:
    """A pinhole camera at the edge of the stage, in metres."""

    position: Float[np.ndarray, " 3"]
    rotation: Float[np.ndarray, "3 3"]
    """World to camera; its rows are right, down, forward."""
    focal: float
    """Focal length in pixels of the full image, whose centre is the principal point."""

    @property
    def translation(self) -> Float[np.ndarray, " 3"]:
        """Translation in metres, such that x_camera = rotation @ x_world + translation."""
        return np.asarray(-self.rotation @ self.position)

    def matrices(self) -> Camera:
        """Return the camera in millimetres, as a capture stores it."""
        half = SOURCE_SIZE / 2
        intrinsics = np.array([[self.focal, 0, half], [0, self.focal, half], [0, 0, 1.0]])
        return Camera(self.rotation, self.translation * 1000, intrinsics)

    def to_ground(self) -> Float[np.ndarray, "3 3"]:
        """Return the map from pixels (x, y, 1) to w · (X, Y, 1) on the floor in metres; w < 0 where there is floor."""
        half = SOURCE_SIZE / 2
        ray = self.rotation.T @ np.array(
            [[1 / self.focal, 0, -half / self.focal], [0, 1 / self.focal, -half / self.focal], [0, 0, 1.0]]
        )
        x, y, z = self.position
        return np.stack([x * ray[2] - z * ray[0], y * ray[2] - z * ray[1], ray[2]])


def draw_cameras(rng: np.random.Generator, views: int) -> list[StageCamera]:
    """Draw cameras spread evenly around the stage, at heights from the chest to above the head."""
    start = rng.uniform(0, 2 * np.pi)
    cameras = []
    for view in range(views):
        turn = start + 2 * np.pi * view / views + rng.uniform(-0.2, 0.2)
        distance, height = rng.uniform(4.6, 5.4), rng.uniform(1.1, 2.3)
        position = np.array([distance * np.cos(turn), distance * np.sin(turn), height])
        aim = np.array([*rng.uniform(-0.1, 0.1, 2), 0.95])
        cameras.append(StageCamera(position, facing(aim - position), float(rng.uniform(0.90, 1.0) * SOURCE_SIZE)))
    return cameras


def empty_stage(stage: Stage, camera: StageCamera) -> Float32[np.ndarray, "h w 3"]:
    """Return the linear light that a camera sees without a person, with a border of `MARGIN` pixels on each side."""
    size = SOURCE_SIZE + 2 * MARGIN
    # Light far above white matters for lighting alone; in an image it would cause ringing around windows.
    shown = np.minimum(stage.panorama, _WHITE)
    shown = np.concatenate([shown[:, -4:], shown, shown[:, :4]], axis=1)
    light = np.empty((size, size, 3), np.float32)
    for first in range(0, size, _ROWS):  # in strips, to save memory
        light[first : first + _ROWS] = _strip(stage, camera, shown, np.arange(first, min(first + _ROWS, size)))
    return light


_ROWS = 100
"""Rows of the image that are computed at a time."""


def _strip(
    stage: Stage, camera: StageCamera, shown: Float32[np.ndarray, "h w_and_8 3"], rows: Int[np.ndarray, " rows"]
) -> Float32[np.ndarray, "rows columns 3"]:
    size = SOURCE_SIZE + 2 * MARGIN
    across, down = np.meshgrid(
        (np.arange(size) + 0.5 - size / 2) / camera.focal, (rows + 0.5 - size / 2) / camera.focal
    )
    rays = np.stack([across, down, np.ones_like(across)], -1) @ camera.rotation
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    forward = rays @ camera.position
    distance = -forward + np.sqrt(forward**2 - camera.position @ camera.position + stage.radius**2)
    with np.errstate(divide="ignore"):
        floor = np.where(rays[..., 2] < -1e-6, -camera.position[2] / rays[..., 2], np.inf)
    places = camera.position + np.minimum(distance, floor)[..., None] * rays
    seen = places - np.array([0, 0, stage.eye])
    seen /= np.linalg.norm(seen, axis=-1, keepdims=True)
    height, width = stage.panorama.shape[:2]
    column = (np.arctan2(seen[..., 1], seen[..., 0]) / (2 * np.pi) + 0.5) * width - 0.5 + 4
    row = np.arccos(seen[..., 2].clip(-1, 1)) / np.pi * height - 0.5
    light = cv2.remap(
        shown, column.astype(np.float32), row.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    x, y = (places[..., axis].astype(np.float32) * 64 % 512 for axis in (0, 1))
    grain = cv2.remap(_floor_grain(), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    fade = np.clip(1.2 - np.hypot(places[..., 0], places[..., 1]) / stage.radius, 0, 1)
    return np.asarray(
        np.maximum(light, 0) * np.where(floor < distance, 1 + stage.wear * fade * grain, 1)[..., None], np.float32
    )


@cache
def _floor_grain() -> Float32[np.ndarray, "512 512"]:
    """Return eight metres of dirt and wear, since a panorama of 512 pixels leaves the floor without detail."""
    rng = np.random.default_rng(0xF1007)
    grain = np.zeros((512, 512), np.float32)
    for blur, amount in ((0.8, 0.05), (3.0, 0.05), (12.0, 0.06)):
        noise = cv2.GaussianBlur(rng.normal(size=(512, 512)).astype(np.float32), (0, 0), blur)
        grain += amount * noise / noise.std()
    return grain
