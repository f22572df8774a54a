import numpy as np
import pytest
import torch

from mcss.data.capture import Capture
from mcss.metrics import pa_mpjpe
from mcss.skeletons import canonical_pose
from mcss.sources.synthetic.coverage import COLUMNS, Coverage, SplitCoverage, _oracle, measure_coverage


def split(coverage: Coverage, name: str) -> SplitCoverage:
    return next(part for part in coverage.splits if part.split == name)


def test_counts_are_those_of_the_capture(tiny_capture: Capture) -> None:
    train = split(measure_coverage(tiny_capture), "train")
    assert train.subjects == ("S1", "S2")
    assert (train.instants, train.images) == (2 * 2 * 24, 2 * 2 * 24 * 4)
    assert {(a.action, a.instants, a.images) for a in train.actions} == {("Walking", 48, 192), ("Waving", 48, 192)}
    assert train.distances is None


def test_distances_are_those_of_a_plain_search(tiny_capture: Capture) -> None:
    coverage = measure_coverage(tiny_capture, labels="S1")
    test, train = tiny_capture.instants("test"), tiny_capture.instants("train")
    poses, known = (canonical_pose(torch.from_numpy(i.pose))[:, 1:].numpy() for i in (test, train))
    own = known[train.subject == train.subjects.index("S1")]

    def error(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a - b) ** 2).sum(-1)).mean())

    found = split(coverage, "test").distances
    assert found is not None
    assert coverage.labelled == 48
    assert found.nearest_labelled == pytest.approx(np.mean([min(error(p, q) for q in own) for p in poses]), rel=1e-4)
    assert found.nearest_training == pytest.approx(np.mean([min(error(p, q) for q in known) for p in poses]), rel=1e-4)
    assert found.mean_pose == pytest.approx(np.mean([error(p, own.mean(0)) for p in poses]), rel=1e-4)
    assert found.nearest_training <= found.nearest_labelled < found.mean_pose


def test_the_oracle_leaves_out_the_query_and_for_others_its_subject(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants("train")
    poses = torch.from_numpy(instants.pose)
    # The tiny capture's test split has one subject, so the training instants are asked directly.
    scores = {score.k: score for score in _oracle(instants)}
    expected, crossing = [], []
    for i in range(len(poses)):
        errors = pa_mpjpe(poses, poses[i].expand_as(poses)).numpy()
        errors[i] = np.inf
        expected.append(np.sort(errors)[:10].mean())
        crossing.append(errors[instants.subject != instants.subject[i]].min())
    assert scores[10].anybody == pytest.approx(np.mean(expected), rel=1e-3)
    assert scores[1].others == pytest.approx(np.mean(crossing), rel=1e-3)
    assert split(measure_coverage(tiny_capture), "test").oracle[0].others is None


def test_the_table_has_a_row_for_each_action_and_one_for_the_whole_split(tiny_capture: Capture) -> None:
    rows = measure_coverage(tiny_capture).table()
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert [row[:2] for row in rows] == [
        (name, action) for name in ("train", "validation", "test") for action in ("Walking", "Waving", "all")
    ]


def test_a_large_split_is_sampled_and_says_how_many(tiny_capture: Capture) -> None:
    test = split(measure_coverage(tiny_capture, max_poses=5), "test")
    assert (test.poses, test.instants) == (5, 32)


def test_labels_that_select_nothing_are_refused(tiny_capture: Capture) -> None:
    with pytest.raises(ValueError, match="select no instant"):
        measure_coverage(tiny_capture, labels="none")
    with pytest.raises(ValueError, match="max_poses"):
        measure_coverage(tiny_capture, max_poses=0)
