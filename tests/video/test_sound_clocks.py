"""Sync by sound: any track, channel and pair of views, offsets of any length, and every piece at its stamp."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mcss.video.reading.decoding import VideoFile, probe
from mcss.video.sync.clocks import Clock
from mcss.video.sync.sound import RATE, sounds_of
from mcss.video.sync.sound_clocks import clocks_by_sound, shifted
from mcss.video.sync.synchronise import reference_clock

LENGTH = 12.0
NOISE = np.random.default_rng(0)


def claps(seed: int, length: float = 80.0) -> np.ndarray:
    """A room in which something claps at irregular times."""
    rng = np.random.default_rng(seed)
    sound = rng.normal(0, 30, round(length * RATE))
    for at in rng.uniform(0, length - 0.2, round(2 * length)):
        start = round(at * RATE)
        sound[start : start + 1600] += rng.normal(0, 1, 1600) * 6000 * np.exp(-np.arange(1600) / 300)
    return sound.clip(-30000, 30000).astype(np.int16)


ROOM = claps(1)


def heard(start: float, length: float = LENGTH) -> np.ndarray:
    part = ROOM[round(start * RATE) : round((start + length) * RATE)].astype(float)
    return (0.6 * part + NOISE.normal(0, 20, len(part))).astype(np.int16)


def record(
    path: Path, tracks: Sequence[np.ndarray], lost: tuple[float, float] | None = None, codec: str = "pcm_s16le"
) -> VideoFile:
    """Write a small video with tracks of sound, (samples,) or (channels, samples); packets in `lost` are left out."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        outs = []
        for track in tracks:
            outs.append(container.add_stream(codec, rate=RATE, layout="mono" if track.ndim == 1 else "stereo"))
        seconds = max([track.shape[-1] / RATE for track in tracks], default=LENGTH)
        for _ in range(round(seconds * 5)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
        for out, track in zip(outs, tracks, strict=True):
            samples = np.atleast_2d(track)
            for start in range(0, samples.shape[1], 1600):
                if lost is not None and lost[0] <= start / RATE < lost[1]:
                    continue
                part = np.ascontiguousarray(samples[:, start : start + 1600].T).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(part, format="s16", layout=out.layout.name)
                frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
                container.mux(out.encode(frame))
    return probe(path)


def remuxed(video: VideoFile, change: Callable[[int, av.Packet], av.Packet]) -> VideoFile:
    """Copy a video, changing its packets of sound, of 0.1 s each and numbered from 0."""
    path = video.path.with_name(f"changed_{video.path.name}")
    with av.open(str(video.path)) as source, av.open(str(path), "w") as copy:
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in source.streams}
        number = 0
        for packet in source.demux():
            if packet.dts is None:
                continue
            stream = streams[packet.stream.index]
            if packet.stream.type == "audio":
                packet, number = change(number, packet), number + 1
            packet.stream = stream
            copy.mux(packet)
    return probe(path)


def starts(views: Sequence[VideoFile], reach: float | None = None) -> dict[str, float]:
    found = clocks_by_sound(views, {views[0].name: reference_clock(views[0])}, reach)
    return {name: clock.start for name, clock in found.known.items()}


def test_lost_packets_of_sound_leave_a_gap_and_move_nothing(tmp_path: Path) -> None:
    views = [
        record(tmp_path / "a.mkv", [heard(2)]),
        record(tmp_path / "b.mkv", [heard(2.52)], lost=(3.0, 4.5)),
    ]
    assert starts(views)["b"] == pytest.approx(0.52, abs=0.002)
    (sound,) = sounds_of(views[1])
    assert len(sound.samples) == pytest.approx(LENGTH * RATE, abs=0.02 * RATE)
    assert not sound.samples[round(3.1 * RATE) : round(4.4 * RATE)].any()


def test_sound_goes_on_after_a_damaged_packet(tmp_path: Path) -> None:
    def damaged(number: int, packet: av.Packet) -> av.Packet:
        if number not in (20, 21):
            return packet
        half = av.Packet(b"\0")  # half a sample
        half.pts, half.dts, half.time_base = packet.pts, packet.dts, packet.time_base
        return half

    whole = record(tmp_path / "b.mkv", [heard(2.52)])
    (sound,), (expected,) = sounds_of(remuxed(whole, damaged)), sounds_of(whole)
    assert len(sound.samples) == pytest.approx(LENGTH * RATE, abs=0.02 * RATE)
    assert not sound.samples[round(2.02 * RATE) : round(2.18 * RATE)].any()
    for first, last in ((0, 1.9), (2.3, 11.9)):
        kept = slice(round(first * RATE), round(last * RATE))
        np.testing.assert_array_equal(sound.samples[kept], expected.samples[kept])


