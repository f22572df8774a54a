import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.loading.augmentation import AugmentationSettings, mirrored_canonical, normalise
from mcss.data.loading.batches import Batch
from mcss.data.writer import CaptureWriter
from mcss.errors import CheckpointError
from mcss.methods import mcss as mcss_method
from mcss.methods.mcss import MCSS
from mcss.methods.supervised import Supervised
from mcss.models.backbones import build_backbone
from mcss.models.model_file import load_model
from mcss.models.pose_network import NetworkConfig, NetworkOutput, PoseEstimator, PoseNetwork
from mcss.progress import NO_PROGRESS
from mcss.training import loop as training
from mcss.training.feature_cache import FrozenStages, cache_stages
from mcss.training.loop import train
from mcss.training.metrics_log import learning_curve_of, read_metrics
from mcss.training.runs import check_run, write_config
from mcss.training.settings import OptimiserSettings, TrainSettings, recipe
from runs_for_tests import NO_AUGMENTATION

STEPS = 8


def settings_for(capture: Capture, **changes: object) -> TrainSettings:
    network = NetworkConfig(
        backbone="resnet18", batchnorm_affine=True, embedding_norm=True, scaled_embedding=True, dim=16, image_size=32,
        dropout=0.2,
    )  # fmt: skip
    settings = TrainSettings(
        capture=capture.uri,
        method=MCSS(metric_loss="infonce", instants=4, views=3, min_gap=0.2, pose_images=4),
        network=network,
        weights="random",
        optimiser=OptimiserSettings(steps=STEPS, schedule="cosine", average=0.9),
        validate_every=4,
        validation_instants=4,
        checkpoint_every=2,
        log_every=1,
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("views", [2, 3])
def test_a_capture_of_two_or_three_views_is_trained_on_with_the_settings_for_four(views: int, tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path / "capture", info=INFO)
    for subject, sequence in ((0, 0), (2, 0)):
        writer.append([frame for frame in stick_part(subject, sequence) if int(frame.view) <= views])
    capture = writer.finish()
    method = MCSS(metric_loss="infonce", instants=4, views=4, min_gap=0.2, pose_images=4)
    run = train(settings_for(capture, method=method), tmp_path / "run")
    images = [line["images"] for line in read_metrics(run / "metrics.jsonl") if "images" in line]
    assert images[-1] == STEPS * (4 * views + 4)
    assert load_model(run).config.image_size == 32


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_killed_in_the_middle_resumes_to_bit_identical_weights(tiny_capture: Capture, tmp_path: Path) -> None:
    settings = settings_for(tiny_capture, optimiser=OptimiserSettings(steps=60, schedule="cosine", average=0.9))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(settings, whole)
    script = (
        "import json, sys; from pathlib import Path; sys.path[:0] = sys.argv[1].split(':');"
        "from test_training import *;"
        "c = Capture.open(sys.argv[2]);"
        "s = settings_for(c, optimiser=OptimiserSettings(steps=60, schedule='cosine', average=0.9));"
        "train(s, Path(sys.argv[3]), resume=True)"
    )
    command = [
        sys.executable,
        "-c",
        script,
        f"{Path(__file__).parent}:{Path(__file__).parents[1]}",
        tiny_capture.uri,
        str(killed),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not (killed / "checkpoint.safetensors").exists():
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not (killed / "model.safetensors").exists()
    stopped_at = max(line["step"] for line in read_metrics(killed / "metrics.jsonl"))
    assert stopped_at < 60
    train(settings, killed, resume=True)
    assert same_weights(whole, killed)
    steps = [line["step"] for line in read_metrics(killed / "metrics.jsonl") if "total" in line]
    assert steps == list(range(1, 61))


def test_the_best_weights_of_the_learning_curve_are_kept_also_by_a_run_that_was_stopped(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = OptimiserSettings(steps=STEPS, lr=0.2)  # so that the error goes up and down on every machine
    settings = settings_for(tiny_capture, keep="best", optimiser=fast, validate_every=1, checkpoint_every=5)
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def watch(step: int, network: PoseEstimator) -> bool:
        seen[step] = {name: value.clone() for name, value in network.state_dict().items()}
        return False

    train(settings, tmp_path / "whole", watch=watch)
    errors = {point["step"]: point["n_mpjpe"] for point in learning_curve_of(tmp_path / "whole" / "metrics.jsonl")}
    best = min(errors, key=lambda step: errors[step])
    assert best < STEPS, "otherwise this test shows nothing"
    kept = load_model(tmp_path / "whole").state_dict()
    assert all(torch.equal(kept[name], value) for name, value in seen[best].items())

    taken: list[int] = []
    step = MCSS.step

    def stopping(*args: Any) -> Any:
        taken.append(1)
        if len(taken) == best + 1:  # the best weights are on disk, and the checkpoint is older
            raise KeyboardInterrupt
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(MCSS, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tmp_path / "stopped")
    train(settings, tmp_path / "stopped", resume=True)
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")
    train(settings, tmp_path / "stopped", resume=True)  # a finished one stays what it is
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")
    (tmp_path / "stopped" / "best.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"best\.safetensors is missing, with the best weights so far; train anew"
    ):
        train(settings, tmp_path / "stopped", resume=True)


def test_without_labels_or_a_validation_split_the_last_weights_are_kept(tiny_capture: Capture, tmp_path: Path) -> None:
    for name, changes in (("unlabelled", {"labels": "none"}), ("curveless", {"validation": None})):
        for keep in ("last", "best"):
            train(settings_for(tiny_capture, keep=keep, validate_every=1, **changes), tmp_path / name / keep)
        assert same_weights(tmp_path / name / "last", tmp_path / name / "best")


@pytest.mark.parametrize(("seconds", "kept"), [(1e9, 0), (-1.0, 4)])
def test_a_run_stopped_between_checkpoints_continues_from_the_last_one(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, kept: int
) -> None:
    settings = settings_for(tiny_capture, checkpoint_every=500)
    train(settings, tmp_path / "whole")
    begun: list[int] = []

    step = MCSS.step

    def counted(*args: Any) -> Any:
        begun.append(1)
        return step(*args)

    def stopping(*args: Any) -> Any:
        if len(begun) == 5:
            raise KeyboardInterrupt
        return counted(*args)

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
    with monkeypatch.context() as patch:
        patch.setattr(MCSS, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(replace(settings, log_every=2), tmp_path / "stopped")
    assert (tmp_path / "stopped" / "checkpoint.safetensors").exists() == (kept > 0)
    begun.clear()
    monkeypatch.setattr(MCSS, "step", counted)
    train(replace(settings, log_every=2), tmp_path / "stopped", resume=True)
    assert len(begun) == STEPS - kept
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")
    lines = read_metrics(tmp_path / "stopped" / "metrics.jsonl")
    assert [line["step"] for line in lines if "total" in line] == [2, 4, 6, 8]


def test_mirroring_reaches_the_images_and_labels_of_a_run(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[training.Run] = []
    monkeypatch.setattr(training, "_fit", lambda run, *_: runs.append(run))
    for name, mirror in (("plain", 0.0), ("mirrored", 1.0)):
        train(settings_for(tiny_capture, augmentation=replace(NO_AUGMENTATION, mirror=mirror)), tmp_path / name)
    plain, mirrored = (run.source.batch(0) for run in runs)
    torch.testing.assert_close(mirrored.images, plain.images.flip(-1), atol=0.05, rtol=0)
    torch.testing.assert_close(mirrored.poses, mirrored_canonical(plain.poses))


def test_the_seed_decides_the_weights(tiny_capture: Capture, tmp_path: Path) -> None:
    short = OptimiserSettings(steps=2)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(settings_for(tiny_capture, optimiser=short, seed=seed), tmp_path / name)
    assert same_weights(tmp_path / "a", tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


def test_training_on_labels_brings_the_training_loss_down(tiny_capture: Capture, tmp_path: Path) -> None:
    method = Supervised(pose_images=8)
    optimiser = OptimiserSettings(steps=40, lr=3e-3)
    train(settings_for(tiny_capture, method=method, optimiser=optimiser), tmp_path / "run")
    losses = [line["pose"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "pose" in line]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_without_labels_only_the_metric_loss_is_left(tiny_capture: Capture, tmp_path: Path) -> None:
    train(settings_for(tiny_capture, labels="none"), tmp_path / "run")
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "total" in line]
    assert all("pose" not in line and line["total"] == line["metric"] for line in lines)


def test_the_supervised_baseline_refuses_to_train_without_labels(tiny_capture: Capture, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels: supervised .*'none' gives none.*name a subject"):
        train(settings_for(tiny_capture, labels="none", method=Supervised()), tmp_path / "run")


def test_fine_tuning_starts_from_the_whole_network_of_another_run(tiny_capture: Capture, tmp_path: Path) -> None:
    train(settings_for(tiny_capture), tmp_path / "first")
    frozen = OptimiserSettings(steps=1, lr=1e-12)
    train(settings_for(tiny_capture, labels="none", init=str(tmp_path / "first"), optimiser=frozen), tmp_path / "next")
    first, following = load_model(tmp_path / "first"), load_model(tmp_path / "next")
    torch.testing.assert_close(first.embedding_head.weight, following.embedding_head.weight)
    torch.testing.assert_close(first.pose_mean, following.pose_mean)
    other = replace(settings_for(tiny_capture).network, dim=8)
    with pytest.raises(CheckpointError, match=r"--init .*first.*--backbone"):
        train(settings_for(tiny_capture, network=other, init=str(tmp_path / "first")), tmp_path / "third")


def test_a_folder_with_a_run_is_not_overwritten(tiny_capture: Capture, tmp_path: Path) -> None:
    short = settings_for(tiny_capture, optimiser=OptimiserSettings(steps=2))
    train(short, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"holds a run already\. Add --resume"):
        train(short, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"got others \(seed\)"):
        train(replace(short, seed=7), tmp_path / "run", resume=True)


def test_frozen_stages_stay_and_cached_maps_train_the_same_network(tiny_capture: Capture, tmp_path: Path) -> None:
    settings = settings_for(tiny_capture, frozen_stages=3, variants=2)
    torch.manual_seed(settings.seed)
    before = PoseNetwork(settings.network, "random")
    train(settings, tmp_path / "run")
    after = load_model(tmp_path / "run")
    for stage in range(3):
        old, new = before.backbone.stages[stage].state_dict(), after.backbone.stages[stage].state_dict()
        assert all(torch.equal(old[key], new[key]) for key in old)
    assert not torch.equal(
        before.backbone.stages[4].state_dict()["0.conv1.weight"],
        after.backbone.stages[4].state_dict()["0.conv1.weight"],
    )


def test_cached_maps_are_what_the_stages_say_and_survive_a_stop(tiny_capture: Capture, tmp_path: Path) -> None:
    backbone = build_backbone("resnet18", "random", batchnorm_affine=True).eval()
    rows = tiny_capture.instants("test").rows

    class Stop:
        """Interrupts the work after the first chunk, as Ctrl-C would."""

        def task(self, name: str, total: int, done: int = 0) -> "Stop":
            self.seen = done
            return self

        def __enter__(self) -> "Stop":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def note(self, text: str) -> None:
            pass

        def advance(self, steps: int = 1) -> None:
            self.seen += steps
            if self.seen > 64:
                raise KeyboardInterrupt

    def cached(progress: object) -> np.ndarray:
        found = cache_stages(backbone, FrozenStages(2, 32), tiny_capture, rows, tmp_path / "maps", progress)  # type: ignore[arg-type]
        return np.array(found.maps)

    with pytest.raises(KeyboardInterrupt):
        cached(Stop())
    maps = cached(NO_PROGRESS)
    pixels = torch.from_numpy(tiny_capture.decode(np.unique(rows), 32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = backbone(normalise(pixels), 0, 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(torch.from_numpy(maps[:, 0]).float(), expected, atol=5e-3, rtol=5e-3)


def test_maps_of_one_build_of_a_capture_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    backbone = build_backbone("resnet18", "random", batchnorm_affine=True).eval()
    found = []
    for name, subjects in (("one", (0, 1)), ("two", (1, 0))):
        writer = CaptureWriter.open(tmp_path / name, info=INFO)
        for subject in subjects:
            writer.append(stick_part(subject, 0, instants=3))
        capture = writer.finish()
        rows = capture.instants().rows
        cached = cache_stages(backbone, FrozenStages(2, 32), capture, rows, tmp_path / "maps")
        none = np.zeros(rows.size, bool)
        found.append((capture.fingerprint, rows, cached.images(rows.reshape(-1), np.random.default_rng(0), none)))
    (one, first_rows, expected), (two, other_rows, maps) = found
    assert one == two
    assert not np.array_equal(first_rows, other_rows)
    torch.testing.assert_close(maps, expected)


def test_paper_recipe_is_the_papers_and_both_methods_share_all_but_the_loss() -> None:
    paper = recipe("paper", MCSS, "c")
    assert paper.network == NetworkConfig(backbone="resnet18", batchnorm_affine=False, dim=128, image_size=224)
    assert paper.method == MCSS(metric_loss="contrastive", instants=33, views=2, alpha=0.6, beta=0.3)
    assert (paper.optimiser.betas, paper.optimiser.lr) == ((0.9, 0.99), 1e-3)
    assert set(asdict(paper.augmentation).values()) == {0.0}
    assert recipe("paper+aug", MCSS, "c") == replace(paper, augmentation=AugmentationSettings())
    for name in ("paper", "paper+aug", "fast"):
        ours, baseline = (asdict(recipe(name, method, "c")) for method in (MCSS, Supervised))
        assert ours.pop("method")["pose_images"] == baseline.pop("method")["pose_images"]
        assert ours == baseline


def test_learning_rate_schedules_are_those_named() -> None:
    halves = OptimiserSettings(steps=100, lr=1.0)
    assert [halves.rate(step) for step in (0, 49, 50, 99)] == [1.0, 1.0, 0.1, 0.1]
    cosine = OptimiserSettings(steps=100, lr=1.0, schedule="cosine", warmup=10)
    assert cosine.rate(0) < 0.11
    assert cosine.rate(50) == pytest.approx(0.5)
    assert cosine.rate(99) < 1e-3


def test_collapse_is_seen_in_the_log(tiny_capture: Capture) -> None:
    network = PoseNetwork(NetworkConfig(dim=8, image_size=32), "random")
    same = torch.nn.functional.normalize(torch.ones(8, 8), dim=1)
    batch = Batch(images=torch.zeros(8, 3, 32, 32), metric_shape=(4, 2), poses=torch.zeros(0, 17, 3), first_stage=0)
    losses = mcss_method.losses(MCSS(), network, NetworkOutput(same, torch.zeros(8, 48)), batch)
    assert losses.negative_distance.isnan()  # no pair has a negative beyond β
    assert losses.without_negative == 1
    assert losses.positive_distance.item() == pytest.approx(0, abs=1e-6)
    assert losses.total.item() == pytest.approx(0, abs=1e-6)


def test_config_names_the_capture_and_the_versions(tiny_capture: Capture, tmp_path: Path) -> None:
    train(settings_for(tiny_capture, optimiser=OptimiserSettings(steps=1)), tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["capture_fingerprint"] == tiny_capture.fingerprint
    assert config["versions"]["torch"] == torch.__version__
    assert config["capture"] == tiny_capture.uri


def test_a_run_of_an_older_mcss_continues_with_newer_settings_at_their_defaults(
    tiny_capture: Capture, tmp_path: Path
) -> None:
    settings = settings_for(tiny_capture)
    check_run(tmp_path, settings, tiny_capture, resume=False)
    write_config(tmp_path, settings, tiny_capture)
    path = tmp_path / "config.json"
    older = json.loads(path.read_text())
    del older["frozen_statistics"], older["method"]["frame"]
    path.write_text(json.dumps({**older, "digest": "of an older mcss"}))
    assert check_run(tmp_path, settings, tiny_capture, resume=True) == "of an older mcss"
    with pytest.raises(CheckpointError, match=r"got others \(frozen_statistics\)"):
        check_run(tmp_path, replace(settings, frozen_statistics=True), tiny_capture, resume=True)
    assert isinstance(settings.method, MCSS)
    world = replace(settings, method=replace(settings.method, frame="world"))
    with pytest.raises(CheckpointError, match=r"got others \(method\)"):
        check_run(tmp_path, world, tiny_capture, resume=True)
