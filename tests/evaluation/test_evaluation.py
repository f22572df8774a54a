import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import reference
from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError
from mcss.evaluation.evaluate import Evaluation, evaluate, evaluate_predictions, gallery_of
from mcss.evaluation.examples import pick_rows, pose_examples
from mcss.evaluation.predictions import EvaluationSettings, MeanPose, predict_split, target_poses, true_poses
from mcss.models.prediction import Prediction
from mcss.skeletons import JOINTS, camera_pose


class Oracle:
    """Predicts the truth with every joint but the root shifted; embeds the instant."""

    def __init__(self, capture: Capture, shift: float = 0.0, embedded: bool = True) -> None:
        instants = capture.instants()
        self.targets = target_poses(instants)
        self.instant = {int(row): i for i, rows in enumerate(instants.rows) for row in rows if row >= 0}
        self.shift = torch.tensor([shift, 0.0, 0.0])
        self.embedded = embedded
        self.asked: list[int] = []

    def __call__(self, rows: np.ndarray) -> Prediction:
        self.asked += rows.tolist()
        places = [self.instant[int(row)] for row in rows]
        pose = self.targets[places].clone()
        pose[:, 1:] += self.shift
        flat = self.targets[places, 1:].flatten(1)
        return Prediction(pose, flat / flat.norm(dim=1, keepdim=True) if self.embedded else None)


def test_a_perfect_predictor_has_no_error_and_finds_every_instant(tiny_capture: Capture) -> None:
    result = evaluate(Oracle(tiny_capture), tiny_capture, "test")
    assert result.pose is not None
    assert result.pose.over_poses.mpjpe == 0
    assert result.pose.over_poses.pck == 1
    assert result.retrieval is not None
    assert result.retrieval.same_instant is not None
    assert result.retrieval.same_instant.hit_at_1 == 1
    assert result.retrieval.all_subjects is not None
    assert result.retrieval.all_subjects.scores[0].mean_pa_mpjpe < 1e-3
    assert result.retrieval.cross_subject is None, "the test split has one subject"


def test_a_known_error_comes_out_per_action_and_per_joint_count(tiny_capture: Capture) -> None:
    result = evaluate(Oracle(tiny_capture, shift=40.0), tiny_capture, "test")
    assert result.pose is not None
    for scores in (result.pose.over_poses, result.pose.over_actions, *result.pose.actions.values()):
        assert scores.mpjpe == pytest.approx(40, rel=1e-5)
        assert scores.mpjpe_17 == pytest.approx(40 * 16 / 17, rel=1e-5)
        assert scores.pa_mpjpe == pytest.approx(0, abs=1e-3)
        assert scores.pa_mpjpe_17 > 1
    assert set(result.pose.actions) == {"Walking", "Waving"}
    assert sum(result.pose.action_images.values()) == result.pose.images == result.images == 2 * 16 * 4
    assert result.capture == tiny_capture.fingerprint


def test_the_mean_pose_row_equals_the_slow_reference(tiny_capture: Capture) -> None:
    train, test = tiny_capture.instants("train"), tiny_capture.instants("test")
    predictor = MeanPose.of(train.take(train.subject == 0))
    result = evaluate(predictor, tiny_capture, "test")
    mean = target_poses(train.take(train.subject == 0)).double().mean(0).numpy()[1:]
    targets = target_poses(test).double().numpy()[:, 1:]
    assert result.pose is not None
    assert result.retrieval is None
    for name in ("mpjpe", "n_mpjpe", "pa_mpjpe", "auc"):
        slow = np.mean([getattr(reference, name)(mean, target) for target in targets])
        assert getattr(result.pose.over_poses, name) == pytest.approx(slow, rel=1e-4)
    limbs = [i - 1 for i, joint in enumerate(JOINTS) if joint not in ("Hip", "Spine", "Thorax", "Neck", "Head")]
    assert len(limbs) == 12
    assert result.pose.limbs is not None
    slow = np.mean([reference.pa_mpjpe(mean[limbs], target[limbs]) for target in targets])
    assert result.pose.limbs.pa_mpjpe == pytest.approx(slow, rel=1e-4)


def test_actions_weigh_the_same_in_the_average_over_actions(tiny_capture: Capture) -> None:
    predictions = predict_split(MeanPose.of(tiny_capture.instants("train")), tiny_capture, "test")
    instants = predictions.instants
    keep = (instants.action == 0) | (instants.frame < 12)  # four instants of the second action
    chosen = instants.take(keep)
    instant, view = np.nonzero(chosen.rows >= 0)
    assert predictions.pose is not None
    fewer = replace(
        predictions,
        instants=chosen,
        instant=instant,
        view=view,
        rows=chosen.rows[instant, view],
        pose=predictions.pose[: len(instant)],
    )
    pose = evaluate_predictions(fewer, "f", "test", EvaluationSettings()).pose
    assert pose is not None
    first, second = (scores.mpjpe for scores in pose.actions.values())
    assert abs(first - second) > 1
    assert pose.over_actions.mpjpe == pytest.approx((first + second) / 2)
    assert pose.over_poses.mpjpe == pytest.approx((first * 16 + second * 4) / 20)


