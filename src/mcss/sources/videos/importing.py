"""A plain folder of one's own synchronised videos → capture.

Layout: ``subject/sequence/view.mp4``, or the views of one recording directly in the folder. The cameras stand still
and run in step, or `mcss sync` found out how their clocks lie; nothing else need be known about them. 3D labels may lie
beside them (`mcss.sources.videos.pose_labels`). A recording is a part of the assembly (`mcss.sources.assembly`).
"""

import glob
import re
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.capture import CaptureInfo, Frame, Selector
from mcss.errors import SourceError
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.assembly import Assembled, Note, assemble
from mcss.sources.videos.pose_labels import Labels, PoseSettings, pose_file, read_labels
from mcss.sources.workers import Workers
from mcss.video.boxes import View, read_boxes
from mcss.video.decoding import VIDEO_SUFFIXES, Footage
from mcss.video.detectors import DetectorName, person_detector
from mcss.video.people import filled
from mcss.video.person_crops import Viewing
from mcss.video.recordings import Recording, find_recordings, video_files
from mcss.video.sync.clocks import OTHERWISE, SURE, SYNC_FILE, Clocks, Timeline, read_clocks, timeline
from mcss.video.target import Click, clicks_as_settings, clicks_of
from mcss.video.track_sheet import chosen_people

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class VideosSettings:
    """How videos become a capture."""

    size: int = 128
    """Width and height of the crops in pixels."""
    every: int = 1
    """Take every n-th image."""
    margin: float = 1.15
    """Side of the crop over the longer side of the person's box."""
    quality: int = 90
    """JPEG quality of the crops."""
    test_fraction: float = 0.3
    """The last part of every sequence that is held out as the split `test`."""
    gap: float = 0.1
    """Seconds before the held-out part that belong to no split."""
    test_subjects: tuple[str, ...] = ()
    """Hold out these subjects instead, and no part of the others."""
    max_missing: int = 5
    """Views of a sequence may differ by this many images and are clipped to the shortest; more is an error."""
    find: Literal["motion"] | DetectorName = "motion"
    """How people are found: by their motion before a static camera, or by a detector, which lets the camera move."""
    detector_weights: Path | None = None
    """A file of the detector's weights: .safetensors or .pth; .tflite for blazepose. By default torchvision's hub."""
    click: tuple[str, ...] = ()
    """Who is meant if there are several: VIEW=X,Y@WHEN, such as left=640,380@12 (image 12) or left=640,380@0.5s."""
    boxes: Path | None = None
    """A CSV (subject,sequence,view,frame,x0,y0,x1,y1) for views whose person is not to be looked for."""
    ignore_sync: bool = False
    """Take image i of every view as one instant even if the folder has a `sync.json`."""
    background: Path | None = None
    """A folder of images or videos of the empty scene: `view.jpg`, or in subject/ or subject/sequence/."""
    licence: str = "not stated"
    """Under which terms the footage may be used."""
    poses: PoseSettings = field(default_factory=PoseSettings)
    """3D labels beside the videos."""

    def __post_init__(self) -> None:
        if self.size < 16 or self.every < 1 or not 1 <= self.quality <= 100 or self.max_missing < 0:
            raise ValueError(
                "expected size ≥ 16, every ≥ 1, quality 1–100 and max_missing ≥ 0, came "
                f"size {self.size}, every {self.every}, quality {self.quality}, max_missing {self.max_missing}"
            )
        if not 1 <= self.margin <= 4:
            raise ValueError(f"margin must lie between 1 (the bare box) and 4, came {self.margin}")
        if not 0 <= self.test_fraction < 1 or self.gap < 0:
            raise ValueError(f"expected 0 ≤ test_fraction < 1 and gap ≥ 0, came {self.test_fraction} and {self.gap}")
        for text in self.click:
            Click.parsed(text)
        if self.find == "motion" and self.detector_weights is not None:
            raise ValueError("detector_weights: there is no detector to load them; choose one with --find")
        if self.find != "motion" and self.background is not None:
            raise ValueError(f"background: {self.find} needs no empty scene; leave it out, or use --find motion")


