import numpy as np
import pytest

from mcss.sources.synthetic.sequences import moved_to_stage
from mcss.sources.synthetic.stage import (
    MARGIN,
    SOURCE_SIZE,
    STAGE_RADIUS,
    STAGES,
    _irradiance,
    decode_light,
    draw_cameras,
    empty_stage,
    encode_light,
    load_stage,
)

Z_UP = np.array([0.0, 0.0, 1.0])


def test_light_survives_its_coding() -> None:
    light = np.geomspace(0.002, 20, 300).reshape(-1, 1, 1).repeat(3, axis=2)
    coded = decode_light(encode_light(light))
    assert np.abs(coded / light - 1)[light > 0.01].max() < 0.12
    assert np.abs(coded - light)[light < 1].max() < 0.03


def test_irradiance_under_a_white_sky_and_black_floor_is_what_the_integral_says() -> None:
    light = np.zeros((128, 256, 3), np.float32)
    light[:64] = 1
    harmonics = _irradiance(light)
    up = harmonics[0] + harmonics[2] + 2 * harmonics[6]
    side = harmonics[0] - harmonics[6]
    down = harmonics[0] - harmonics[2] + 2 * harmonics[6]
    np.testing.assert_allclose(up, 1.0, atol=0.02)  # E / π of a full hemisphere
    np.testing.assert_allclose(side, 0.5, atol=0.02)
    np.testing.assert_allclose(down, 0.0, atol=0.02)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_lights_people_enough_and_from_above(name: str) -> None:
    stage = load_stage(name)
    assert np.isfinite(stage.panorama).all()
    assert 0.4 < stage.harmonics[0].mean() < 3
    np.testing.assert_allclose(np.linalg.norm(stage.sun), 1, atol=1e-5)
    assert stage.sun[2] > 0.5
    assert (stage.sun_colour > 0.05).all()


def test_all_cameras_see_a_person_anywhere_on_the_stage() -> None:
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = STAGE_RADIUS * np.stack([np.cos(turns), np.sin(turns), 0 * turns], 1)
    people = np.concatenate([ring + Z_UP * height for height in (0.1, 1.0, 1.7)])
    for seed in range(5):
        for camera in draw_cameras(np.random.default_rng(seed), 4):
            seen = people @ camera.rotation.T + camera.translation
            pixels = seen[:, :2] / seen[:, 2:] * camera.focal + SOURCE_SIZE / 2
            assert seen[:, 2].min() > 2
            assert pixels.min() > -MARGIN
            assert pixels.max() < SOURCE_SIZE + MARGIN


def test_the_ground_map_undoes_the_projection() -> None:
    camera = draw_cameras(np.random.default_rng(0), 3)[1]
    place = np.array([0.4, -0.7, 0.0])
    seen = camera.rotation @ place + camera.translation
    pixel = np.append(seen[:2] / seen[2] * camera.focal + SOURCE_SIZE / 2, 1)
    mapped = camera.to_ground() @ pixel
    assert mapped[2] < 0
    np.testing.assert_allclose(mapped[:2] / mapped[2], place[:2], atol=1e-9)


def test_the_floor_of_a_stage_is_the_same_place_from_every_camera() -> None:
    stage = load_stage("workshop")
    spots = [(x, y) for x in (-1.5, 0.0, 1.5) for y in (-1.5, 0.0, 1.5)]
    looks = []
    for camera in draw_cameras(np.random.default_rng(0), 2):
        image = empty_stage(stage, camera)
        assert image.shape == (SOURCE_SIZE + 2 * MARGIN, SOURCE_SIZE + 2 * MARGIN, 3)
        seen = np.array([(x, y, 0) for x, y in spots]) @ camera.rotation.T + camera.translation
        pixels = (seen[:, :2] / seen[:, 2:] * camera.focal + SOURCE_SIZE / 2 + MARGIN).astype(int)
        looks.append([image[y - 4 : y + 5, x - 4 : x + 5].mean((0, 1)) for x, y in pixels])
    difference = np.abs(np.array(looks[0]) - np.array(looks[1]))
    assert difference.mean() < 0.35 * np.array(looks[0]).std() + 0.01


def test_the_cyclorama_reveals_neither_the_place_nor_the_camera() -> None:
    around = [(x, y, z) for x in (-1.2, 0.0, 1.2) for y in (-1.2, 0.0, 1.2) for z in (0.0, 1.0, 2.2)]
    shades = []
    for camera in draw_cameras(np.random.default_rng(0), 3):
        seen = np.array(around) @ camera.rotation.T + camera.translation
        pixels = (seen[:, :2] / seen[:, 2:] * camera.focal + SOURCE_SIZE / 2 + MARGIN).astype(int)
        image = empty_stage(load_stage("cyclorama"), camera)
        shades += [image[y, x] for x, y in pixels]
    assert np.ptp(np.array(shades)) < 0.02 * np.mean(shades)


def test_a_path_is_kept_on_the_stage_with_its_heights() -> None:
    path = np.stack([np.linspace(3, 9, 50), np.linspace(0, 1, 50), np.linspace(0.9, 1.4, 50)], 1)
    kept = moved_to_stage(path)
    assert np.linalg.norm(kept[:, :2], axis=1).max() <= STAGE_RADIUS + 1e-9
    np.testing.assert_array_equal(kept[:, 2], path[:, 2])
    short = path * [0.1, 0.1, 1]
    np.testing.assert_allclose(np.diff(moved_to_stage(short)[:, :2], axis=0), np.diff(short[:, :2], axis=0))