def test_a_second_call_and_the_way_through_json_give_identical_numbers(tiny_capture: Capture) -> None:
    settings = EvaluationSettings(max_queries=20, max_gallery=40, batch_size=7)
    first, second = (evaluate(Oracle(tiny_capture, 30), tiny_capture, "train", settings) for _ in range(2))
    text = json.dumps(first.to_json(), allow_nan=False)
    assert text == json.dumps(second.to_json(), allow_nan=False)
    assert Evaluation.from_json(json.loads(text)) == first
    score = first.to_json()["retrieval"]["cross_subject"]["scores"][0]
    assert score["above_oracle"] == score["mean_pa_mpjpe"] - score["oracle"]


def test_large_splits_are_thinned_to_whole_instants(tiny_capture: Capture) -> None:
    oracle = Oracle(tiny_capture)
    settings = EvaluationSettings(max_instants=30, max_gallery=50, max_queries=9)
    result = evaluate(oracle, tiny_capture, "train", settings)
    assert result.instants == 30
    assert len(oracle.asked) == len(set(oracle.asked)) == result.images == 120
    assert result.retrieval is not None
    assert result.retrieval.same_instant is not None
    assert (result.retrieval.same_instant.queries, result.retrieval.same_instant.gallery) == (9, 48)
    assert result.retrieval.same_instant.hit_at_1 == 1
    other = evaluate(Oracle(tiny_capture), tiny_capture, "train", replace(settings, seed=1)).retrieval
    assert other is not None
    assert other.all_subjects != result.retrieval.all_subjects


def test_unlabelled_captures_still_have_same_instant_retrieval(tiny_capture: Capture) -> None:
    predictions = predict_split(Oracle(tiny_capture), tiny_capture, "test")
    instants = predictions.instants
    blank = replace(instants, pose=np.full_like(instants.pose, np.nan), heading_valid=np.zeros(len(instants), bool))
    result = evaluate_predictions(replace(predictions, instants=blank), "f", "test", EvaluationSettings())
    assert result.pose is None
    assert result.retrieval is not None
    assert result.retrieval.all_subjects is None
    assert result.retrieval.same_instant is not None
    assert result.retrieval.same_instant.hit_at_1 == 1


def test_instants_without_heading_are_counted_and_left_out(tiny_capture: Capture) -> None:
    predictions = predict_split(Oracle(tiny_capture, 40), tiny_capture, "test")
    heading = predictions.instants.heading_valid.copy()
    heading[:5] = False
    marked = replace(predictions, instants=replace(predictions.instants, heading_valid=heading))
    result = evaluate_predictions(marked, "f", "test", EvaluationSettings())
    assert result.without_heading == 5
    assert result.pose is not None
    assert result.pose.images == len(predictions) - 20


def test_wrong_output_of_a_predictor_is_named(tiny_capture: Capture) -> None:
    oracle = Oracle(tiny_capture)
    with pytest.raises(ValueError, match="expected poses for 64 rows, got 63; return one per row"):
        evaluate(lambda rows: oracle(rows[1:]), tiny_capture, "test")
    with pytest.raises(ValueError, match="the pose of 64 of 64 images is NaN or infinite; the network has diverged"):
        evaluate(Oracle(tiny_capture, shift=float("nan")), tiny_capture, "test")
    with pytest.raises(ValueError, match="mean pose: expected labelled instants with a heading, got none of 0"):
        MeanPose.of(tiny_capture.instants("train").take(np.zeros(0, np.int64)))
    with pytest.raises(CaptureError, match="no split 'tset'"):
        evaluate(oracle, tiny_capture, "tset")
    with pytest.raises(ValueError, match="max_queries: expected 1 or more, got 0"):
        EvaluationSettings(max_queries=0)


def test_sequences_of_the_same_name_are_told_apart_by_their_subject(tiny_capture: Capture) -> None:
    predictions = predict_split(Oracle(tiny_capture), tiny_capture, "train")
    gallery = gallery_of(predictions)
    pairs = set(zip(gallery.subject.tolist(), gallery.sequence.tolist(), strict=True))
    assert len(pairs) == len({sequence for _, sequence in pairs}) == 4


class CameraOracle(Oracle):
    """Predicts the true pose in camera space."""

    def __init__(self, capture: Capture, shift: float = 0.0) -> None:
        super().__init__(capture, shift)
        self.capture = capture
        self.world = torch.from_numpy(capture.instants().pose)

    def __call__(self, rows: np.ndarray) -> Prediction:
        places = [self.instant[int(row)] for row in rows]
        pose = camera_pose(self.world[places], torch.from_numpy(self.capture.crop_rotations(rows, "the test")))
        pose[:, 1:] += self.shift
        return Prediction(pose, None, "camera")