def test_sound_whose_time_stamp_leaps_far_beyond_the_video_is_left_out(tmp_path: Path) -> None:
    def leaps(number: int, packet: av.Packet) -> av.Packet:
        if number == round(10 * LENGTH) - 1:
            packet.pts = packet.dts = packet.pts + round(20_000 / packet.time_base)
        return packet

    (sound,) = sounds_of(remuxed(record(tmp_path / "b.mkv", [heard(2)]), leaps))
    assert len(sound.samples) == pytest.approx((LENGTH - 0.1) * RATE, abs=0.02 * RATE)


def test_sound_of_joined_files_whose_clock_begins_anew_goes_on_as_their_images_do(tmp_path: Path) -> None:
    whole = record(tmp_path / "a.ts", [heard(2)], codec="mp2")
    halves = [record(tmp_path / f"{i}.ts", [heard(2.52 + 6 * i, 6.0)], codec="mp2") for i in range(2)]
    joined = tmp_path / "b.ts"
    joined.write_bytes(b"".join(half.path.read_bytes() for half in halves))
    views = [whole, probe(joined)]
    assert views[1].stamps is None
    assert starts(views)["b"] == pytest.approx(0.52, abs=0.03)
    (sound,) = sounds_of(views[1])
    assert len(sound.samples) == pytest.approx(LENGTH * RATE, abs=0.3 * RATE)


def test_the_common_sound_may_be_on_the_sixth_track(tmp_path: Path) -> None:
    tracks = [claps(20 + k)[: round(LENGTH * RATE)] for k in range(5)]
    views = [record(tmp_path / "a.mkv", [heard(2)]), record(tmp_path / "b.mkv", [*tracks, heard(2.8)])]
    assert starts(views) == pytest.approx({"b": 0.8}, abs=0.002)


def test_the_common_sound_may_be_on_any_track_or_channel(tmp_path: Path) -> None:
    other = claps(7)[: round(LENGTH * RATE)]
    views = [
        record(tmp_path / "a.mkv", [heard(2)]),
        record(tmp_path / "b.mkv", [other, heard(2.8)]),
        record(tmp_path / "c.mkv", [np.stack([np.zeros_like(other), heard(1.5)])]),
        record(tmp_path / "d.mkv", [np.stack([heard(3.1), -heard(3.1)])]),  # whose mean is silence
    ]
    assert starts(views) == pytest.approx({"b": 0.8, "c": -0.5, "d": 1.1}, abs=0.002)


def test_an_offset_of_nearly_the_whole_length_is_found_unless_it_is_limited(tmp_path: Path) -> None:
    views = [record(tmp_path / "a.mkv", [heard(0, 70)]), record(tmp_path / "b.mkv", [heard(50)])]
    assert starts(views)["b"] == pytest.approx(50, abs=0.002)
    assert starts(views, reach=30.0) == {}


def test_views_that_heard_the_same_are_linked_though_the_reference_heard_nothing(tmp_path: Path) -> None:
    views = [
        record(tmp_path / "silent.mkv", []),
        record(tmp_path / "b.mkv", [heard(2)]),
        record(tmp_path / "c.mkv", [heard(3)]),
    ]
    found = clocks_by_sound(views, {"silent": reference_clock(views[0])}, None)
    assert found.known == {}
    (group,) = found.groups
    assert [group[name].start for name in "bc"] == pytest.approx([0, 1], abs=0.002)

    def clock(start: float, confidence: float) -> Clock:
        return Clock(start, 1.0, 5.0, 60, confidence, "motion")

    moved = shifted(group, {"b": clock(0.4, 0.3), "c": clock(1.5, 0.6)})
    assert [moved[name].start for name in "bc"] == pytest.approx([0.5, 1.5], abs=0.002)  # c is known best
    assert moved["c"].confidence == 0.6


def test_a_chain_of_views_is_linked_by_pairs(tmp_path: Path) -> None:
    first, second = claps(3)[: 12 * RATE], claps(4)[: 12 * RATE]
    views = [
        record(tmp_path / "a.mkv", [first]),
        record(tmp_path / "b.mkv", [np.stack([first[RATE : 12 * RATE], second[: 11 * RATE]])]),
        record(tmp_path / "c.mkv", [second[2 * RATE :]]),
    ]
    assert starts(views) == pytest.approx({"b": 1.0, "c": 3.0}, abs=0.002)
