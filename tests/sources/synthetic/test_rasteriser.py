import numpy as np
from jaxtyping import Float32, Int32, UInt8

from mcss.sources.synthetic import rasteriser
from mcss.sources.synthetic.lighting import skin, sunlit, vertex_normals
from mcss.sources.synthetic.rasteriser import (
    EMPTY,
    Backdrop,
    ShadedMesh,
    TextureAtlas,
    barycentrics,
    bounds,
    draw,
    facing,
    project,
    tone_table,
)

SIZE = 40


def soup(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of some pixels each, at random places and depths, seen from in front or behind."""
    corners = rng.uniform(-4, SIZE + 4, (count, 1, 2)) + rng.uniform(-9, 9, (count, 3, 2))
    depth = rng.uniform(1.0, 9.0, (count, 3, 1))
    screen = np.concatenate([corners, 1 / depth], axis=2).reshape(-1, 3).astype(np.float32)
    return screen, np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


def slow_draw(
    screen: np.ndarray, triangles: np.ndarray, sides: np.ndarray, cut: np.ndarray, pinhole: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The same by solving for each pixel centre in 3D coordinates: no edge functions, no boxes, no 1/z."""
    identity, depth = np.full((SIZE, SIZE), EMPTY), np.full((SIZE, SIZE), np.inf)
    for t, corners in enumerate(screen[triangles].astype(np.float64)):
        z = 1 / corners[:, 2] if pinhole else -corners[:, 2]
        first, second = np.append(corners[1, :2] - corners[0, :2], 0), np.append(corners[2, :2] - corners[0, :2], 0)
        if np.cross(first, second)[2] > 0 and not sides[t] & 1:
            continue
        for y in range(SIZE):
            for x in range(SIZE):
                flat = np.linalg.solve(np.vstack([corners[:, :2].T, np.ones(3)]), [x + 0.5, y + 0.5, 1.0])
                if (flat < 0).any():
                    continue
                if pinhole:  # where the pixel's ray meets the plane of the triangle in space
                    space = np.stack([corners[:, 0] * z, corners[:, 1] * z, z])
                    weights = np.linalg.solve(space, [x + 0.5, y + 0.5, 1.0])
                    here, weights = 1 / weights.sum(), weights / weights.sum()
                else:
                    here, weights = flat @ z, flat
                if sides[t] & 2 and weights @ cut[triangles[t]] < 0:
                    continue
                if here < depth[y, x]:
                    depth[y, x], identity[y, x] = here, t
    return identity, depth


def drawn(
    screen: Float32[np.ndarray, "v 3"],
    triangles: Int32[np.ndarray, "t 3"],
    sides: UInt8[np.ndarray, " t"],
    cut: Float32[np.ndarray, " v"],
    pinhole: bool,
) -> tuple[np.ndarray, np.ndarray]:
    nearness, identity = np.empty((SIZE, SIZE), np.float32), np.empty((SIZE, SIZE), np.int32)
    draw(screen, triangles, sides, cut, pinhole, nearness, identity)
    return identity, nearness


def test_drawn_triangles_and_depths_agree_with_solving_every_pixel_in_space() -> None:
    rng = np.random.default_rng(3)
    for pinhole in (True, False):
        screen, triangles = soup(rng, 25)
        sides = rng.integers(0, 4, len(triangles)).astype(np.uint8)
        cut = rng.normal(size=len(screen)).astype(np.float32)
        identity, nearness = drawn(screen, triangles, sides, cut, pinhole)
        expected, depth = slow_draw(screen, triangles, sides, cut, pinhole)
        assert (expected != EMPTY).mean() > 0.1
        assert (identity != expected).mean() < 0.002  # single precision decides on edges
        same = (identity == expected) & (identity != EMPTY)
        near = 1 / depth[same] if pinhole else -depth[same]
        np.testing.assert_allclose(nearness[same], near, rtol=1e-4)


def test_triangles_that_share_an_edge_leave_no_gap() -> None:
    screen = np.array([[2, 3, 1], [37, 5, 1], [35, 36, 1], [4, 33, 1]], np.float32)
    triangles = np.array([[0, 2, 1], [0, 3, 2]], np.int32)
    identity, _ = drawn(screen, triangles, np.zeros(2, np.uint8), np.zeros(4, np.float32), True)
    assert (identity[8:30, 8:30] != EMPTY).all()


def test_barycentrics_give_back_the_point_in_space_that_was_projected() -> None:
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(3, 3)).astype(np.float32)
    vertices[:, 2] += 4
    weights = np.array([0.2, 0.5, 0.3])
    screen = np.empty_like(vertices)
    project(vertices, np.eye(3, dtype=np.float32), np.zeros(3, np.float32), 50.0, 20.0, 20.0, screen)
    x, y, z = weights @ vertices
    found = barycentrics(screen, 0, 1, 2, np.float32(50 * x / z + 20), np.float32(50 * y / z + 20))
    np.testing.assert_allclose(found, weights, atol=1e-4)


def test_what_is_behind_the_camera_is_not_drawn() -> None:
    vertices = np.array([[-1, -1, 2], [1, -1, 2], [0, 1, -2]], np.float32)
    screen = np.empty_like(vertices)
    project(vertices, np.eye(3, dtype=np.float32), np.zeros(3, np.float32), 20.0, 20.0, 20.0, screen)
    both = np.ones(1, np.uint8)
    identity, _ = drawn(screen, np.array([[0, 1, 2]], np.int32), both, np.zeros(3, np.float32), True)
    assert (identity == EMPTY).all()


