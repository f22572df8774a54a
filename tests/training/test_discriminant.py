"""The embedding head that is fitted to unlabelled views in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mcss.data.capture import Capture
from mcss.data.loading.augmentation import normalise
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.training import discriminant
from mcss.training.discriminant import DIM, with_fitted_embedding


def test_directions_are_those_of_linear_discriminant_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discriminant, "RIDGE", 1e-9)
    rng = np.random.default_rng(0)
    instants, views, size = 60, 4, 7
    mixed = rng.normal(size=(size, size))
    poses = rng.normal(size=(instants, 1, size)) * [3, 2, 1, 0.1, 0.1, 0.1, 0.1]
    features = ((poses + rng.normal(size=(instants, views, size))) @ mixed).astype(np.float32)
    scatter = discriminant._Scatter(size)
    for start in range(0, instants, 16):  # in parts, as images come
        part = features[start : start + 16]
        person = np.zeros(len(part), np.int64)
        scatter.add(torch.from_numpy(part.reshape(-1, size)), np.repeat(np.arange(len(part)), views), person)
    found, offset = scatter.discriminants(3)
    classes = np.repeat(np.arange(instants), views)
    known = LinearDiscriminantAnalysis(solver="eigen").fit(features.reshape(-1, size), classes).scalings_[:, :3].T
    for one, other in zip(found, known, strict=True):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert abs(cosine) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(features.reshape(-1, size).mean(axis=0) @ found.T + offset, 0, atol=1e-4)


def test_how_people_look_on_average_is_ignored() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat([0, 1], 200)
    poses = rng.normal(size=(400, 1, 3)) * [1, 0, 0]
    features = poses + np.stack([np.zeros(400), 20 * person, np.zeros(400)], axis=1)[:, None]
    features = (features + 0.1 * rng.normal(size=(400, 2, 3))).astype(np.float32)
    scatter = discriminant._Scatter(3)
    scatter.add(torch.from_numpy(features.reshape(-1, 3)), np.repeat(np.arange(400), 2), person)
    (first,), _ = scatter.discriminants(1)
    spread = first * features.reshape(-1, 3).std(axis=0)
    assert abs(spread[1]) < 0.1 * abs(spread[0])


@pytest.fixture
def network() -> PoseNetwork:
    torch.manual_seed(0)
    return PoseNetwork(NetworkConfig(image_size=64, dim=16, embedding_norm=True), "random").eval()


def apartness(network: PoseNetwork, capture: Capture) -> float:
    """How far apart the views of an instant are, for how far apart instants are."""
    rows = capture.instants("train").rows[:12]
    with torch.no_grad():
        images = normalise(torch.from_numpy(capture.decode(rows.reshape(-1), 64)).permute(0, 3, 1, 2))
        embedding = network(images).embedding.reshape(*rows.shape, -1)
    centre = embedding.mean(dim=1)
    return float((embedding - centre[:, None]).square().sum() / (centre - centre.mean(dim=0)).square().sum())


def test_views_come_closer_together(network: PoseNetwork, tiny_capture: Capture) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fitted = with_fitted_embedding(network, tiny_capture)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert 1 < fitted.config.dim <= DIM
    assert apartness(fitted, tiny_capture) < 0.8 * apartness(network, tiny_capture)
    again = with_fitted_embedding(network, tiny_capture)
    assert all(torch.equal(one, other) for one, other in zip(fitted.parameters(), again.parameters(), strict=True))


def test_large_maps_are_averaged_first(
    network: PoseNetwork, tiny_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels, side = network.backbone.channels, network.feature_side()
    assert side > 1
    monkeypatch.setattr(discriminant, "MOST_FEATURES", channels)
    fitted = with_fitted_embedding(network, tiny_capture)
    assert isinstance(fitted.embedding_head, torch.nn.Linear)
    weight = fitted.embedding_head.weight.reshape(-1, channels, side**2)
    torch.testing.assert_close(weight, weight[..., :1].expand_as(weight))
    assert apartness(fitted, tiny_capture) < apartness(network, tiny_capture)


def test_single_views_are_refused(network: PoseNetwork, tiny_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    instants = tiny_capture.instants("train")
    single = replace(instants, rows=np.where(np.arange(instants.rows.shape[1]) == 1, instants.rows, -1))
    monkeypatch.setattr(Capture, "instants", lambda *_: single)
    with pytest.raises(ValueError, match=r"two or more views .*has none; keep the embedding .* --no-fit"):
        with_fitted_embedding(network, tiny_capture)
