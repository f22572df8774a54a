import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_assembly import INFO, parts

from mcss.cli.terminal import PredictionWorkers, WorkerOptions
from mcss.data.capture import Capture
from mcss.errors import CaptureError, CheckpointError, ClusterError
from mcss.evaluation.predictions import predict_split
from mcss.evaluation.shared_predictor import SharedPredictor
from mcss.methods.registry import network_kinds
from mcss.models.model import load
from mcss.models.prediction import NetworkPredictor
from mcss.models.shares import Reported, Share, Stored, shared_out
from mcss.search.index import PoseIndex
from mcss.search.indexing import index_capture
from mcss.sources.assembly import assemble
from mcss.workers import Ray, Report, results
from runs_for_tests import small_run


def squared(item: int, report: Report) -> int:
    report(1)
    return item * item


def test_one_process_works_in_this_one_and_counts_steps_as_they_are_done() -> None:
    told: list[int] = []
    assert list(results(squared, [3, 4], 1, told.append)) == [(3, 9), (4, 16)]
    assert told == [1, 1]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"--engine ray needs Ray: install it with `pip install 'mcss\[ray\]'`"):
        list(results(squared, [1], Ray(), lambda _: None))


def test_an_address_without_a_cluster_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"no Ray cluster at 127\.0\.0\.1:1 \(.*\); start one with `ray start"):
        assemble(parts(), tmp_path / "capture", INFO, processes=Ray("127.0.0.1:1"))
    with pytest.raises(ValueError, match="processes: expected at least 1, got 0"):
        assemble(parts(), tmp_path / "other", INFO, processes=Ray(workers=0))


def test_verbs_that_predict_use_this_process_alone_unless_told_otherwise() -> None:
    assert WorkerOptions().chosen is None
    assert PredictionWorkers().chosen == 1
    assert PredictionWorkers(processes=3).chosen == 3
    assert PredictionWorkers(engine="ray", ray_address="head:6379").chosen == Ray("head:6379", None)


def doubled(share: Share, report: Report) -> list[int]:
    Reported(report).advance(len(share.rows))
    return (2 * share.rows).tolist()


class Counted:
    count = 0

    def advance(self, steps: int = 1) -> None:
        self.count += steps

    def note(self, text: str) -> None:
        raise AssertionError(text)


@pytest.mark.parametrize("workers", [1, 2])
def test_shares_of_rows_come_back_with_their_places_and_every_row_counts_once(workers: int) -> None:
    rows, task = np.array([5, 3, 8, 1, 9]), Counted()
    done = sorted((share.start, result) for share, result in shared_out(doubled, rows, workers, task, 2))
    assert done == [(0, [10, 6]), (2, [16, 2]), (4, [18])]
    assert task.count == 5


def ending(share: Share, report: Report) -> int:
    if 8 in share.rows:
        os._exit(9)
    return len(share.rows)


def test_a_share_that_ends_its_worker_is_named_after_all_others_are_done() -> None:
    shares = shared_out(ending, np.array([5, 3, 8, 1, 9]), 2, Counted(), 2)
    assert sorted(share.start for share, _ in (next(shares), next(shares))) == [0, 4]
    with pytest.raises(
        ClusterError, match=r"^2 of 5 images were not processed, from row 8 on: the process .* run the same command"
    ):
        next(shares)


def test_workers_refuse_another_capture_or_model_than_where_the_work_began(
    tiny_capture: Capture, tmp_path: Path
) -> None:
    run = small_run(tmp_path / "run")
    stored = Stored.of(tiny_capture, run)
    assert stored.opened_capture().fingerprint == tiny_capture.fingerprint
    assert stored.checked_model() == run
    with pytest.raises(CaptureError, match=r"is not the same on all machines: \w+ here, other where the work began"):
        replace(stored, fingerprint="other").opened_capture()
    small_run(run, seed=1)
    with pytest.raises(CheckpointError, match="run: is not the same on all machines; copy it"):
        stored.checked_model()
    with pytest.raises(CheckpointError, match=r"there is no model that can be read \(No such file"):
        Stored.of(tiny_capture, tmp_path / "absent")


def test_several_processes_index_and_evaluate_as_one_does(tiny_capture: Capture, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    model = load(run)
    columns = ["row", "subject", "frame", "view", "vector", "predicted", "true"]
    tables = []
    for workers in (1, 2):
        index_capture(tiny_capture, model, str(tmp_path / f"{workers}"), workers=workers, share=100)
        tables.append(PoseIndex.open(tmp_path / f"{workers}").table(columns).sort_by("row"))
    assert tables[0].select(columns[:4]).equals(tables[1].select(columns[:4]))
    for column in ("vector", "predicted"):
        one, other = (table[column].to_pylist() for table in tables)
        if column == "predicted":
            one, other = ([np.frombuffer(cell, "<f4") for cell in cells] for cells in (one, other))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
    shared = SharedPredictor(Stored.of(tiny_capture, run), network_kinds(), 2, 50)
    one, other = (
        predict_split(p, tiny_capture, "test") for p in (shared, NetworkPredictor(model.network, tiny_capture))
    )
    assert one.pose is not None
    assert other.pose is not None
    np.testing.assert_allclose(one.pose, other.pose, rtol=1e-4, atol=1e-3)
    assert one.rows.tolist() == other.rows.tolist()
