import itertools
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from filming import write_video

from mcss.cli import main
from mcss.errors import CaptureError, SourceError
from mcss.models.model import load
from mcss.models.model_file import MODEL, save_model
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.sources.videos.video_folder import Videos
from mcss.video.people import ForegroundGroup
from mcss.video.reading.decoding import VideoFile
from mcss.video.recordings import Recording, find_recordings
from mcss.video.sync.alignment import Agreement, agreement, offsets
from mcss.video.sync.clocks import Clock, read_clocks, timeline, write_clocks
from mcss.video.sync.motion import ROLLS, MotionProfile, largest_path, profile_of
from mcss.video.sync.sound import RATE, Sound
from mcss.video.sync.sound_lag import sound_lag
from mcss.video.sync.synchronise import (
    SyncSettings,
    clocks_by_motion,
    embedding_agreement,
    reference_clock,
    synchronise,
)


def smooth(seed: int, count: int, reach: int = 6) -> np.ndarray:
    """A random curve of standard deviation 1 that changes over `reach` samples."""
    noise = np.random.default_rng(seed).normal(size=count + 8 * reach)
    kernel = np.exp(-0.5 * (np.arange(-4 * reach, 4 * reach + 1) / reach) ** 2)
    curve = np.convolve(noise, kernel, "valid")[:count]
    return (curve - curve.mean()) / curve.std()


def dancer(seconds: float, camera: int) -> np.ndarray:
    """Draw a person who lifts arms and knees, as camera 0 (in front) or 1 (behind, nearer) sees them."""
    t = np.linspace(0, 10, 400)
    arm, other, dip = (np.interp(seconds, t, smooth(k, 400, 7)) for k in range(3))
    side, unit = (1, 13.0) if camera == 0 else (-1, 17.0)
    image = np.random.default_rng(camera).uniform(60, 200, (6, 8, 3)).astype(np.float32)
    image = cv2.resize(image, (120, 160), interpolation=cv2.INTER_CUBIC)
    hip = np.array([60, 95 + unit * 0.5 * dip])
    neck = hip - [0, 2 * unit]
    hands = [
        neck + 1.7 * unit * np.array([s * side * np.cos(a), -np.sin(a)]) for s, a in ((1, arm * 0.8), (-1, other * 0.8))
    ]
    ends = [(neck, hip), (neck, hands[0]), (neck, hands[1]), (hip, [52, 150]), (hip, [68, 150])]
    for k, (a, b) in enumerate(ends):
        colour = (20 + 30 * k, 30, 200 - 30 * k)
        cv2.line(image, np.rint(a).astype(int).tolist(), np.rint(b).astype(int).tolist(), colour, 9, cv2.LINE_AA)
    cv2.circle(image, np.rint(neck - [0, 0.6 * unit]).astype(int).tolist(), 8, (240, 200, 170), -1)
    return image.clip(0, 255).astype(np.uint8)


def film_dancer(folder: Path, late: float = 0.2, rates: tuple[float, float] = (25, 25), seconds: float = 4) -> Path:
    """Film with two cameras: the second starts `late` seconds after the first, which starts at 0.5 s."""
    for camera, rate in enumerate(rates):
        start = 0.5 + camera * late
        images = [dancer(start + i / rate, camera) for i in range(round(seconds * rate))]
        write_video(folder / f"cam{camera + 1}.mp4", images, rate=rate)
    return folder


