import numpy as np
import pytest
import torch
from stick_body import stick_body, stick_joints

from mcss.skeletons import canonical_pose, heading_valid
from mcss.sources.synthetic.performances import ACTIONS, NEW_ACTIONS, Performance, PerformancePlan, subject_performances
from mcss.sources.synthetic.retargeting import lowest_points

SCALES = {"S1": 1.0, "S2": 0.97, "S3": 1.03, "S4": 0.98, "S5": 1.02, "S7": 0.96, "S8": 1.04}


def performed(subject: str, **settings: object) -> list[Performance]:
    plan = PerformancePlan(**settings)  # type: ignore[arg-type]
    return subject_performances(subject, 0, stick_body(SCALES[subject]), plan)


def joints(performance: Performance) -> np.ndarray:
    return stick_joints(performance.orientations, performance.pelvis, stick_body(SCALES[performance.subject]))


@pytest.fixture(scope="module")
def s1() -> list[Performance]:
    return performed("S1", actions=(*ACTIONS, *NEW_ACTIONS))


def canonical(performances: list[Performance]) -> torch.Tensor:
    poses = torch.from_numpy(np.concatenate([joints(p) for p in performances])).float()
    return canonical_pose(poses)[:, 1:]


def test_a_subject_performs_every_action_twice_with_two_thousand_instants(s1: list[Performance]) -> None:
    shared = [p for p in s1 if p.action in ACTIONS]
    assert {p.sequence for p in shared} == {f"{action} {take}" for action in ACTIONS for take in (1, 2)}
    assert 2000 <= sum(len(p) for p in shared) < 2200
    assert all(p.rate == 10.0 and p.orientations.shape == (len(p), len(stick_body().bone_names), 3, 3) for p in s1)


def test_the_same_seed_and_subject_give_the_same_performance_whatever_else_is_performed() -> None:
    first = performed("S2", actions=("Kicking", "Phoning"), instants=80)
    again = performed("S2", actions=("Phoning", "Kicking"), instants=80)
    for a in first:
        b = next(p for p in again if p.sequence == a.sequence)
        np.testing.assert_array_equal(a.orientations, b.orientations)
        np.testing.assert_array_equal(a.pelvis, b.pelvis)


def test_no_two_subjects_or_takes_share_a_pose() -> None:
    for action in ("Running", "Climbing", "Sitting"):
        sets = [canonical([p]) for name in ("S1", "S7") for p in performed(name, actions=(action,), instants=120)]
        for k, a in enumerate(sets):
            for b in sets[k + 1 :]:
                assert float((a[:, None] - b).norm(dim=-1).mean(-1).min()) > 5.0, action


def test_rotations_are_rotations_and_motion_is_continuous(s1: list[Performance]) -> None:
    for p in s1:
        product = p.orientations @ np.swapaxes(p.orientations, -1, -2)
        np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-5)
        assert np.linalg.det(p.orientations).min() > 0.99
        steps = np.linalg.norm(np.diff(joints(p), axis=0), axis=-1)
        fast = ("Dancing", "Spinning", "Kicking", "Running", *NEW_ACTIONS)
        assert steps.max() < (1700 if p.action in fast else 1000), p.sequence
        assert np.median(steps) < 350, p.sequence


def test_knees_and_elbows_bend_the_human_way(s1: list[Performance]) -> None:
    body = stick_body()
    bones = body.index
    for p in s1:
        turn = p.orientations
        found = joints(p) / 1000
        for side, hip, shoulder in (("R", 1, 14), ("L", 4, 11)):
            thigh, shin = found[:, hip + 1] - found[:, hip], found[:, hip + 2] - found[:, hip + 1]
            # The knee's axis, the puppet's left, carried by the thigh.
            left = turn[:, bones[f"upperleg01.{side}"]] @ body.hanging[f"{side}Hip"].inv().apply([1.0, 0.0, 0.0])
            assert (np.cross(thigh, shin) * left).sum(-1).min() > -1e-6, p.sequence
            upper, lower = found[:, shoulder + 1] - found[:, shoulder], found[:, shoulder + 2] - found[:, shoulder + 1]
            right = turn[:, bones[f"upperarm01.{side}"]] @ body.hanging[f"{side}Shoulder"].inv().apply([-1.0, 0, 0])
            assert (np.cross(upper, lower) * right).sum(-1).min() > -1e-6, p.sequence
            for a, b in ((thigh, shin), (upper, lower)):
                cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
                assert cosine.min() > np.cos(np.radians(151)), p.sequence


