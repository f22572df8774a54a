"""Shape checks are active in the tests. Without these tests, nobody would notice a hook that is silently off."""

import jaxtyping
import pytest
import torch

from mcss import losses, metrics
from mcss.models.pose_network import NetworkConfig, PoseNetwork


def test_shapes_that_do_not_match_each_other_are_refused() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="mpjpe"):
        metrics.mpjpe(torch.zeros(2, 16, 3), torch.zeros(2, 17, 3))


def test_types_and_dimensions_that_are_not_those_of_the_signature_are_refused() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.pair_distances(torch.zeros(4, 8, dtype=torch.int64), torch.zeros(4, 8, dtype=torch.int64))
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.multiview_infonce(torch.zeros(4, 8), 0.1)


def test_methods_and_plain_annotations_are_checked_too() -> None:
    network = PoseNetwork(NetworkConfig("tf_efficientnet_lite0", image_size=32))
    with pytest.raises(jaxtyping.TypeCheckError):
        network.denormalised(torch.zeros(2, 51))
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.multiview_infonce(torch.zeros(4, 2, 8), "warm")  # type: ignore[arg-type]