def heard(start: float, seconds: float, pace: float = 1.0, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """The sound of steps and a hum in a microphone that starts at `start` and whose clock runs slow by `pace`."""
    rng = np.random.default_rng(5)
    time = start + np.arange(round(seconds * RATE)) / RATE * pace
    sound = 0.05 * np.sin(2 * np.pi * 120 * time)
    for at in np.cumsum(rng.uniform(0.2, 0.9, 150)):
        tone, loud = rng.uniform(500, 3000), rng.uniform(0.2, 0.6)
        near = (time >= at) & (time < at + 0.1)
        since = time[near] - at
        sound[near] += loud * np.exp(-since / 0.015) * np.sin(2 * np.pi * tone * since)
    sound += np.random.default_rng(seed).normal(0, noise, len(sound))
    return (sound * 20000).clip(-32768, 32767).astype(np.int16)


def video_with_sound(path: Path, samples: np.ndarray, images: int = 50, rate: int = 25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=Fraction(rate))
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        grey = np.random.default_rng(len(path.stem)).integers(0, 255, (48, 64, 3), np.uint8)
        for _ in range(images):
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(video.encode())
        for at in range(0, len(samples), 4000):
            frame = av.AudioFrame.from_ndarray(samples[None, at : at + 4000], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return path


# ------------------------------------------------------------------------------------------------- offsets


def slow_agreement(a: np.ndarray, b: np.ndarray, lag: int) -> float:
    """Compute the evidence of the overlap with plain sums."""
    evidence = []
    for x, y in itertools.product(a, b):
        pairs = [(x[i], y[i - lag]) for i in range(len(x)) if 0 <= i - lag < len(y)]
        p, q = (np.array(part) - np.mean(part, axis=0) for part in zip(*pairs, strict=True))
        correlation = max(float((p * q).sum() / np.sqrt((p * p).sum() * (q * q).sum())), 0.0)
        share = len(pairs) / min(len(x), len(y))
        evidence.append((1 - correlation**2) ** (-len(pairs) / 2 * share))
    return float(np.log(np.mean(evidence)))


def test_the_agreement_is_the_evidence_of_the_overlap_over_all_directions() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30, 3)), rng.normal(size=(2, 24, 3))
    found = agreement(a, b, reach=12, least=0.5)
    for lag in (-8, -1, 0, 5, 12):
        assert found.score[lag + 12] == pytest.approx(slow_agreement(a, b, lag), abs=1e-6)


def test_a_pair_that_is_wrong_is_overruled_by_the_others() -> None:
    lags = np.arange(-40, 41)
    true = [0, 7, -5, 12]
    pairs = {
        (i, j): Agreement(10 * np.exp(-0.5 * ((lags - (true[j] - true[i])) / 3) ** 2))
        for i, j in itertools.combinations(range(4), 2)
    }
    pairs[0, 3] = Agreement(14 * np.exp(-0.5 * ((lags + 20) / 3) ** 2))
    found = offsets(pairs, 4, elsewhere=9.0)
    np.testing.assert_allclose(found.start, true, atol=0.05)
    assert found.confidence[1] > 0.9
    assert found.confidence[3] < 0.5


def test_offsets_are_found_to_a_fraction_of_a_sample_and_known_ones_stay() -> None:
    lags = np.arange(-30, 31)
    pairs = {(0, 1): Agreement(np.exp(-0.5 * ((lags - 3.4) / 4) ** 2)), (1, 2): Agreement(np.exp(-((lags / 4) ** 2)))}
    found = offsets(pairs, 3, elsewhere=9.0, known={0: 0.0, 2: 3.0})
    assert found.start[2] == 3.0
    assert 3.0 < found.start[1] < 3.4


# ------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize("late", [0.0, 0.3137, -1.2501, 7.004])
def test_sound_gives_the_lag_to_a_fifth_of_a_frame(late: float) -> None:
    match = sound_lag(Sound(heard(10, 20, seed=1)), Sound(heard(10 + late, 15, seed=2)), reach=30.0)
    assert match is not None
    assert np.median(match.lag) == pytest.approx(late, abs=0.2 / 60)
    assert match.confidence > 0.3


def test_sound_that_has_nothing_in_common_is_not_trusted() -> None:
    noise = [np.random.default_rng(k).normal(0, 3000, 12 * RATE).astype(np.int16) for k in range(2)]
    match = sound_lag(Sound(noise[0]), Sound(noise[1]), reach=5.0)
    assert match is None or match.confidence < 0.15


def test_videos_are_aligned_by_their_sound_clocks_that_go_slow_included(tmp_path: Path) -> None:
    video_with_sound(tmp_path / "a.mkv", heard(2, 70, seed=1), images=70 * 5, rate=5)
    video_with_sound(tmp_path / "bb.mkv", heard(2.517, 60, pace=1.0001, seed=2), images=60 * 5, rate=5)
    clock = synchronise(tmp_path)[0].clocks["bb"]
    assert clock.evidence == "sound"
    assert clock.start == pytest.approx(0.517, abs=0.003)
    assert clock.pace == pytest.approx(1.0001, abs=3e-5)


def test_silent_sound_is_an_error_only_where_sound_is_asked_for(tmp_path: Path) -> None:
    video_with_sound(tmp_path / "a.mkv", heard(2, 2))
    video_with_sound(tmp_path / "silent.mkv", np.zeros(2 * RATE, np.int16))
    with pytest.raises(SourceError, match=r"silent\.mkv: its sound .* --offsets silent=SECONDS"):
        synchronise(tmp_path, SyncSettings(by="sound"))
    with pytest.raises(SourceError, match=r"a\.mkv: nobody moves in it.*--offsets"):
        synchronise(tmp_path)
    assert not (tmp_path / "sync.json").exists()


