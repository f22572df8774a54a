"""A folder of your own synchronised videos, with the settings that turn it into a capture.

Layout: ``subject/sequence/view.mp4``, or the views of one recording directly in the folder. The cameras stand still and
run in step, or `mcss sync` has found how their clocks relate; nothing else need be known about them. 3D labels may lie
beside the videos (`mcss.sources.videos.pose_labels`).
"""

import glob
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64

from mcss.data.schema import CaptureInfo, Selector
from mcss.errors import SourceError, damage_as
from mcss.progress import Progress
from mcss.sources.assembly import Note
from mcss.sources.source import FolderContents, Source
from mcss.sources.videos.given_boxes import read_boxes
from mcss.sources.videos.pose_labels import PoseSettings, RecordingLabels, pose_file, read_labels
from mcss.sources.videos.video_sequence import (
    VideoSequence,
    clock_warnings,
    number_note,
    timing_notes,
    views_in_step,
)
from mcss.video.boxes import interpolated_boxes
from mcss.video.detectors import DetectorName, person_detector
from mcss.video.person_crops import PersonSearch, ViewToCrop
from mcss.video.reading.decoding import VIDEO_SUFFIXES, VideoFile
from mcss.video.reading.image_sequences import RATE, numbers_of_sequence
from mcss.video.recordings import Recording, ViewName, find_recordings, left_out_notes, video_files
from mcss.video.sync.clocks import Clocks, Timeline, clocks_of_numbers, read_clocks, timeline
from mcss.video.target import ClickedPoint, clicked_points, clicks_as_settings

BACKGROUND_SUFFIXES = VIDEO_SUFFIXES | {".jpg", ".jpeg", ".png"}
"""File name endings of images and videos of the empty scene."""


