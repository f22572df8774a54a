"""Rendering: the images of a dressed person on a stage at one instant, from all cameras."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from mcss.sources.synthetic import lighting, rasteriser
from mcss.sources.synthetic.body import Body
from mcss.sources.synthetic.figure import Figure
from mcss.sources.synthetic.rasteriser import SAMPLES, Backdrop, ShadedMesh, TextureAtlas, facing
from mcss.sources.synthetic.stage import MARGIN, SOURCE_SIZE, Stage, StageCamera, empty_stage
from mcss.video.crops import Crop

CROP = 1.15
"""Side of a crop divided by the longer side of the person's bounding box."""

_SHADOW_SIZE = 256
"""Width and height of the shadow map."""
_SHADOW_BIAS = 0.02
"""Metres by which a surface must lie behind another one to be in its shadow."""
_GROUND_CELLS, _GROUND_CELL = 160, 0.03
"""Number of cells per side of the floor around the person, and the side of a cell in metres."""
_CONTACT_HEIGHT = 0.4
"""Height in metres below which the body darkens the floor."""
_EXPOSURE = 1.15
_NOISE = 0.009

_TONES = rasteriser.tone_table(_EXPOSURE)


@dataclass(frozen=True, eq=False)
class PosedBones:
    """The bones of a body in every frame of a sequence, in the form that the skinning kernel needs."""

    rotations: Float32[np.ndarray, "frames bones 3 3"]
    translations: Float32[np.ndarray, "frames bones 3"]

    @classmethod
    def of(
        cls,
        body: Body,
        orientations: Float[np.ndarray, "frames bones 3 3"],
        heads: Float[np.ndarray, "frames bones 3"],
    ) -> "PosedBones":
        """Convert orientations and heads of the bones."""
        moved = heads - np.einsum("fbij,bj->fbi", orientations, body.joints.astype(np.float64))
        return cls(np.ascontiguousarray(orientations, np.float32), np.ascontiguousarray(moved, np.float32))


def posed_vertices(figure: Figure, bones: PosedBones, frame: int) -> Float32[np.ndarray, "vertices 3"]:
    """Return the figure's vertices at one frame, metres."""
    vertices = np.empty_like(figure.rest)
    lighting.skin(
        figure.rest, figure.starts, figure.bones, figure.weights,
        bones.rotations[frame], bones.translations[frame], vertices,
    )  # fmt: skip
    return vertices


@dataclass(frozen=True, eq=False)
class _LitFigure:
    """A posed figure with what is the same for all cameras."""

    figure: Figure
    vertices: Float32[np.ndarray, "vertices 3"]
    normals: Float32[np.ndarray, "vertices 3"]
    light: Float32[np.ndarray, "vertices 4"]
    """Light on each vertex; see `lighting.light_vertices`."""
    ground: Float32[np.ndarray, "cells cells"]
    """Share of its light that the floor keeps around the person."""
    ground_place: Float32[np.ndarray, " 3"]
    """World x and y of the first cell's corner, and the number of cells per metre."""