def test_skinning_moves_a_vertex_by_the_weighted_mean_of_its_bones() -> None:
    rng = np.random.default_rng(1)
    rest = rng.normal(size=(2, 3)).astype(np.float32)
    turns = rng.normal(size=(2, 3, 3)).astype(np.float32)
    moves = rng.normal(size=(2, 3)).astype(np.float32)
    posed = np.empty_like(rest)
    starts, bones = np.array([0, 2, 3], np.int32), np.array([0, 1, 1], np.int16)
    skin(rest, starts, bones, np.array([0.25, 0.75, 1.0], np.float32), turns, moves, posed)
    first, second = turns[0] @ rest[0] + moves[0], turns[1] @ rest[0] + moves[1]
    np.testing.assert_allclose(posed[0], 0.25 * first + 0.75 * second, rtol=1e-5)
    np.testing.assert_allclose(posed[1], turns[1] @ rest[1] + moves[1], rtol=1e-5)


def test_normals_of_a_sphere_point_outwards() -> None:
    turn, height = np.meshgrid(np.arange(24) / 24 * 2 * np.pi, np.linspace(-0.95, 0.95, 15))
    ring = np.sqrt(1 - height**2)
    sphere = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], -1).reshape(-1, 3).astype(np.float32)
    faces = []
    for row in range(14):
        for column in range(24):
            a, b = row * 24 + column, row * 24 + (column + 1) % 24
            faces += [(a, b, b + 24), (a, b + 24, a + 24)]
    normals = np.empty_like(sphere)
    vertex_normals(sphere, np.array(faces, np.int32), normals)
    inner = slice(48, -48)
    assert (normals[inner] * sphere[inner]).sum(axis=1).min() > 0.98


def test_a_place_is_in_the_shadow_of_what_is_nearer_to_the_sun_only() -> None:
    shadow = np.zeros((16, 16), np.float32)
    shadow[:, :8] = 5.0
    assert sunlit(shadow, 3.5, 8.5, 4.0, 1) == 0.0
    assert sunlit(shadow, 3.5, 8.5, 6.0, 1) == 1.0
    assert sunlit(shadow, 12.5, 8.5, 4.0, 1) == 1.0
    assert 0.0 < sunlit(shadow, 8.2, 8.5, 4.0, 1) < 1.0


def shaded(size: int, background: float, light: float, noise: float = 0.0) -> np.ndarray:
    """A white square in the middle of a grey stage."""
    samples = size * rasteriser.SAMPLES
    corners = np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]) * samples
    screen = np.concatenate([corners, np.ones((4, 1))], axis=1).astype(np.float32)
    triangles = np.array([[0, 2, 1], [0, 3, 2]], np.int32)
    nearness, identity = np.empty((samples, samples), np.float32), np.empty((samples, samples), np.int32)
    draw(screen, triangles, np.zeros(2, np.uint8), np.zeros(4, np.float32), True, nearness, identity)
    materials, uv = np.zeros(2, np.uint8), np.zeros((2, 3, 2), np.float32)
    mesh = ShadedMesh(screen, triangles, materials, uv, np.full((4, 4), light, np.float32), np.zeros(4, np.float32))
    atlas = TextureAtlas(np.ones((16, 3), np.float32), np.array([[0, 4, 4]], np.int32))
    backdrop = Backdrop(
        np.full((50, 50, 3), background, np.float32),
        np.array([5, 5, 1], np.float32),
        np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1]], np.float32),
        np.ones((4, 4), np.float32),
        np.array([0, 0, 1], np.float32),
    )
    noises = np.full((size, size), noise, np.float32)
    return rasteriser.shade(mesh, atlas, backdrop, identity, tone_table(1.0), noises)


def test_a_pixel_is_the_tone_of_the_light_there() -> None:
    image = shaded(16, 0.1, 0.5)
    tones = tone_table(1.0)
    assert (image[8, 8] == tones[int(np.sqrt(0.5) * rasteriser.TONES / 4)]).all()
    assert (image[1, 1] == tones[int(np.sqrt(0.1) * rasteriser.TONES / 4)]).all()


def test_light_is_averaged_over_the_samples_of_an_edge_before_the_tone() -> None:
    image = shaded(10, 0.0, 0.8)  # the square begins in the middle of pixel 2
    half = tone_table(1.0)[int(np.sqrt(0.4) * rasteriser.TONES / 4)]
    assert abs(int(image[5, 2, 0]) - int(half)) <= 1


def test_bounds_are_the_least_and_greatest_coordinates() -> None:
    points = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    np.testing.assert_array_equal(bounds(points), [points.min(0), points.max(0)])


def test_a_camera_that_faces_a_direction_is_level_and_right_handed() -> None:
    axes = facing(np.array([1.0, 2.0, -0.5]))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) > 0
    assert abs(axes[0, 2]) < 1e-12
    assert axes[1, 2] < 0  # down is down
    np.testing.assert_allclose(facing(np.array([0, 0, -1.0]))[2], [0, 0, -1])