def test_a_prediction_in_camera_space_is_scored_there(tiny_capture: Capture) -> None:
    perfect = evaluate(CameraOracle(tiny_capture), tiny_capture, "test").pose
    assert perfect is not None
    assert perfect.frame == "camera"
    assert perfect.over_poses.mpjpe < 1e-3
    shifted = evaluate(CameraOracle(tiny_capture, shift=40.0), tiny_capture, "test").pose
    assert shifted is not None
    assert shifted.over_poses.mpjpe == pytest.approx(40, rel=1e-4)
    canonical = evaluate(Oracle(tiny_capture), tiny_capture, "test").pose
    assert canonical is not None
    assert (canonical.frame, canonical.images) == ("canonical", perfect.images)


def test_poses_in_world_space_are_scored_with_their_heading(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants()
    instant = {int(row): i for i, rows in enumerate(instants.rows) for row in rows if row >= 0}

    def predict(rows: np.ndarray) -> Prediction:
        world = torch.from_numpy(instants.pose[[instant[int(row)] for row in rows]])
        return Prediction(world - world[:, :1], None, "world")

    predictions = predict_split(predict, tiny_capture, "test")
    assert (predictions.frame, predictions.rotation) == ("world", None)
    perfect = evaluate(predict, tiny_capture, "test").pose
    assert perfect is not None
    assert (perfect.frame, perfect.images) == ("world", len(predictions))
    assert perfect.over_poses.mpjpe < 1e-3
    turned = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])

    def wrong(rows: np.ndarray) -> Prediction:
        pose = predict(rows).pose
        assert pose is not None
        return Prediction(pose @ turned.T, None, "world")

    other = evaluate(wrong, tiny_capture, "test").pose
    assert other is not None
    assert other.over_poses.n_mpjpe > 50
    assert other.over_poses.pa_mpjpe < 1e-2
    for example in pose_examples(tiny_capture, {"theirs": predictions}, pick_rows(predictions, 2)):
        np.testing.assert_allclose(example.predicted["theirs"].pose, example.true, atol=1e-2)


def test_one_view_alone_can_be_looked_at(tiny_capture: Capture) -> None:
    settings = EvaluationSettings(views=("3",))
    predictor = Oracle(tiny_capture)
    found = evaluate(predictor, tiny_capture, "test", settings)
    assert (found.instants, found.images) == (32, 32)
    assert set(predictor.asked) == set(tiny_capture.instants("test").rows[:, 2].tolist())
    assert Evaluation.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(ValueError, match=r"views: there is no view '9'; there are 1, 2, 3, 4"):
        evaluate(Oracle(tiny_capture), tiny_capture, "test", EvaluationSettings(views=("9",)))


def test_the_frame_survives_json_and_older_reports_are_canonical_and_without_limbs(tiny_capture: Capture) -> None:
    found = evaluate(CameraOracle(tiny_capture), tiny_capture, "test")
    plain = json.loads(json.dumps(found.to_json()))
    assert Evaluation.from_json(plain) == found
    del plain["pose"]["frame"], plain["pose"]["limbs"]
    older = Evaluation.from_json(plain).pose
    assert older is not None
    assert older.frame == "canonical"
    assert older.limbs is None


def test_examples_in_camera_space_are_drawn_over_the_true_canonical_pose(tiny_capture: Capture) -> None:
    predictions = predict_split(CameraOracle(tiny_capture), tiny_capture, "test")
    assert true_poses(predictions).shape == (len(predictions), 17, 3)
    for example in pose_examples(tiny_capture, {"theirs": predictions}, pick_rows(predictions, 3)):
        assert example.predicted["theirs"].n_mpjpe < 1e-2
        np.testing.assert_allclose(example.predicted["theirs"].pose, example.true, atol=1e-2)


def test_the_mean_pose_in_camera_space_is_the_mean_over_images(tiny_capture: Capture) -> None:
    train = tiny_capture.instants("train")
    found = MeanPose.in_cameras(tiny_capture, train)
    turned = []
    for pose, valid, rows in zip(train.pose, train.heading_valid, train.rows, strict=True):
        for row in rows if valid else ():
            camera, (box,) = tiny_capture.cameras(np.array([row])), tiny_capture.boxes(np.array([row]))
            ray = np.linalg.inv(camera.intrinsics[0]) @ [*(box[:2] + box[2:]) / 2, 1]
            ray /= np.linalg.norm(ray)
            axis = np.cross(ray, [0, 0, 1])
            to_ray = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.arccos(ray[2]))
            turned.append((pose - pose[0]) @ (to_ray.as_matrix() @ camera.rotation[0]).T)
    assert len(turned) > len(train)
    assert np.allclose(found.pose, np.mean(turned, axis=0), atol=1e-2)
    assert evaluate(found, tiny_capture, "test").pose.frame == "camera"  # type: ignore[union-attr]


def test_scoring_in_camera_space_needs_cameras(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path / "capture", info=INFO)
    writer.append([replace(frame, camera=None) for frame in stick_part(2, 0)])
    capture = writer.finish()
    predict = Oracle(capture)
    with pytest.raises(CaptureError, match=r"scoring in camera space needs camera rotations, and 64 of 64 images"):
        evaluate(lambda rows: replace(predict(rows), frame="camera"), capture, "test")
