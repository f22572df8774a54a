"""The equations against their own cost, differentiated by small steps, and triangulation by hand."""

import numpy as np

from mcss.calibration.adjustment import AdjustmentSettings, from_rays, with_joints
from mcss.calibration.body import BONES, JOINTS, OTHER_SIDE, TWIN, usual_lengths, weighted_median
from mcss.calibration.equations import TAIL, equations, pixel_sigma
from mcss.calibration.rig import Rig
from mcss.calibration.sightings import Scene, Sightings


def two_cameras() -> Rig:
    """One camera looks along +Z from the origin, one along -X from (4000, 0, 4000)."""
    turned = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
    return Rig(
        views=("a", "b"),
        rotation=np.stack([np.eye(3), turned]),
        translation=np.stack([np.zeros(3), -turned @ np.array([4000.0, 0, 4000])]),
        intrinsics=np.tile([[1000.0, 0, 500], [0, 1000, 500], [0, 0, 1]], (2, 1, 1)),
        distortion=np.zeros((2, 5)),
        image_size=np.full((2, 2), 1000.0),
    )


def a_body(random: np.random.Generator) -> np.ndarray:
    return np.array([0, 0, 4000.0]) + 400 * random.normal(size=(2, len(JOINTS), 3))


def seen_by(rig: Rig, joints: np.ndarray, noise: float, random: np.random.Generator) -> Sightings:
    pixels = rig.project(joints)
    along = rig.in_camera(joints)
    return Sightings(
        pixels=pixels + noise * random.normal(size=pixels.shape),
        world=along - along[:, :, :2].mean(axis=2, keepdims=True) + 5 * noise * random.normal(size=along.shape),
        weight=random.uniform(0.3, 1, pixels.shape[:3]),
        person=np.zeros(len(joints), np.int64),
    )


def test_rays_that_cross_give_their_point() -> None:
    rig = two_cameras()
    point = np.array([[[300.0, -200.0, 4500.0]]])
    rays = rig.rays(rig.project(point))
    assert np.allclose(rays[0, 0, 0], [300 / 4500, -200 / 4500])
    assert np.allclose(rays[0, 1, 0], [500 / 3700, -200 / 3700])
    assert np.allclose(from_rays(rig, rays, np.ones((1, 2, 1))), point)


def test_the_slope_is_that_of_the_cost() -> None:
    """The gradient of the robust pixel cost alone, by central differences of a cost that is written out again."""
    random = np.random.default_rng(0)
    rig, joints = two_cameras(), a_body(random)
    sightings = seen_by(rig, joints, 20.0, random)
    lengths = usual_lengths(joints, np.ones(joints.shape[:2]), sightings.person)
    scene = Scene(rig, joints, lengths)
    sigma = pixel_sigma(rig, joints)

    def cost(points: np.ndarray) -> float:
        away = np.linalg.norm(rig.project(points) - sightings.pixels, axis=-1)
        squares = (away * sightings.weight / sigma[None, :, None]) ** 2
        return float((TAIL**2 * np.log(1 + squares / TAIL**2)).sum())

    large = {"depth_sigma": 1e9, "length_sigma": 1e9}  # only pixels count
    made = equations(scene, sightings, rig.rays(sightings.pixels), cameras=False, **large)
    assert np.isclose(made.cost, cost(joints))
    for index in ((0, 3, 0), (1, 7, 2), (0, 0, 1)):
        step = np.zeros(joints.shape)
        step[index] = 0.01
        slope = (cost(joints + step) - cost(joints - step)) / 0.02
        instant, joint, axis = index
        assert np.isclose(2 * made.slopes[instant, 3 * joint + axis], slope, rtol=1e-4)


def test_what_two_cameras_see_gives_the_joints() -> None:
    random = np.random.default_rng(1)
    rig, joints = two_cameras(), a_body(random)
    sightings = seen_by(rig, joints, 0.0, random)
    true = np.linalg.norm(joints[:, BONES[:, 0]] - joints[:, BONES[:, 1]], axis=-1)
    found = with_joints(rig, sightings, AdjustmentSettings(depth_sigma=1e6), true)
    assert np.abs(found.scene.joints - joints).max() < 1
    assert found.agreement.min() > 0.99


def test_a_joint_that_one_view_has_wrong_follows_the_others() -> None:
    random = np.random.default_rng(2)
    rig, joints = two_cameras(), a_body(random)
    third = Rig(
        ("a", "b", "c"),
        np.concatenate([rig.rotation, np.diag([-1.0, 1, -1])[None]]),
        np.concatenate([rig.translation, [[0, 0, 8000.0]]]),
        np.tile(rig.intrinsics[0], (3, 1, 1)),
        np.zeros((3, 5)),
        np.full((3, 2), 1000.0),
    )
    sightings = seen_by(third, joints, 0.0, random)
    sightings.pixels[0, 2, 9] += 80
    true = np.linalg.norm(joints[:, BONES[:, 0]] - joints[:, BONES[:, 1]], axis=-1)
    found = with_joints(third, sightings, AdjustmentSettings(), true)
    linear = from_rays(third, third.rays(sightings.pixels), sightings.weight)
    wrong, right = (np.linalg.norm(points[0, 9] - joints[0, 9]) for points in (linear, found.scene.joints))
    assert right < 0.6 * wrong
    assert found.agreement[0, 2, 9] < found.agreement[0, :2, 9].min()


def test_the_weighted_median_by_hand() -> None:
    values = np.array([[1.0, 5], [2, 5], [9, 7]])
    assert weighted_median(values, np.ones((3, 2))).tolist() == [2.0, 5.0]
    assert weighted_median(values, np.array([[1.0, 0], [1, 0], [9, 1]])).tolist() == [9.0, 7.0]


def test_sides_and_twins_belong_together() -> None:
    for joint, other in enumerate(OTHER_SIDE):
        assert JOINTS[other] == JOINTS[joint].replace("left", "*").replace("right", "left").replace("*", "right")
    assert (TWIN[TWIN] == np.arange(len(BONES))).all()
