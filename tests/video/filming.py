"""Small videos of a drawn person in a drawn room, for the tests of the video importer."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

RATE = 25.0


def write_video(
    path: Path,
    images: Iterable[np.ndarray],
    rate: float = RATE,
    codec: str = "mpeg4",
    turn: int = 0,
    pixels: str = "yuv420p",
) -> Path:
    """Write RGB images as a video; `turn` is the container's rotation tag in degrees counter-clockwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.pix_fmt, stream.bit_rate, stream.gop_size = pixels, 4_000_000, 12
        for i, image in enumerate(images):
            if i == 0:
                stream.height, stream.width = image.shape[:2]
                if turn:
                    stream.set_display_rotation(turn)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_at(
    path: Path,
    images: Sequence[np.ndarray],
    seconds: Sequence[float] | np.ndarray,
    last: float | None = None,
    codec: str = "libx264",
    bf: int = 0,
    lost: Collection[int] = (),
    damaged: Collection[int] = (),
    metadata: dict[str, str] | None = None,
    group: int = 12,
    tick: Fraction = Fraction(1, 90000),
) -> Path:
    """Write RGB images to be shown at some times, in groups with a keyframe.

    `last` is how long the last one is shown. Packets may be `lost`, or `damaged`: cut to their first bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"preset": "ultrafast", "bf": str(bf), "sc_threshold": "0"} if codec == "libx264" else {}
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"} if metadata else {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.gop_size, stream.codec_context.time_base = "yuv420p", group, tick
        packets = []
        for image, at in zip(images, seconds, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(at / tick), tick
            packets += stream.encode(frame)
        packets += stream.encode()
        if last is not None:
            packets[-1].duration = round(last / packets[-1].time_base)
        for i, packet in enumerate(packets):
            if i in damaged:
                cut = av.Packet(bytes(packet)[:6])
                cut.pts, cut.dts, cut.time_base, cut.stream = packet.pts, packet.dts, packet.time_base, stream
                container.mux(cut)
            elif i not in lost:
                container.mux(packet)
    return path


def of_one_brightness(count: int) -> list[np.ndarray]:
    """Images of one brightness each, which grows by 4."""
    return [np.full((48, 64, 3), 4 * i, np.uint8) for i in range(count)]


@dataclass(frozen=True)
class Room:
    """A textured room in which a person moves while a bystander sways."""

    seed: int = 0
    width: int = 240
    height: int = 180
    count: int = 40
    place: Callable[[float], float] = lambda t: 0.35 + 0.4 * t
    """Horizontal position of the person in widths of the image, at times from 0 to 1."""
    bystander: bool = True
    shadow: bool = True
    flicker: float = 0.08

    def empty(self) -> np.ndarray:
        """Render the room without people, but with its lighting."""
        rng = np.random.default_rng(self.seed)
        coarse = rng.uniform(100, 170, (6, 8, 3)).astype(np.float32)
        image = cv2.resize(coarse, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        for x in rng.integers(0, self.width, 6).tolist():  # shelves and door frames
            cv2.rectangle(image, (x, 0), (x + 6, self.height // 2), rng.uniform(40, 220, 3).tolist(), -1)
        image[self.height * 3 // 4 :] = (140, 130, 120)
        return image

    def person(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the person's joints in image `i` (head top, hands, feet, hip), and the segments between them."""
        t = i / max(self.count - 1, 1)
        x, y, unit = self.place(t) * self.width, 0.88 * self.height, 0.13 * self.height
        swing = np.sin(2 * np.pi * 1.2 * i / RATE + self.seed)
        hip, neck = np.array([x, y - 2 * unit]), np.array([x, y - 3.6 * unit])
        hands = [neck + unit * 1.6 * np.array([np.sin(a), np.cos(a)]) for a in (1.1 * swing + 0.3, -1.1 * swing - 0.3)]
        feet = [hip + 2 * unit * np.array([np.sin(a), np.cos(a)]) for a in (0.45 * swing, -0.45 * swing)]
        head = neck - [0, 0.8 * unit]
        joints = np.stack([head, *hands, *feet, hip])
        bones = np.stack(
            [[neck, hip], [neck, hands[0]], [neck, hands[1]], [hip, feet[0]], [hip, feet[1]], [neck, head]]
        )
        return joints, bones

    def image(self, i: int) -> np.ndarray:
        """Render image `i`."""
        rng = np.random.default_rng((self.seed, i))
        scene = self.empty()
        joints, bones = self.person(i)
        thick = round(0.055 * self.height)
        if self.shadow:
            dark = np.zeros(scene.shape[:2], np.uint8)
            foot = (round(joints[5, 0] + 0.04 * self.width), round(0.92 * self.height))
            cv2.ellipse(dark, foot, (round(0.08 * self.width), round(0.04 * self.height)), 0, 0, 360, 1, -1)
            scene[dark > 0] *= 0.72
        if self.bystander:
            x = round(0.1 * self.width + 2 * np.sin(i / 9))
            cv2.rectangle(
                scene, (x - 7, round(0.4 * self.height)), (x + 7, round(0.75 * self.height)), (40, 60, 160), -1
            )
            cv2.circle(scene, (x, round(0.36 * self.height)), 7, (200, 160, 140), -1)
        for k, (a, b) in enumerate(bones):
            colour = (20, 20, 30) if k in (3, 4) else (225, 60, 50)
            cv2.line(scene, a.round().astype(int).tolist(), b.round().astype(int).tolist(), colour, thick, cv2.LINE_AA)
        cv2.circle(scene, joints[0].round().astype(int).tolist(), thick // 2, (240, 200, 170), -1)
        scene *= 1 + self.flicker * np.sin(1.7 * i)
        scene += rng.normal(0, 3, scene.shape)
        return np.clip(scene, 0, 255).astype(np.uint8)

    def images(self) -> list[np.ndarray]:
        """Render the whole recording."""
        return [self.image(i) for i in range(self.count)]


def film(folder: Path, views: int = 2, suffix: str = ".mp4", codec: str = "mpeg4", **room: object) -> list[Room]:
    """Write ``cam1``, ``cam2`` … of one recording into a folder; each camera sees a different room."""
    rooms = [Room(seed=k, **room) for k in range(views)]
    for k, r in enumerate(rooms):
        write_video(folder / f"cam{k + 1}{suffix}", r.images(), codec=codec)
    return rooms
