from dataclasses import replace

import pytest

from mcss.data.capture import Capture
from mcss.data.provenance import provenance
from mcss.evaluation.predictions import EvaluationSettings
from mcss.evaluation.results import SystemResult
from mcss.experiments.comparison import comparison_table
from mcss.experiments.runs import mean_pose_result
from mcss.methods.mcss import MCSS


@pytest.fixture(scope="module")
def results(tiny_capture: Capture) -> list[SystemResult]:
    """The mean pose, and as MCSS two runs that happen to predict the mean pose."""
    mean_pose = mean_pose_result(tiny_capture, "S1", "test", EvaluationSettings(max_instants=12))
    history = [{"images": 50, "minutes": 1.0}, {"images": 1500, "minutes": 7.4}]
    runs = [replace(mean_pose, system=MCSS.name, title=MCSS.title, seed=seed, history=history) for seed in (0, 1)]
    return [mean_pose, *runs]


def test_a_table_tells_what_each_row_rests_on(tiny_capture: Capture, results: list[SystemResult]) -> None:
    made = provenance("mcss experiment", tiny_capture, {})
    lines = comparison_table({"test": results}, made).splitlines()
    assert lines[0].startswith("| system | labels | seeds | images | minutes | N-MPJPE |")
    assert lines[2].startswith("| Mean pose | S1 | 1 | – | – | ")
    assert lines[3].startswith("| **MCSS** | S1 | 2 | 1,500 | 7 | ")
    assert len(lines) == 6, "a split without results has no table"
    assert "Measured on at most 12 instants, evenly spread over the split. Images: those that" in lines[-1]


def test_new_motions_have_a_table_of_their_own(tiny_capture: Capture, results: list[SystemResult]) -> None:
    made = provenance("mcss experiment", tiny_capture, {})
    text = comparison_table({"test": results, "new-motion": results[:1]}, made)
    second = text.split("On motions that nobody performed in training:\n\n")[1].splitlines()
    assert second[0].startswith("| system | labels | seeds | N-MPJPE |")
    assert len(second) == 5


def test_a_table_of_a_whole_split_says_nothing_of_instants(tiny_capture: Capture, results: list[SystemResult]) -> None:
    whole = EvaluationSettings()
    results = [replace(result, evaluation=replace(result.evaluation, settings=whole)) for result in results]
    assert "Measured on" not in comparison_table({"test": results}, provenance("mcss experiment", tiny_capture, {}))