# ------------------------------------------------------------------------------------------------- motion


@pytest.mark.parametrize(("late", "rates"), [(0.28, (25, 25)), (-0.36, (25, 25)), (0.2, (25, 30))])
def test_views_are_aligned_by_motion_whatever_their_rates(
    tmp_path: Path, late: float, rates: tuple[float, float]
) -> None:
    found = synchronise(film_dancer(tmp_path, late, rates))[0]
    clock = found.clocks["cam2"]
    assert clock.evidence == "motion"
    assert clock.start == pytest.approx(late, abs=1 / 25)
    assert clock.confidence > 0.15
    assert (tmp_path / "sync.png").read_bytes().startswith(b"\x89PNG")


def test_views_are_aligned_by_quick_motion_though_slow_motion_is_alike_elsewhere() -> None:
    quick = np.stack([smooth(k, 90, 2) for k in range(26)], axis=1)
    slow = np.stack([smooth(100 + k // 13, 90, 40) for k in range(26)], axis=1)
    early, late = quick[:80] + 2 * slow[:80], quick[9:89] + 2 * slow[:80]  # only the quick part is 9 samples late
    a, b = (MotionProfile(60.0, np.broadcast_to(x, (len(ROLLS), 80, 26)).astype(np.float32)) for x in (early, late))
    found = agreement(a.quick_at_rate(60.0), b.quick_at_rate(60.0), reach=30, least=0.5)
    assert int(found.score.argmax()) - 30 == 9
    all_of_it = agreement(a.at_rate(60.0), b.at_rate(60.0), reach=30, least=0.5)
    assert int(all_of_it.score.argmax()) - 30 != 9


def group(box: Sequence[float], area: float) -> ForegroundGroup:
    return ForegroundGroup(np.array(box, np.float64), float(area))


def test_the_path_does_not_jump_to_a_larger_person_who_passes_for_a_moment() -> None:
    def at(x: float, size: float) -> ForegroundGroup:
        return group([x, 50, x + size, 50 + 2 * size], size * size)

    groups = [[at(20 + i, 20)] for i in range(30)]
    for i in (14, 15):
        groups[i] = [at(200, 30), at(20 + i, 20)]
    groups[5] = []
    boxes = largest_path(groups)
    assert np.isnan(boxes[5]).all()
    seen = np.delete(np.arange(30), 5)
    assert boxes[seen, 0].tolist() == (20 + seen).tolist()


def test_of_two_people_the_path_follows_the_one_with_more_foreground() -> None:
    small, large = np.array([10.0, 10, 20, 30]), np.array([100.0, 10, 140, 90])
    groups = [[ForegroundGroup(small + i, 60.0), ForegroundGroup(large + i, 1500.0)] for i in range(20)]
    assert (largest_path(groups)[:, 0] == 100 + np.arange(20)).all()


def test_a_piece_beside_the_person_belongs_to_them() -> None:
    body, foot = group([50, 20, 90, 120], 2500.0), group([60, 122, 75, 130], 100.0)
    assert (largest_path([[body, foot]] * 5) == [50, 20, 90, 130]).all()


def test_nobody_gives_no_path() -> None:
    boxes = largest_path([[], [], []])
    assert boxes.shape == (3, 4)
    assert np.isnan(boxes).all()


def test_static_things_do_not_change_how_a_person_moves() -> None:
    room = np.random.default_rng(0).uniform(90, 130, (120, 100, 3)).astype(np.uint8)
    texture = np.random.default_rng(1).uniform(150, 250, (40, 24, 3)).astype(np.uint8)

    def film_of(statue: bool) -> list[np.ndarray]:
        shots = [room.copy() for _ in range(30)]
        for i, shot in enumerate(shots):
            y = 30 + round(12 * np.sin(i / 4))
            shot[y : y + 40, 40:64] = texture
            if statue and i > 2:  # stays from then on, beside the person
                shot[50:80, 64:74] = (30, 30, 30)
        return shots

    alone, beside = (profile_of(film_of(statue), 30.0) for statue in (False, True))
    up = alone.speed[len(ROLLS) // 2].sum(axis=1), beside.speed[len(ROLLS) // 2].sum(axis=1)
    assert np.corrcoef(up[0][4:], up[1][4:])[0, 1] > 0.98
    assert np.abs(up[1][4:]).max() == pytest.approx(np.abs(up[0][4:]).max(), rel=0.15)


def test_views_with_little_in_common_are_not_sure_though_one_lag_fits_best() -> None:
    def confidence(shared: float) -> float:
        curves = [np.stack([smooth(k + 50 * of, 120, 3) for k in range(12)], axis=1) for of in range(3)]
        a, b = (np.sqrt(shared) * curves[0] + np.sqrt(1 - shared) * own for own in curves[1:])
        pair = agreement(a[None, :100], b[None, 9:109], reach=40, least=0.5)
        return float(offsets({(0, 1): pair}, 2, elsewhere=9.0).confidence[1])

    assert confidence(0.8) > 0.5
    assert confidence(0.25) < 0.15
    assert confidence(0.0) < 0.05


def test_repeated_motion_is_not_sure_and_the_message_says_what_to_do() -> None:
    lags = np.arange(-50, 51)
    waves = Agreement(np.cos(lags / 3) * 10)
    found = offsets({(0, 1): waves}, 2, elsewhere=4.0)
    assert found.confidence[1] < 0.05


def test_embeddings_agree_most_at_the_lag_of_their_views() -> None:
    path = np.stack([smooth(k, 120) for k in range(8)], axis=1)
    path /= np.linalg.norm(path, axis=1, keepdims=True)
    early, late = path[:100], path[9:109]  # the second view starts 9 samples after the first
    for around in (9, 6, 13):
        found = embedding_agreement(early, late, around, reach=8)
        assert around - 8 + int(found.score.argmax()) == 9


def test_a_network_refines_offsets_by_a_quarter_second_at_most(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = tmp_path / "run"
    run.mkdir()
    save_model(run / MODEL, PoseNetwork(NetworkConfig("tf_efficientnet_lite0", dim=8, image_size=32)).eval(), {})
    folder = film_dancer(tmp_path / "Ann", seconds=2)
    before = synchronise(folder)[0].clocks["cam2"].start
    after = synchronise(folder, embed_crops=load(run).embed)[0].clocks["cam2"].start
    assert abs(after - before) <= 0.25


def test_somebody_who_passes_only_one_camera_does_not_change_the_offset() -> None:
    def filmed(start: float, camera: int) -> list[np.ndarray]:
        images = [dancer(start + i / 25, camera) for i in range(125)]
        for i, image in enumerate(images if camera else ()):
            x, arm = round(40 * (start + i / 25)) - 20, round(8 * np.sin(5 * (start + i / 25)))
            cv2.rectangle(image, (x - 6, 83), (x + 6, 127), (60, 90, 60), -1)
            cv2.line(image, (x, 95), (x + 12, 95 + arm), (60, 90, 60), 5)
        return images

    views = [VideoFile(Path(f"cam{k}.mp4"), 120, 160, 25.0, 125, True) for k in range(2)]
    profiles = [profile_of(filmed(0.5 + 0.2 * k, k), 25.0) for k in range(2)]
    known = {"cam0": reference_clock(views[0])}
    clocks, _ = clocks_by_motion(views, profiles, known, SyncSettings(max_offset=2.0))
    assert clocks["cam1"].start == pytest.approx(0.2, abs=0.015)
    assert clocks["cam1"].confidence > 0.5


def test_an_offset_by_hand_is_taken_as_it_is(tmp_path: Path) -> None:
    found = synchronise(film_dancer(tmp_path), SyncSettings(offsets=("cam2=-0.5",)))[0]
    assert (found.clocks["cam2"].start, found.clocks["cam2"].evidence) == (-0.5, "hand")


def test_bad_input_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected VIEW=SECONDS such as left=-0\.52, got 'cam2'"):
        SyncSettings(offsets=("cam2",))
    with pytest.raises(SourceError, match="expected a folder of videos, but there is no such folder"):
        synchronise(tmp_path / "nowhere")
    write_video(tmp_path / "one" / "cam1.mp4", [dancer(0, 0)] * 5)
    with pytest.raises(SourceError, match=r"expected two or more synchronised views .*got only cam1\.mp4"):
        synchronise(tmp_path / "one")
    film_dancer(tmp_path / "two", seconds=1)
    with pytest.raises(SourceError, match="no view 'left'; the views are: cam1, cam2"):
        synchronise(tmp_path / "two", SyncSettings(reference="left"))
    data = (tmp_path / "two" / "cam2.mp4").read_bytes()
    (tmp_path / "two" / "cam2.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match=r"cam2\.mp4"):
        synchronise(tmp_path / "two")


# ------------------------------------------------------------------------------------------------- sync.json


def recording(*views: tuple[str, float, int]) -> Recording:
    return Recording("Ann", "walk", tuple(VideoFile(Path(f"{n}.mp4"), 64, 48, float(r), c, True) for n, r, c in views))


def clock(start: float, rate: float, images: int, pace: float = 1.0) -> Clock:
    return Clock(float(start), pace, float(rate), images, 0.9, "motion")


def test_instants_are_what_all_views_saw_by_common_time() -> None:
    line = timeline(recording(("a", 25, 20), ("b", 25, 20)), {"a": clock(0, 25, 20), "b": clock(0.2, 25, 20)}, every=1)
    assert line.frames.tolist() == list(range(5, 20))
    assert line.images["a"].tolist() == list(range(5, 20))
    assert line.images["b"].tolist() == list(range(15))


def test_the_slowest_view_sets_the_pace_and_others_give_their_nearest_image() -> None:
    clocks = {"a": clock(0, 50, 40), "b": clock(0.09, 25, 12)}
    line = timeline(recording(("a", 50, 40), ("b", 25, 12)), clocks, every=2)
    assert (line.rate, line.first, line.count) == (25, 3, 12 - 1)
    assert line.frames.tolist() == [4, 6, 8, 10, 12]
    assert line.images["a"].tolist() == [8, 12, 16, 20, 24]
    assert line.images["b"].tolist() == [2, 4, 6, 8, 10]  # 4 / 25 s is 1.75 images after its start


def test_views_that_never_ran_at_one_time_are_an_error() -> None:
    with pytest.raises(SourceError, match=r"no time that all views saw.*--offsets"):
        timeline(recording(("a", 25, 20), ("b", 25, 20)), {"a": clock(0, 25, 20), "b": clock(2, 25, 20)}, every=1)


def test_an_import_applies_the_clocks_and_can_ignore_them(tmp_path: Path) -> None:
    folder = film_dancer(tmp_path / "Ann")
    video = find_recordings(folder)[0].views[0]
    write_clocks(folder, {"Ann/Ann": {"cam1": clock(0, 25, 100), "cam2": clock(0.2, 25, 100)}})
    assert video.count == 100
    capture = Videos(size=32).import_to(tmp_path / "capture", folder).capture
    assert capture.instants().frame.tolist() == list(range(5, 100))
    np.testing.assert_allclose(capture.instants().time, np.arange(5, 100) / 25)
    assert capture.instants("test").frame.tolist() == list(range(5 + round(95 * 0.7), 100))
    plain = Videos(size=32, ignore_sync=True).import_to(tmp_path / "plain", folder).capture
    assert len(plain.instants()) == 100
    write_clocks(folder, {"Ann/Ann": {"cam1": clock(0, 25, 100), "cam2": clock(0.4, 25, 100)}})
    with pytest.raises(CaptureError, match="clocks"):
        Videos(size=32).import_to(tmp_path / "capture", folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"mcss_sync": 1}', '{"mcss_sync": 1, "recordings": {"Ann/Ann": {"cam1": {"start": "0"}}}}',
     '{"mcss_sync": 1, "recordings": {"Ann/Ann": 3}}', '{"mcss_sync": 99, "recordings": {}}'],
)  # fmt: skip
def test_a_foreign_sync_file_is_an_error_with_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "sync.json").write_text(text)
    with pytest.raises(SourceError, match=r"sync\.json: expected the clocks.*--ignore-sync"):
        read_clocks(tmp_path, [])


def test_clocks_of_other_footage_are_an_error(tmp_path: Path) -> None:
    write_clocks(tmp_path, {"Ann/walk": {"a": clock(0, 25, 20), "b": clock(0, 25, 20)}})
    assert read_clocks(tmp_path, [recording(("a", 25, 20), ("b", 25, 20))])["Ann/walk"]["a"] == clock(0, 25, 20)
    with pytest.raises(SourceError, match=r"expected 21 images .* for b\.mp4, got 20 .*made for other footage"):
        read_clocks(tmp_path, [recording(("a", 25, 20), ("b", 25, 21))])


def test_the_command_shows_the_clocks_and_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = film_dancer(tmp_path / "Ann", seconds=2)
    main(["sync", str(folder), "--json", str(tmp_path / "out.json")])
    shown = capsys.readouterr().out
    assert "cam2" in shown
    assert "sync.json" in shown.replace("\n", "")
    written = json.loads((tmp_path / "out.json").read_text())
    assert set(written["Ann/Ann"]) == {"cam1", "cam2"}
