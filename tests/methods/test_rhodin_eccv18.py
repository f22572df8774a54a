import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mcss.training.loop as training
from captures_for_tests import INFO, stick_part
from mcss.data.backgrounds import BackgroundCrops, halvings
from mcss.data.capture import Capture
from mcss.data.loading.augmentation import normalise
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError, CheckpointError
from mcss.evaluation.evaluate import evaluate
from mcss.evaluation.predictions import EvaluationSettings
from mcss.methods.mcss import MCSS
from mcss.methods.registry import load_estimator
from mcss.methods.rhodin_eccv18 import (
    DrawnViews,
    NovelViewSynthesis,
    RhodinECCV18,
    mean_l1,
    mean_squared,
    novel_view_losses,
)
from mcss.methods.supervised import Supervised
from mcss.models.model_file import load_model
from mcss.models.novel_view_network import NovelViewNetwork, SynthesisConfig, seen_from_the_next_view
from mcss.models.pose_network import NetworkConfig, NetworkOutput
from mcss.models.prediction import NetworkPredictor
from mcss.training.loop import train
from mcss.training.metrics_log import read_metrics
from mcss.training.settings import OptimiserSettings, TrainSettings, recipe, stages
from runs_for_tests import (
    NO_AUGMENTATION,
    check_that_a_run_stopped_in_either_stage_resumes_bit_for_bit,
    random_rotations,
)

SYNTHESIS = SynthesisConfig(cloud_points=8, appearance=4, drawn_size=16, width=32, perception_stages=1, hidden=16)
NETWORK = NetworkConfig(backbone="resnet18", batchnorm_affine=True, image_size=32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))


