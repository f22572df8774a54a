import numpy as np
import torch

from mcss.models.uncertainty import NEIGHBOURS, fit_uncertainty, uncertainty_features


def slow_signs(known: np.ndarray, poses: np.ndarray, one: np.ndarray, pose: np.ndarray) -> list[float]:
    """One prediction, by the definition."""
    distances = [float(np.sqrt(((one - other) ** 2).sum())) for other in known]
    nearest = sorted(range(len(known)), key=lambda i: distances[i])[:NEIGHBOURS]
    spread = apart = 0.0
    for joint in range(1, 17):
        places = [poses[i][joint] for i in nearest]
        mean = sum(places) / len(places)
        spread += sum(float(np.linalg.norm(p - mean)) for p in places) / len(places) / 16
        apart += float(np.linalg.norm(pose[joint] - mean)) / 16
    return [1.0, spread, apart, 100 * sum(distances[i] for i in nearest) / len(nearest)]


def some(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.nn.functional.normalize(torch.randn(count, 6, generator=generator), dim=1)
    return embedding, 100 * torch.randn(count, 17, 3, generator=generator)


def test_features_follow_their_definition() -> None:
    known, poses = some(0, 40)
    asked, pose = some(1, 7)
    found = uncertainty_features(known, poses, asked, pose)
    for i in range(7):
        expected = slow_signs(known.numpy(), poses.numpy(), asked[i].numpy(), pose[i].numpy())
        np.testing.assert_allclose(found[i], expected, rtol=1e-4)


def test_all_references_are_used_if_there_are_fewer_than_neighbours() -> None:
    known, poses = some(0, 3)
    assert np.isfinite(uncertainty_features(known, poses, *some(1, 2))).all()


def test_fitted_errors_are_calibrated_and_no_doubt_makes_them_smaller() -> None:
    known, poses = some(0, 60)
    asked, pose = some(1, 400)
    found = uncertainty_features(known, poses, asked, pose)
    rng = np.random.default_rng(0)
    error = (found @ np.array([20, 0.3, 0.2, 0.1])) * rng.uniform(0.7, 1.3, 400)
    reference = fit_uncertainty(known, poses, found, error)
    expected = reference.expected_error(asked, pose)
    assert (reference.weights >= 0).all()
    assert abs(expected.mean() / error.mean() - 1) < 0.02
    assert abs((error < reference.limit * expected).mean() - 0.9) < 0.01
    backwards = fit_uncertainty(known, poses, found, 500 - error)
    assert (backwards.weights >= 0).all()
