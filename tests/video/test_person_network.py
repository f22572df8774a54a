import numpy as np
import pytest
import torch

from mcss.video.person_network import SIDE, WEIGHTS, PersonNetwork, RawDetections, anchors
from mcss.weights import load_strictly, read_weights

SOME = [0, 1567, 1568, 1959, 1960, 2253, 1000, 1834]
"""The first and last anchor of each grid, one in the middle, and the likeliest one."""


@pytest.fixture(scope="module")
def found() -> RawDetections:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    pattern = np.stack([0.5 + 0.5 * np.sin(9 * x + 4 * y), 0.5 + 0.5 * np.cos(7 * y), x * y])
    net = PersonNetwork()
    load_strictly(net, {key: value.float() for key, value in read_weights(WEIGHTS).items()}, WEIGHTS.name, "it")
    with torch.inference_mode():
        answer: RawDetections = net.eval()(torch.from_numpy(pattern.astype(np.float32))[None] * 2 - 1)
    return answer


def test_what_is_found_is_what_litert_finds(found: RawDetections) -> None:
    """The figures are what LiteRT 2.3.0 computes with the .tflite file of mediapipe 0.10.21 on the same image."""
    logits = [-66.2201, -6.3560, -4.1435, -95.9518, -15.0796, -26.7730, -84.9804, -0.7770]
    hips = [(3.2903, 4.1931), (-121.7417, 70.1006), (8.1667, 35.9497), (-3.2790, 14.8871)]
    hips += [(-0.0371, 0.0179), (-0.2070, 0.2280), (6.1542, 11.7859), (-105.4339, 208.3291)]
    reach = [(-0.7380, 0.5615), (15.9316, -33.1971), (-3.9597, 7.1867), (17.5689, -27.9906)]
    reach += [(0.0366, -0.0303), (-0.1183, 0.4029), (-11.6631, -6.8245), (58.3315, -118.5291)]
    np.testing.assert_allclose(found.logits[0, SOME], logits, atol=2e-3)
    np.testing.assert_allclose(found.hips[0, SOME], hips, atol=2e-3)
    np.testing.assert_allclose(found.reach[0, SOME], reach, atol=2e-3)
    assert int(found.logits.argmax()) == 1834


def test_anchors_are_the_middles_of_cells_2_2_and_6_to_a_cell(found: RawDetections) -> None:
    places = anchors()
    assert len(places) == found.logits.shape[1] == 2 * 28 * 28 + 2 * 14 * 14 + 6 * 7 * 7
    assert places[[0, 1, 2, 55]].tolist() == [[4, 4], [4, 4], [12, 4], [220, 4]]
    assert places[[1568, 1960, 1965, 1966, 2253]].tolist() == [[8, 8], [16, 16], [16, 16], [48, 16], [208, 208]]