@dataclass(frozen=True)
class Videos(Source):
    """How synchronised videos become a capture."""

    name: ClassVar[str] = "videos"
    title: ClassVar[str] = "synchronised videos, without calibration or labels"
    reads: ClassVar[str] = "the folder with subject/sequence/view.mp4, or with the views of one recording"

    max_missing: int = 5
    """Views of a recording may differ by this many images and are cut to the shortest; more is an error."""
    test_fraction: float = 0.3
    """The last part of every sequence that is held out as the split `test`."""
    gap: float = 0.1
    """Seconds before the held-out part that belong to no split."""
    test_subjects: tuple[str, ...] = ()
    """Hold out these subjects instead, and no part of the others."""
    find: Literal["motion"] | DetectorName = "motion"
    """How people are found: by their motion in front of a static camera, or by a detector, for moving cameras."""
    detector_weights: Path | None = None
    """A file of the detector's weights, .safetensors or .pth. By default they come with mcss (blazepose) or from
    torchvision's hub."""
    click: tuple[str, ...] = ()
    """Which of several people to use: VIEW=X,Y@WHEN, such as left=640,380@12 (image 12) or left=640,380@0.5s."""
    boxes: Path | None = None
    """A CSV (subject,sequence,view,frame,x0,y0,x1,y1) with the person's boxes, for views that are not searched, or a
    folder of 2D keypoints that a tool wrote: subject/sequence/view.json, .csv or .h5."""
    ignore_sync: bool = False
    """Take image i of every view as one instant even if the folder has a `sync.json`."""
    background: Path | None = None
    """A folder of images or videos of the empty scene: `view.jpg`, or in subject/ or subject/sequence/."""
    image_rate: float = RATE
    """Images per second of views that are folders of numbered images."""
    licence: str = "not stated"
    """The terms under which the footage may be used."""
    poses: PoseSettings = field(default_factory=PoseSettings)
    """3D labels beside the videos."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.test_fraction < 1 or self.gap < 0:
            raise ValueError(f"expected 0 ≤ test_fraction < 1 and gap ≥ 0, got {self.test_fraction} and {self.gap}")
        for text in self.click:
            ClickedPoint.parsed(text)
        if self.find == "motion" and self.detector_weights is not None:
            raise ValueError("detector_weights: there is no detector to load them; choose one with --find")
        if self.find != "motion" and self.background is not None:
            raise ValueError(f"background: {self.find} needs no empty scene; leave it out, or use --find motion")

    def list_contents(self, folder: Path, out: str | Path, progress: Progress) -> FolderContents:
        """Find the recordings in the folder and check all files; see `Source.list_contents`."""
        problems: list[str] = []
        recordings = find_recordings(folder, problems, self.image_rate)
        clocks = {} if self.ignore_sync else read_clocks(folder, recordings)
        usable: list[_UsableRecording] = []
        for recording in recordings:
            try:
                with _faults_of(recording):
                    usable.append(self._checked(recording, clocks.get(recording.name)))
            except SourceError as problem:
                problems.append(str(problem))
        if not usable:
            raise SourceError("\n".join(problems))
        notes = left_out_notes(folder)
        boxes = self._given_boxes(recordings, notes.append)
        if self.background is not None and not self.background.is_dir():
            raise SourceError(f"{self.background}: expected a folder with images or videos of the empty scene")
        clicks = clicked_points(recordings, self.click)
        if self.find != "motion":
            person_detector(self.find, self.detector_weights)  # reports an unusable detector before any work is done
        labelled = self.poses.read and any(_has_labels(recording) for recording in recordings)
        return FolderContents(
            [self._sequence(recording, boxes, clicks, out) for recording in usable],
            self._info(usable, clocks, labelled, clicks),
            problems,
            notes,
            expected=Counter(subject for subject, _ in video_files(folder)),
        )

    def _checked(self, recording: Recording, clocks: Clocks | None) -> "_UsableRecording":
        """Check that a recording's views fit together, and read its labels.

        Raises:
            SourceError: They do not fit together, the recording is too short, or its labels cannot be used.
        """
        numbered = clocks_of_numbers(recording) if clocks is None and not self.ignore_sync else None
        line = timeline(recording, clocks or numbered, self.every)
        if clocks is not None:
            notes = clock_warnings(recording, clocks)
        elif numbered is not None:
            notes = [number_note(recording, numbered)]
        else:
            notes = views_in_step(recording, self.max_missing)
        notes += timing_notes(recording, line)
        if not self.test_subjects and self.test_fraction and self._train_stop(line) < line.first + 1:
            shortest = min(recording.views, key=lambda view: view.count)
            raise SourceError(
                f"{shortest.path}: {line.count} images are too few to hold out the last {self.test_fraction:.0%}; "
                "use longer recordings, or give --test-fraction 0"
            )
        labels = self._labels(recording, line)
        return _UsableRecording(recording, line, labels, (*notes, *(labels.notes if labels else ())))

    def _labels(self, recording: Recording, line: Timeline) -> RecordingLabels | None:
        """Read the labels of a recording, if it has any, by number of the instant.

        Their time is counted from instant 0: the first image, or with `mcss sync` that of the reference view.
        """
        path = pose_file(recording.views[0].path.parent) if self.poses.read else None
        if path is None:
            return None
        count, images = line.first + line.count, recording.views[0].seconds
        return read_labels(path, count, line.rate, self.poses, line.first, line.time_of(np.arange(count)), images)

    def _given_boxes(
        self, recordings: Sequence[Recording], note: Note
    ) -> Mapping[ViewName, Float64[np.ndarray, "frames 4"]]:
        if self.boxes is None:
            return {}
        sizes = {(r.subject, r.sequence, v.name): (v.width, v.height, v.count) for r in recordings for v in r.views}
        folders = [(r.subject, r.sequence, v.name, v.path) for r in recordings for v in r.views if v.path.is_dir()]
        numbers = {(subject, sequence, name): numbers_of_sequence(path) for subject, sequence, name, path in folders}
        return read_boxes(self.boxes, sizes, numbers, note)

    def _sequence(
        self,
        usable: "_UsableRecording",
        boxes: Mapping[ViewName, Float64[np.ndarray, "frames 4"]],
        clicks: Mapping[ViewName, ClickedPoint],
        out: str | Path,
    ) -> VideoSequence:
        recording, line = usable.recording, usable.line
        views = []
        for video in recording.views:
            numbers, name = line.images[video.name], (recording.subject, recording.sequence, video.name)
            search = PersonSearch(
                self.find, self.detector_weights, self._empty_scene(recording, video), clicks.get(name)
            )
            known = boxes.get(name)
            known = None if known is None else interpolated_boxes(known)[numbers]
            views.append(ViewToCrop(video, numbers, line.rate / self.every, self, search, known))
        return VideoSequence(
            recording.subject,
            recording.sequence,
            tuple(views),
            line.frames,
            line.rate,
            line.times,
            line.seen,
            usable.labels,
            usable.notes,
            _track_sheet(out, recording),
        )

    def _empty_scene(self, recording: Recording, video: VideoFile) -> Path | None:
        """Return the user's image or video of the empty scene of a view, if there is one."""
        if self.background is None:
            return None
        within = recording.views[0].path.parent.parts[-2:]
        for place in (Path(*within), Path(*within[:1]), Path(recording.subject, recording.sequence), Path()):
            beside = sorted((self.background / place).glob("*"))
            for path in beside:
                named = unicodedata.normalize("NFC", path.stem) == video.name
                if named and path.suffix.lower() in BACKGROUND_SUFFIXES:
                    return path
        return None

    def _test_start(self, line: Timeline) -> int:
        return line.first + round(line.count * (1 - self.test_fraction))

    def _train_stop(self, line: Timeline) -> int:
        return self._test_start(line) - round(self.gap * line.rate)

    def _info(
        self,
        usable: Sequence["_UsableRecording"],
        clocks: Mapping[str, Clocks],
        labelled: bool,
        clicks: Mapping[ViewName, ClickedPoint],
    ) -> CaptureInfo:
        """Describe the capture; given boxes, backgrounds and label files are left out so that they may be corrected."""
        about: dict[str, Any] = {name: getattr(self, name) for name in ("every", "margin", "quality")}
        if labelled:
            poses = asdict(self.poses)
            about |= {"poses": {name: value for name, value in poses.items() if name not in ("read", "joints")}}
        if clicks:
            about["clicks"] = clicks_as_settings(clicks)
        if clocks:
            about["clocks"] = {
                name: {view: [clock.start, clock.pace] for view, clock in views.items()}
                for name, views in clocks.items()
            }
        return CaptureInfo(self.name, self.licence, self.size, self._splits(usable), about)

    def _splits(self, usable: Sequence["_UsableRecording"]) -> dict[str, tuple[Selector, ...]]:
        if self.test_subjects:
            subjects = tuple(dict.fromkeys(u.recording.subject for u in usable))
            held_out = tuple(unicodedata.normalize("NFC", subject) for subject in self.test_subjects)
            unknown = sorted(set(held_out) - set(subjects))
            train_subjects = tuple(subject for subject in subjects if subject not in held_out)
            if unknown or not train_subjects:
                raise SourceError(
                    f"test_subjects {', '.join(self.test_subjects)}: expected some, not all, of the subjects: "
                    + ", ".join(subjects)
                )
            return {  # one selector each, so that subjects whose files are corrected later can be added
                "train": tuple(Selector(subjects=(subject,)) for subject in train_subjects),
                "test": tuple(Selector(subjects=(subject,)) for subject in held_out),
            }
        if not self.test_fraction:
            return {"train": (Selector(),)}

        def part(recording: Recording, start: int, stop: int) -> Selector:
            return Selector((recording.subject,), (glob.escape(recording.sequence),), (start, stop))

        return {
            "train": tuple(part(u.recording, u.line.first, self._train_stop(u.line)) for u in usable),
            "test": tuple(part(u.recording, self._test_start(u.line), u.line.first + u.line.count) for u in usable),
        }


@dataclass(frozen=True, eq=False)
class _UsableRecording:
    """A recording whose files have been checked."""

    recording: Recording
    line: Timeline
    labels: RecordingLabels | None
    notes: tuple[str, ...]


def _faults_of(recording: Recording) -> AbstractContextManager[None]:
    """Report whatever goes wrong with the files of a recording as a fault of that recording."""
    return damage_as(SourceError, lambda why: f"{recording.name}: its files cannot be used ({why}); copy them again")


def _track_sheet(out: str | Path, recording: Recording) -> Path | None:
    """Return the path of a recording's track sheet beside the capture; None for a capture in an object store."""
    return None if "://" in str(out) else Path(f"{out}.tracks") / recording.subject / f"{recording.sequence}.jpg"


def _has_labels(recording: Recording) -> bool:
    try:
        return pose_file(recording.views[0].path.parent) is not None
    except SourceError:  # there are several
        return True