class StageRenderer:
    """Cameras around a stage, with the stage's light and the buffers to draw in. Not safe for several threads."""

    def __init__(self, stage: Stage, cameras: Sequence[StageCamera], size: int) -> None:
        self.stage, self.cameras, self.size = stage, tuple(cameras), size
        self._sun = facing(-stage.sun.astype(np.float64)).astype(np.float32)
        self._backdrops = [_halvings(empty_stage(stage, camera)) for camera in cameras]
        self._nearness = np.empty((size * SAMPLES, size * SAMPLES), np.float32)
        self._identity = np.empty((size * SAMPLES, size * SAMPLES), np.int32)
        self._shadow = np.empty((_SHADOW_SIZE, _SHADOW_SIZE), np.float32)
        self._shadow_identity = np.empty((_SHADOW_SIZE, _SHADOW_SIZE), np.int32)
        self._noise = np.random.default_rng(0).normal(0, _NOISE, (size + 64, size + 64)).astype(np.float32)

    def background(self, view: int) -> UInt8[np.ndarray, "side side 3"]:
        """Return the full image of a camera without a person."""
        light = self._backdrops[view][0][MARGIN:-MARGIN, MARGIN:-MARGIN]
        level = (np.sqrt(light) * (rasteriser.TONES / 4)).astype(np.int64).clip(0, rasteriser.TONES - 1)
        return np.asarray(_TONES[level])

    def render(
        self, figure: Figure, vertices: Float32[np.ndarray, "vertices 3"], rng: np.random.Generator
    ) -> list[Crop]:
        """Render one instant in all views; normals, shadows and light, which no camera changes, are computed once."""
        stage = self.stage
        normals = np.empty_like(vertices)
        lighting.vertex_normals(vertices, figure.triangles, normals)
        in_sun, sun_scale, sun_low = self._draw_shadow(figure, vertices)
        light = np.empty((len(vertices), 4), np.float32)
        lighting.light_vertices(
            normals, in_sun, self._shadow, _SHADOW_BIAS, stage.harmonics, stage.sun, stage.sun_colour, light
        )
        ground, ground_place = self._ground(vertices, sun_scale, sun_low)
        lit = _LitFigure(figure, vertices, normals, light, ground, ground_place)
        offsets = rng.integers(0, 64, (len(self.cameras), 2))
        return [self._view(view, lit, *offsets[view].tolist()) for view in range(len(self.cameras))]

    def _draw_shadow(
        self, figure: Figure, vertices: Float32[np.ndarray, "vertices 3"]
    ) -> tuple[Float32[np.ndarray, "vertices 3"], float, Float32[np.ndarray, " 3"]]:
        """Draw the shadow map; return the vertices on it, its scale, and the least coordinates as seen from the sun."""
        screen = vertices @ self._sun.T
        low, high = rasteriser.bounds(screen)
        scale = float((_SHADOW_SIZE - 4) / (high - low)[:2].max())
        screen[:, 0] = (screen[:, 0] - low[0]) * scale + 2
        screen[:, 1] = (screen[:, 1] - low[1]) * scale + 2
        screen[:, 2] = high[2] + 1 - screen[:, 2]
        rasteriser.draw(screen, figure.triangles, figure.sides, figure.cut, False, self._shadow, self._shadow_identity)
        return screen, scale, low

    def _ground(
        self, vertices: Float32[np.ndarray, "vertices 3"], scale: float, low: Float32[np.ndarray, " 3"]
    ) -> tuple[Float32[np.ndarray, "cells cells"], Float32[np.ndarray, " 3"]]:
        """Return the share of its light that each floor cell around the person keeps, and where the cells lie."""
        stage = self.stage
        reach = _GROUND_CELLS * _GROUND_CELL / 2
        middle = rasteriser.bounds(vertices)[:, :2].mean(axis=0)
        corner = middle - stage.sun[:2] / stage.sun[2] * 0.6 - reach
        place = np.array([*corner, 1 / _GROUND_CELL], np.float32)
        contact = np.zeros((_GROUND_CELLS, _GROUND_CELLS), np.float32)
        lighting.press_ground(vertices, corner[0], corner[1], _GROUND_CELL, _CONTACT_HEIGHT, contact)
        soft = cv2.GaussianBlur(cv2.dilate(contact, np.ones((3, 3), np.uint8)), (0, 0), 1.8)
        ground = np.asarray(1 - 0.6 * soft, np.float32)
        to_sun = self._sun[:2] * np.float32(scale)
        to_sun[:, 2] = 2 - low[:2] * scale
        irradiance_from_above = float(stage.harmonics[:, 0] @ np.array([1, 0, 1, 0, 0, 0, 2, 0, 0], np.float32))
        direct = float(stage.sun_colour[0] * stage.sun[2])
        strength = 0.85 * direct / (direct + irradiance_from_above)
        lighting.darken_ground(corner[0], corner[1], _GROUND_CELL, to_sun, self._shadow, strength, ground)
        return ground, place

    def _view(self, view: int, lit: _LitFigure, noise_row: int, noise_column: int) -> Crop:
        """Render the crop of one camera, with noise from an offset of the noise image."""
        camera, size, figure = self.cameras[view], self.size, lit.figure
        screen = np.empty_like(lit.vertices)
        rasteriser.project(
            lit.vertices, camera.rotation.astype(np.float32), camera.translation.astype(np.float32),
            camera.focal, SOURCE_SIZE / 2, SOURCE_SIZE / 2, screen,
        )  # fmt: skip
        low, high = rasteriser.bounds(screen).astype(np.float64)
        side = float((high - low)[:2].max() * CROP)
        x0, y0 = ((low + high) / 2 - side / 2)[:2]
        step = side / size
        scale = np.float32(SAMPLES / step)
        screen[:, 0] = (screen[:, 0] - np.float32(x0)) * scale
        screen[:, 1] = (screen[:, 1] - np.float32(y0)) * scale
        rasteriser.draw(screen, figure.triangles, figure.sides, figure.cut, True, self._nearness, self._identity)
        shine = np.empty(len(lit.vertices), np.float32)
        eye = camera.position.astype(np.float32)
        lighting.add_gloss(lit.vertices, lit.normals, lit.light, figure.gloss, eye, self.stage.sun, shine)
        distance = 2 / (low[2] + high[2])
        level = min(max(round(np.log2(step)), 0), len(self._backdrops[view]) - 1)
        place = np.array([(x0 + MARGIN) / 2**level, (y0 + MARGIN) / 2**level, step / 2**level], np.float32)
        pixels = rasteriser.shade(
            ShadedMesh(screen, figure.triangles, figure.materials, figure.uv, lit.light, shine),
            TextureAtlas(figure.texels, figure.textures_at(step / SAMPLES / camera.focal * distance)),
            Backdrop(
                self._backdrops[view][level], place, _ground_of_backdrop(camera, level), lit.ground, lit.ground_place
            ),
            self._identity,
            _TONES,
            self._noise[noise_row : noise_row + size, noise_column : noise_column + size],
        )
        return Crop(pixels, (float(x0), float(y0), float(x0 + side), float(y0 + side)))


def _ground_of_backdrop(camera: StageCamera, level: int) -> Float32[np.ndarray, "3 3"]:
    """Return the map from pixels of a camera's halved backdrop to the floor."""
    scale = float(2**level)
    to_source = np.array([[scale, 0, -MARGIN], [0, scale, -MARGIN], [0, 0, 1.0]])
    return np.asarray(camera.to_ground() @ to_source, np.float32)


def _halvings(light: Float32[np.ndarray, "h w 3"]) -> list[Float32[np.ndarray, "_ _ 3"]]:
    """Return the image and three halvings of it."""
    levels = [light]
    for _ in range(3):
        height, width = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return levels