@dataclass(frozen=True, eq=False)
class VideoPart:
    """A recording of which nothing has been decoded yet."""

    subject: str
    sequence: str
    views: tuple[Viewing, ...]
    frames_taken: Int64[np.ndarray, " n"]
    """Numbers of the instants."""
    rate: float
    """Of those numbers, per second."""
    labels: Labels | None
    notes: tuple[str, ...]
    """What is known to be unusual already."""
    sheet: Path | None = None
    """Where to draw who was found; None leaves it out."""

    @property
    def images(self) -> int:
        """Rows that its files promise."""
        return min(len(view.taken) for view in self.views) * len(self.views)

    @property
    def steps(self) -> int:
        """Images to look at, and rows."""
        return self.images + sum(len(view.taken) for view in self.views if view.boxes is None)

    def frames(self, note: Note) -> Generator[Frame | int]:
        """Its rows: first the person is found in every view.

        Raises:
            SourceError: A video is damaged, or nobody is seen in it.
        """
        for text in self.notes:
            note(text)
        action = re.sub(r"[\s_.-]*\d+$", "", self.sequence) or self.sequence
        with ExitStack() as stack:
            found = []
            for view in self.views:
                found.append((yield from view.looked_at(note)))
                stack.callback(found[-1].close)
            people = [f.people for f in found if f.people is not None]
            chosen_people(people, f"{self.subject}/{self.sequence}", self.sheet, note)
            count = min(len(self.frames_taken), *map(len, found))
            for frame, *crops in zip(self.frames_taken.tolist(), *(f.crops(count, note) for f in found), strict=False):
                for view, (image, box) in zip(self.views, crops, strict=True):
                    yield Frame(
                        subject=self.subject,
                        sequence=self.sequence,
                        action=action,
                        frame=frame,
                        time=frame / self.rate,
                        view=view.video.name,
                        image=image,
                        box=box,
                        pose=None if self.labels is None else self.labels.pose(frame),
                    )


def import_videos(
    folder: str | Path,
    out: str | Path,
    settings: VideosSettings | None = None,
    progress: Progress = NO_PROGRESS,
    processes: Workers = None,
) -> Assembled:
    """Make a capture (or carry on one) of a folder of synchronised videos.

    All files are looked at before anything is written. A recording that is at fault, then or later, does not end the
    import: the others are imported, and all that failed is told at the end.

    Args:
        folder: ``subject/sequence/view.mp4``, or the views of one recording.
        out: The capture.
        settings: `VideosSettings`; the defaults if None.
        progress: Counts images, each one twice: looked at, then cut out.
        processes: How many to work with, or a cluster; by default one per processor.

    Raises:
        SourceError: Something about all the files; the message says which, and the way out.
        mcss.data.capture.CaptureError: The capture at `out` was begun with other settings or cannot be written.
    """
    settings = settings or VideosSettings()
    problems: list[str] = []
    found = find_recordings(Path(folder), problems)
    clocks = {} if settings.ignore_sync else read_clocks(Path(folder), found)
    recordings: list[Recording] = []
    lines: dict[str, Timeline] = {}
    labels: dict[str, Labels | None] = {}
    notes: dict[str, list[str]] = {}
    for recording in found:
        try:
            line = timeline(recording, clocks.get(recording.name), settings.every)
            notes[recording.name] = _checked(recording, clocks.get(recording.name), line, settings)
            labels[recording.name] = _given_labels(recording, line, settings)
            lines[recording.name] = line
            recordings.append(recording)
        except SourceError as problem:
            problems.append(str(problem))
    if not recordings:
        raise SourceError("\n".join(problems))
    boxes = _given_boxes(found, settings)
    if settings.background is not None and not settings.background.is_dir():
        raise SourceError(f"{settings.background}: expected a folder with images or videos of the empty scene")
    clicks = clicks_of(found, settings.click)
    if settings.find != "motion":
        person_detector(settings.find, settings.detector_weights)  # what is wrong with it is told before all else
    parts = []
    for recording in recordings:
        line, given = lines[recording.name], labels[recording.name]
        unusual = (*notes[recording.name], *(given.notes if given else ()))
        views = tuple(_viewing(recording, view, line, boxes, clicks, settings) for view in recording.views)
        parts.append(
            VideoPart(
                *(recording.subject, recording.sequence, views, line.frames, line.rate, given, unusual),
                sheet=sheet_of(out, recording.subject, recording.sequence),
            )
        )
    labelled = settings.poses.read and any(_has_labels(recording) for recording in found)
    info = _info(recordings, clocks, lines, settings, labelled, clicks)
    expected = Counter(subject for subject, _ in video_files(Path(folder)))
    return assemble(parts, out, info, progress, processes=processes, problems=problems, expected=expected)