def test_feet_reach_the_floor_and_nothing_sinks_into_it(s1: list[Performance]) -> None:
    for p in s1:
        lowest = lowest_points(p.orientations.astype(float), p.pelvis.astype(float), stick_body())
        assert lowest.min() > -0.08, p.sequence
        assert np.percentile(lowest, 20) < 0.04, p.sequence


def test_jumps_and_runs_leave_the_floor_and_walks_do_not(s1: list[Performance]) -> None:
    def height(p: Performance) -> float:
        return float(lowest_points(p.orientations.astype(float), p.pelvis.astype(float), stick_body()).max())

    heights = {p.sequence: height(p) for p in s1}
    assert max(heights["Jumping 1"], heights["Jumping 2"]) > 0.15
    assert heights["Backflip 1"] > 0.15
    assert max(heights["Walking 1"], heights["Walking 2"]) < 0.06


def test_people_travel_but_stay_on_the_stage(s1: list[Performance]) -> None:
    radii = [np.linalg.norm(p.pelvis[:, :2], axis=1) for p in s1]
    assert np.mean([radius.mean() for radius in radii]) < 0.9
    assert max(radius.max() for radius in radii) < 2.2
    walk = next(p for p in s1 if p.action == "Walking")
    assert np.linalg.norm(np.diff(walk.pelvis[:, :2], axis=0), axis=1).sum() / (len(walk) / walk.rate) > 0.5


def test_nearly_every_pose_has_a_heading(s1: list[Performance]) -> None:
    poses = torch.from_numpy(np.concatenate([joints(p) for p in s1 if p.action in ACTIONS]))
    assert float(heading_valid(poses).double().mean()) > 0.995


def test_strides_grow_with_the_legs() -> None:
    small, large = stick_body(0.8), stick_body(1.2)
    plan = PerformancePlan(actions=("Walking",), instants=60, takes=1)
    paths = [subject_performances("S1", 0, rig, plan)[0].pelvis for rig in (small, large)]
    lengths = [np.linalg.norm(np.diff(path[:, :2], axis=0), axis=1).sum() for path in paths]
    assert lengths[1] / lengths[0] == pytest.approx(1.5, rel=0.1)


def to_nearest(poses: torch.Tensor, references: torch.Tensor) -> float:
    found = [(part[:, None] - references).norm(dim=-1).mean(-1).amin(1) for part in poses.split(16)]
    return float(torch.cat(found).mean())


def test_one_subjects_labels_cover_another_only_moderately(s1: list[Performance]) -> None:
    labelled = canonical([p for p in s1 if p.action in ACTIONS])
    test = canonical(performed("S7"))[::7]
    assert 50 <= to_nearest(test, labelled) <= 70
    assert float((test - labelled.mean(0)).norm(dim=-1).mean()) > 150


@pytest.mark.slow
def test_five_subjects_cover_the_test_clearly_better_than_one() -> None:
    train = {name: canonical(performed(name)) for name in ("S1", "S2", "S3", "S4", "S5")}
    test = torch.cat([canonical(performed(name))[::9] for name in ("S7", "S8")])
    one = to_nearest(test, train["S1"])
    assert 50 <= one <= 70
    assert to_nearest(test, torch.cat(list(train.values()))) < 0.8 * one


def test_impossible_requests_are_refused_with_the_alternatives() -> None:
    with pytest.raises(ValueError, match=r"actions: expected some of Walking, Running, .*got 'Flying'"):
        performed("S1", actions=("Flying",))
    with pytest.raises(ValueError, match="10 instants are too few"):
        performed("S1", instants=10)
    with pytest.raises(ValueError, match="must be positive"):
        performed("S1", takes=0)