def settings_for(capture: Capture, **changes: object) -> TrainSettings:
    settings = TrainSettings(
        capture=capture.uri,
        method=RhodinECCV18(
            NovelViewSynthesis(instants=4, views=2, min_gap=0.2, synthesis=SYNTHESIS),
            representation_length=0.5,
            pose_images=6,
        ),
        network=NETWORK,
        weights="random",
        augmentation=NO_AUGMENTATION,
        optimiser=OptimiserSettings(steps=8, schedule="cosine", average=0.9),
        validate_every=100,
        validation_instants=4,
        log_every=1,
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


def test_each_view_is_drawn_from_the_one_before_with_the_appearance_of_another_instant() -> None:
    """Compare with plain loops: to the world with R_sourceᵀ, then to the camera with R_target."""
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(3, 4, 5, 3, generator=generator, dtype=torch.float64)
    appearance = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    rotations = random_rotations(3, 4)
    turned, swapped = seen_from_the_next_view(cloud, appearance, rotations)
    for i in range(3):
        for v in range(4):
            for n in range(5):
                world = rotations[i, v - 1].T @ cloud[i, v - 1, n]
                torch.testing.assert_close(turned[i, v, n], rotations[i, v] @ world)
            torch.testing.assert_close(swapped[i, v], appearance[i - 1, v - 1])


def test_a_cloud_that_is_the_same_thing_in_all_views_comes_out_as_each_view_has_it() -> None:
    rotations = random_rotations(2, 3)
    body = torch.randn(2, 1, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = body @ rotations.mT
    turned, _ = seen_from_the_next_view(seen, torch.zeros(2, 3, 1, dtype=torch.float64), rotations)
    torch.testing.assert_close(turned, seen)
    other_world, _ = seen_from_the_next_view(
        seen, torch.zeros(2, 3, 1, dtype=torch.float64), rotations @ random_rotations(seed=3)
    )
    torch.testing.assert_close(other_world, seen)


def test_a_view_may_be_drawn_from_itself() -> None:
    """A single view has no view before it; of several, those of the first `own` instants are drawn from themselves."""
    cloud = torch.randn(3, 1, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    appearance = torch.randn(3, 1, 2, dtype=torch.float64)
    turned, swapped = seen_from_the_next_view(cloud, appearance, random_rotations(3, 1))
    torch.testing.assert_close(turned, cloud)
    torch.testing.assert_close(swapped, appearance.roll(1, dims=0))

    torch.manual_seed(0)
    network = NovelViewNetwork(NETWORK, SYNTHESIS).eval()
    images, rotations = torch.randn(4, 3, 32, 32), random_rotations(4).float()
    backgrounds = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        none, first, all_own = (network(images, 0, (2, 2), rotations, backgrounds, own) for own in range(3))
        still = network(images, 0, (2, 2), torch.eye(3).expand(4, 3, 3), backgrounds, 2)
    torch.testing.assert_close(first, torch.cat([all_own[:2], none[2:]]))
    torch.testing.assert_close(all_own, still)  # nothing is rotated
    assert not torch.allclose(none[:2], all_own[:2])
    with pytest.raises(ValueError, match=r"own_share: expected a share between 0 and 1, got 2"):
        NovelViewSynthesis(own_share=2.0)


def test_losses_equal_a_slow_version_and_have_the_right_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 3, 3, 4, 4, generator=generator, dtype=torch.float64)
    for found, a, b in zip(mean_l1(one, two), one, two, strict=True):
        pairs = list(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
        assert found.item() == pytest.approx(sum(abs(x - y) for x, y in pairs) / len(pairs))
    p, q = one.flatten(1), two.flatten(1)
    for found, a, b in zip(mean_squared(p, q), p, q, strict=True):
        pairs = list(zip(a.tolist(), b.tolist(), strict=True))
        assert found.item() == pytest.approx(sum((x - y) ** 2 for x, y in pairs) / len(pairs))
    assert torch.autograd.gradcheck(lambda x: mean_l1(x, two), (one.requires_grad_(),))
    assert torch.autograd.gradcheck(lambda x: mean_squared(x, q), (p.detach().requires_grad_(),))
    cloud = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    appearance = torch.zeros(2, 2, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: seen_from_the_next_view(x, appearance, random_rotations(2, 2))[0], (cloud,)
    )


def test_the_background_enters_only_the_last_layers_and_pose_and_appearance_all() -> None:
    torch.manual_seed(0)
    network = NovelViewNetwork(NETWORK, SYNTHESIS).eval()
    cloud, appearance, background = torch.randn(1, 8, 3), torch.randn(1, 4), torch.zeros(1, 3, 16, 16)
    spot = background.clone()
    spot[0, :, 8, 8] = 1
    with torch.no_grad():
        plain, spotted = (network.decoder(cloud, appearance, behind) for behind in (background, spot))
        changed = (plain - spotted).abs().sum(1)[0] > 0
        assert changed.nonzero().amin(0).tolist() == [6, 6]
        assert changed.nonzero().amax(0).tolist() == [10, 10]
        for other in ((cloud + 1, appearance), (cloud, appearance + 1)):
            assert not torch.equal(network.decoder(cloud, appearance, background), network.decoder(*other, background))


def test_the_loss_is_that_of_colours_and_twice_that_of_features_whatever_their_scale() -> None:
    network = NovelViewNetwork(NETWORK, SYNTHESIS).eval()
    generator = torch.Generator().manual_seed(0)
    drawn, true = torch.randn(2, 4, 3, 16, 16, generator=generator)
    settings = NovelViewSynthesis(synthesis=SYNTHESIS)
    found = novel_view_losses(settings, network, drawn, true)
    torch.testing.assert_close(found.total, found.pixels + 2 * found.features)
    torch.testing.assert_close(found.pixels, (drawn - true).abs().mean())
    with torch.no_grad():  # the stem ends with ReLU and a maximum, so its size goes with that of BatchNorm's scale
        stem = network.perception[0].get_submodule("1")
        assert isinstance(stem, torch.nn.BatchNorm2d)
        stem.weight *= 7
        stem.bias *= 7
    torch.testing.assert_close(novel_view_losses(settings, network, drawn, true).features, found.features)
    network = NovelViewNetwork(NETWORK, replace(SYNTHESIS, perception_stages=3)).eval()
    squared = novel_view_losses(replace(settings, differences="squared"), network, drawn, true)
    torch.testing.assert_close(squared.pixels, (drawn - true).square().mean())
    with torch.no_grad():
        one, other = network.early_features(drawn), network.early_features(true)
    assert [len(features) for features in (one, other)] == [3, 3]
    shares = [(a - b).square().mean() / b.square().mean() for a, b in zip(one, other, strict=True)]
    torch.testing.assert_close(squared.features, torch.stack(shares).mean())
    for own in (settings, replace(settings, differences="squared")):
        assert novel_view_losses(own, network, true, true).total.item() == 0


def test_with_a_frozen_encoder_only_the_pose_head_learns() -> None:
    network = NovelViewNetwork(NETWORK, SYNTHESIS)
    network.train()
    assert not network.perception.training
    assert not any(value.requires_grad for value in network.perception.parameters())
    network.freeze_encoder()
    network.train()
    learning = {name.split(".")[0] for name, value in network.named_parameters() if value.requires_grad}
    assert learning == {"pose_head"}
    assert network.pose_head.training
    before = {key: value.clone() for key, value in network.state_dict().items() if "pose_head" not in key}
    output = network(torch.randn(4, 3, 32, 32))
    assert isinstance(output, NetworkOutput)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())


def test_background_crops_are_where_the_person_was_cut_out_and_go_on_beyond_the_border(
    scenic_capture: Capture,
) -> None:
    instants = scenic_capture.instants("train")
    crops = BackgroundCrops.read(scenic_capture, instants, 16, "a test")
    ramp = np.zeros((512, 512, 3), np.uint8)
    ramp[..., 0] = np.arange(512)[None] // 2
    ramp[..., 1] = np.arange(512)[:, None] // 2
    boxes = np.full((len(instants), 4, 4), (100, 200, 260, 360), np.float32)
    boxes[1] = (-160, 400, 160, 720)
    shown = replace(crops, scenes=(halvings(ramp),), boxes=boxes).take(np.array([0, 1]), np.array([2, 3])).float()
    centres = (np.arange(16) + 0.5) * 10
    np.testing.assert_allclose(shown[0, 0, 5].numpy(), (100 + centres) / 2, atol=1)
    np.testing.assert_allclose(shown[0, 1, :, 5].numpy(), (200 + centres) / 2, atol=1)
    np.testing.assert_allclose(shown[1, 0, 5].numpy(), (-160 + 2 * centres).clip(0, 511) / 2, atol=3)
    np.testing.assert_allclose(shown[1, 1, :, 5].numpy(), (400 + 2 * centres).clip(0, 511) / 2, atol=3)
    plain = crops.take(np.array([0]), np.array([0]))
    assert (plain.float().mean((0, 2, 3)) - torch.tensor([200.0, 190.0, 180.0])).abs().max() < 2


def test_a_batch_holds_the_true_images_and_their_backgrounds_in_the_order_of_its_images(
    scenic_capture: Capture, tmp_path: Path
) -> None:
    first, _ = stages(settings_for(scenic_capture))
    assert first is not None
    assert first.labels == "none"
    assert isinstance(first.method, NovelViewSynthesis)
    sources = []

    def caught(*args: object, **_: object) -> None:
        sources.append(next(a.source for a in args if isinstance(a, training.Run)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_fit", caught)
        train(first, tmp_path / "caught")
    batch, chosen = sources[0].batch(3), sources[0].selection(3)
    instants = scenic_capture.instants("train")
    drawn = batch.extra
    assert isinstance(drawn, DrawnViews)
    assert drawn.images.shape == drawn.backgrounds.shape == (8, 3, 16, 16)
    rows = instants.rows[chosen.instants, chosen.views]
    expected = normalise(torch.from_numpy(scenic_capture.decode(rows, 16)).permute(0, 3, 1, 2))
    torch.testing.assert_close(drawn.images, expected)
    np.testing.assert_allclose(drawn.rotations.numpy(), scenic_capture.crop_rotations(rows, "the test"))


def test_both_losses_fall_and_the_result_is_evaluated_in_camera_space(scenic_capture: Capture, tmp_path: Path) -> None:
    synthesis = replace(SYNTHESIS, hidden=64, hidden_dropout=0.0)
    method = RhodinECCV18(
        NovelViewSynthesis(instants=4, min_gap=0.2, synthesis=synthesis), pose_images=8, representation_length=0.7
    )
    optimiser = OptimiserSettings(steps=30, lr=2e-3)
    train(settings_for(scenic_capture, method=method, optimiser=optimiser), tmp_path / "run")
    first, second = (
        [line for line in read_metrics(folder / "metrics.jsonl") if "total" in line]
        for folder in (tmp_path / "run" / "first", tmp_path / "run")
    )
    assert (len(first), len(second)) == (21, 30)
    assert np.mean([x["pixels"] for x in first[-5:]]) < 0.7 * np.mean([x["pixels"] for x in first[:3]])
    assert np.mean([x["features"] for x in first[-5:]]) < 0.9 * np.mean([x["features"] for x in first[:3]])
    assert np.mean([x["pose"] for x in second[-5:]]) < 0.9 * np.mean([x["pose"] for x in second[:3]])

    # The second stage left the encoder unchanged.
    before, after = (load_file(f / "model.safetensors") for f in (tmp_path / "run" / "first", tmp_path / "run"))
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"pose_head", "pose_mean", "pose_std"}

    network = load_estimator(tmp_path / "run")
    assert isinstance(network, NovelViewNetwork)
    assert network.synthesis == synthesis
    found = evaluate(
        NetworkPredictor(network, scenic_capture), scenic_capture, "test", EvaluationSettings(max_instants=6)
    )
    assert found.pose is not None
    assert found.pose.frame == "camera"
    with pytest.raises(CheckpointError, match=r"safetensors: expected a pose network, got a novel-view network"):
        load_model(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "first" / "config.json").read_text())
    assert (config["method_name"], config["labels"]) == ("rhodin_eccv18_representation", "none")


def test_a_run_stopped_in_either_stage_resumes_bit_for_bit(
    scenic_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(scenic_capture)
    check_that_a_run_stopped_in_either_stage_resumes_bit_for_bit(settings, tmp_path, monkeypatch)


def test_a_capture_without_backgrounds_is_refused_with_a_way_out(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path / "capture", info=INFO)
    writer.append(stick_part(0, 0))
    capture = writer.finish()
    message = r"rhodin_eccv18_representation needs an image of the empty scene.*no.* view 1 for S1/Walking 1.*mcss"
    with pytest.raises(CaptureError, match=message):
        train(settings_for(capture), tmp_path / "run")


def test_networks_of_another_kind_are_refused_as_a_start(scenic_capture: Capture, tmp_path: Path) -> None:
    theirs = recipe("fast", Supervised, scenic_capture.uri)
    other = replace(settings_for(scenic_capture, optimiser=OptimiserSettings(steps=1)), method=theirs.method)
    train(other, tmp_path / "other")
    settings = settings_for(scenic_capture, init=str(tmp_path / "other"))
    with pytest.raises(
        CheckpointError,
        match=r"--init .*other: expected a NovelViewNetwork .* rhodin_eccv18 trains, got a PoseNetwork ",
    ):
        train(settings, tmp_path / "run")


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"drawn_size: expected a power of two, 8 or more, got 96"):
        SynthesisConfig(drawn_size=96)
    with pytest.raises(ValueError, match=r"cloud_points: expected 1 or more, got 0"):
        SynthesisConfig(cloud_points=0)
    with pytest.raises(ValueError, match=r"representation_length: expected more than 0, got 0.0"):
        RhodinECCV18(representation_length=0.0)
    with pytest.raises(ValueError, match=r"perception_stages: expected 1 to 5, the stages of resnet18, got 6"):
        NovelViewNetwork(NETWORK, replace(SYNTHESIS, perception_stages=6))


def test_the_recipe_changes_no_colours_and_is_otherwise_that_of_mcss() -> None:
    ours, theirs = recipe("fast", MCSS, "c"), recipe("fast", RhodinECCV18, "c")
    assert (theirs.network, theirs.optimiser, theirs.frozen_stages) == (
        ours.network,
        ours.optimiser,
        ours.frozen_stages,
    )
    colours = ("brightness", "contrast", "saturation", "hue", "channel_gain", "grey")
    assert all(getattr(theirs.augmentation, name) == 0 for name in colours)
    assert (theirs.augmentation.scale, theirs.augmentation.rotation) == (ours.augmentation.scale, 0)
    paper = recipe("paper", RhodinECCV18, "c").method
    assert isinstance(paper, RhodinECCV18)
    assert paper.representation.synthesis == SynthesisConfig(drawn_size=128)