def _viewing(
    recording: Recording,
    view: Footage,
    line: Timeline,
    boxes: Mapping[View, Float64[np.ndarray, "frames 4"]],
    clicks: Mapping[View, Click],
    settings: VideosSettings,
) -> Viewing:
    """What is to be done with a view."""
    taken, key = line.images[view.name], (recording.subject, recording.sequence, view.name)
    given = boxes.get(key)
    return Viewing(
        video=view,
        taken=taken,
        rate=line.rate / settings.every,
        size=settings.size,
        margin=settings.margin,
        quality=settings.quality,
        max_missing=settings.max_missing,
        boxes=None if given is None else filled(given)[taken],
        scene=_given_scene(recording, view, settings),
        find=settings.find,
        detector_weights=settings.detector_weights,
        click=clicks.get(key),
    )


def sheet_of(out: str | Path, subject: str, sequence: str) -> Path | None:
    """The image, beside a capture, of who was found in a recording; None for a capture in an object store."""
    return None if "://" in str(out) else Path(f"{out}.tracks") / subject / f"{sequence}.jpg"


def _checked(recording: Recording, clocks: Clocks | None, line: Timeline, settings: VideosSettings) -> list[str]:
    """Warnings about a recording whose views hardly fit together; an error if they do not at all."""
    warnings = _checked_step(recording, settings) if clocks is None else _checked_clocks(recording, clocks)
    warnings += [
        f"{view.path}: its images are not evenly spaced in time (dropped ones, or a variable frame rate), so it may "
        "be out of step with the other views; convert it to a constant frame rate if crops of one instant do not agree"
        for view in recording.views
        if not view.steady
    ]
    if not settings.test_subjects and settings.test_fraction and _train_stop(line, settings) < line.first + 1:
        short = min(recording.views, key=lambda view: view.count)
        raise SourceError(
            f"{short.path}: {line.count} images are too few to hold out the last {settings.test_fraction:.0%}; "
            "use longer recordings, or set test_fraction to 0"
        )
    return warnings


def _checked_step(recording: Recording, settings: VideosSettings) -> list[str]:
    """Whether views can be in step."""
    short = min(recording.views, key=lambda view: view.count)
    long = max(recording.views, key=lambda view: view.count)
    slow = min(recording.views, key=lambda view: view.rate)
    fast = max(recording.views, key=lambda view: view.rate)
    if fast.rate - slow.rate > 1e-3 * fast.rate:
        raise SourceError(
            f"{slow.path} has {slow.rate:.5g} images per second, {fast.path} {fast.rate:.5g}; expected one rate: "
            "let `mcss sync` find out how they fit together, or convert them to one frame rate first"
        )
    if long.count - short.count > settings.max_missing:
        raise SourceError(
            f"{short.path} has {short.count} images, {long.path} {long.count}; expected views of one recording to "
            f"differ by at most {settings.max_missing}: cut them to the same start and end, raise max_missing if "
            "they start together, or let `mcss sync` find their offsets"
        )
    if long.count == short.count:
        return []
    return [
        f"{recording.name}: clipped to the {short.count} images of {short.path.name} "
        f"({long.path.name} has {long.count})"
    ]


def _checked_clocks(recording: Recording, clocks: Clocks) -> list[str]:
    return [
        f"{view.path}: its offset of {clocks[view.name].start:.3f} s in {SYNC_FILE} is not sure (confidence "
        f"{clocks[view.name].confidence:.2f}); {OTHERWISE}"
        for view in recording.views
        if clocks[view.name].confidence < SURE
    ]


def _test_start(line: Timeline, settings: VideosSettings) -> int:
    return line.first + round(line.count * (1 - settings.test_fraction))


def _train_stop(line: Timeline, settings: VideosSettings) -> int:
    return _test_start(line, settings) - round(settings.gap * line.rate)


def _info(
    recordings: Sequence[Recording],
    clocks: Mapping[str, Clocks],
    lines: Mapping[str, Timeline],
    settings: VideosSettings,
    labelled: bool,
    clicks: Mapping[View, Click],
) -> CaptureInfo:
    """What the capture says of itself. Boxes, backgrounds and label files are no part of it: they may be mended."""
    subjects = tuple(dict.fromkeys(r.subject for r in recordings))
    splits: dict[str, tuple[Selector, ...]]
    if settings.test_subjects:
        unknown = sorted(set(settings.test_subjects) - set(subjects))
        rest = tuple(s for s in subjects if s not in settings.test_subjects)
        if unknown or not rest:
            raise SourceError(
                f"test_subjects {', '.join(settings.test_subjects)}: expected some, not all, of the subjects: "
                + ", ".join(subjects)
            )
        splits = {  # a selector each, so that subjects whose files are mended later can come in
            "train": tuple(Selector(subjects=(subject,)) for subject in rest),
            "test": tuple(Selector(subjects=(subject,)) for subject in settings.test_subjects),
        }
    elif settings.test_fraction:

        def part(recording: Recording, start: int, stop: int) -> Selector:
            return Selector((recording.subject,), (glob.escape(recording.sequence),), (start, stop))

        splits = {
            "train": tuple(part(r, lines[r.name].first, _train_stop(lines[r.name], settings)) for r in recordings),
            "test": tuple(
                part(r, _test_start(line, settings), line.first + line.count)
                for r in recordings
                for line in (lines[r.name],)
            ),
        }
    else:
        splits = {"train": (Selector(),)}
    about: dict[str, Any] = {name: getattr(settings, name) for name in ("every", "margin", "quality")}
    if labelled:
        poses = asdict(settings.poses)
        about |= {"poses": {name: value for name, value in poses.items() if name not in ("read", "joints")}}
    if clicks:
        about["clicks"] = clicks_as_settings(clicks)
    if clocks:
        about["clocks"] = {
            name: {view: [clock.start, clock.pace] for view, clock in of.items()} for name, of in clocks.items()
        }
    return CaptureInfo("videos", settings.licence, settings.size, splits, about)


def _given_boxes(
    recordings: Sequence[Recording], settings: VideosSettings
) -> Mapping[View, Float64[np.ndarray, "frames 4"]]:
    if settings.boxes is None:
        return {}
    sizes = {(r.subject, r.sequence, v.name): (v.width, v.height, v.count) for r in recordings for v in r.views}
    return read_boxes(settings.boxes, sizes)


def _has_labels(recording: Recording) -> bool:
    try:
        return pose_file(recording.views[0].path.parent) is not None
    except SourceError:  # several
        return True


def _given_labels(recording: Recording, line: Timeline, settings: VideosSettings) -> Labels | None:
    """The labels of a recording if it has a file of them, by number of the instant.

    Their time is counted from instant 0: the first image, or with `mcss sync` that of the reference view.
    """
    path = pose_file(recording.views[0].path.parent) if settings.poses.read else None
    return None if path is None else read_labels(path, line.first + line.count, line.rate, settings.poses, line.first)


def _given_scene(recording: Recording, view: Footage, settings: VideosSettings) -> Path | None:
    """The user's image or video of the empty scene of a view."""
    if settings.background is None:
        return None
    for place in (f"{recording.subject}/{recording.sequence}", recording.subject, "."):
        for path in sorted((settings.background / place).glob(f"{glob.escape(view.name)}.*")):
            if path.suffix.lower() in IMAGE_SUFFIXES or path.suffix.lower() in VIDEO_SUFFIXES:
                return path
    return None
