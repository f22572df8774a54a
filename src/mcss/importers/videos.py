"""A plain folder of one's own synchronised videos → capture.

Layout: ``subject/sequence/view.mp4``, or the views of one recording directly in the folder. The cameras stand still
and run in step, or `mcss sync` found out how their clocks lie; nothing else need be known about them. 3D labels may lie
beside them (`mcss.importers.poses`). Videos are read twice, first small, to find the person, then in full for the
crops, and never held in memory.
"""

import glob
import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mcss.captures import Capture, CaptureInfo, CaptureWriter, Frame, Selector
from mcss.importers import ImportProblem
from mcss.importers.boxes import View, read_boxes
from mcss.importers.clocks import OTHERWISE, SURE, SYNC_FILE, Clocks, Timeline, read_clocks, timeline
from mcss.importers.footage import VIDEO_SUFFIXES, Footage, PictureSpool, jpeg, pictures
from mcss.importers.people import crop_squares, cut_out, filled, person_boxes
from mcss.importers.poses import Labels, PoseSettings, pose_file, read_labels
from mcss.importers.recordings import Recording, find_recordings
from mcss.importers.scenery import Scene, empty_scene
from mcss.progress import NO_PROGRESS, Progress, Task

LOOK_SIZE = 320
"""Longer side in pixels of the pictures in which the person is looked for."""

SAMPLES = 48
"""So many pictures, spread over a recording, show what its empty scene looks like."""

SELDOM_SEEN = 0.05
"""A view that shows a person in a smaller share of its pictures than this counts as showing nobody."""

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class VideosSettings:
    """How videos become a capture."""

    size: int = 128
    """Width and height of the crops in pixels."""
    every: int = 1
    """Take every n-th picture."""
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
    """Views of a sequence may differ by this many pictures and are clipped to the shortest; more is an error."""
    boxes: Path | None = None
    """A CSV (subject,sequence,view,frame,x0,y0,x1,y1) for views whose person is not to be looked for."""
    ignore_sync: bool = False
    """Take picture i of every view as one instant even if the folder has a `sync.json`."""
    background: Path | None = None
    """A folder of pictures or videos of the empty scene: `view.jpg`, or in subject/ or subject/sequence/."""
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


@dataclass(frozen=True)
class ImportSummary:
    """What an import did."""

    capture: Capture
    imported: tuple[str, ...]
    """Sequences (``subject/sequence``) written by this call."""
    kept: tuple[str, ...]
    """Sequences that an earlier call had written."""
    warnings: tuple[str, ...]
    """What is worth a look, each with its file; not kept from earlier calls."""


def import_videos(
    folder: str | Path, out: str | Path, settings: VideosSettings | None = None, progress: Progress = NO_PROGRESS
) -> ImportSummary:
    """Make a capture (or carry on one) of a folder of synchronised videos.

    All files are looked at before anything is written. A sequence that fails after that does not end the
    import: the others are imported and stay, and all that failed is told at the end.

    Args:
        folder: ``subject/sequence/view.mp4``, or the views of one recording.
        out: The capture.
        settings: `VideosSettings`; the defaults if None.
        progress: Counts pictures, each one twice: looked at, then cut out.

    Raises:
        ImportProblem: Something about the files; the message says which, and the way out.
        mcss.captures.CaptureError: The capture at `out` was begun with other settings or cannot be written.
    """
    settings = settings or VideosSettings()
    warnings: list[str] = []
    recordings = find_recordings(Path(folder))
    clocks = {} if settings.ignore_sync else read_clocks(Path(folder), recordings)
    lines = {r.name: timeline(r, clocks.get(r.name), settings.every) for r in recordings}
    for recording in recordings:
        warnings += _checked(recording, clocks.get(recording.name), lines[recording.name], settings)
    boxes = _given_boxes(recordings, settings)
    labels = _given_labels(recordings, lines, settings)
    warnings += [note for given in labels.values() for note in given.notes]
    writer = CaptureWriter.open(out, info=_info(recordings, clocks, lines, settings, labelled=bool(labels)))
    kept = [r for r in recordings if (r.subject, r.sequence) in writer.done()]
    todo = [r for r in recordings if r not in kept]
    imported, problems = [], []
    steps = {name: 2 * sum(map(len, line.pictures.values())) for name, line in lines.items()}
    total, done = sum(steps.values()), sum(steps[r.name] for r in kept)
    with progress.task("Importing videos", total, done) as task:
        for recording in todo:
            task.note(recording.name)
            try:
                writer.append(
                    _frames(
                        recording, lines[recording.name], boxes, labels.get(recording.name), settings, task, warnings
                    )
                )
                imported.append(recording.name)
            except ImportProblem as problem:
                problems.append(str(problem))
    if problems:
        raise ImportProblem(
            "\n".join(problems)
            + f"\n{len(imported) + len(kept)} of {len(recordings)} sequences are imported and stay in {out}; "
            "mend the rest and run the same command again"
        )
    return ImportSummary(writer.finish(progress), tuple(imported), tuple(r.name for r in kept), tuple(warnings))


def _checked(recording: Recording, clocks: Clocks | None, line: Timeline, settings: VideosSettings) -> list[str]:
    """Warnings about a recording whose views hardly fit together; an error if they do not at all."""
    warnings = _checked_step(recording, settings) if clocks is None else _checked_clocks(recording, clocks)
    warnings += [
        f"{view.path}: its pictures are not evenly spaced in time (dropped ones, or a variable frame rate), so it may "
        "be out of step with the other views; convert it to a constant frame rate if crops of one instant do not agree"
        for view in recording.views
        if not view.steady
    ]
    if not settings.test_subjects and settings.test_fraction and _train_stop(line, settings) < line.first + 1:
        short = min(recording.views, key=lambda view: view.count)
        raise ImportProblem(
            f"{short.path}: {line.count} pictures are too few to hold out the last {settings.test_fraction:.0%}; "
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
        raise ImportProblem(
            f"{slow.path} has {slow.rate:.5g} pictures per second, {fast.path} {fast.rate:.5g}; expected one rate: "
            "let `mcss sync` find out how they fit together, or convert them to one frame rate first"
        )
    if long.count - short.count > settings.max_missing:
        raise ImportProblem(
            f"{short.path} has {short.count} pictures, {long.path} {long.count}; expected views of one recording to "
            f"differ by at most {settings.max_missing}: cut them to the same start and end, raise max_missing if "
            "they start together, or let `mcss sync` find their offsets"
        )
    if long.count == short.count:
        return []
    return [
        f"{recording.name}: clipped to the {short.count} pictures of {short.path.name} "
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
) -> CaptureInfo:
    """What the capture says of itself. Boxes, backgrounds and label files are no part of it: they may be mended."""
    subjects = tuple(dict.fromkeys(r.subject for r in recordings))
    splits: dict[str, tuple[Selector, ...]]
    if settings.test_subjects:
        unknown = sorted(set(settings.test_subjects) - set(subjects))
        rest = tuple(s for s in subjects if s not in settings.test_subjects)
        if unknown or not rest:
            raise ImportProblem(
                f"test_subjects {', '.join(settings.test_subjects)}: expected some, not all, of the subjects: "
                + ", ".join(subjects)
            )
        splits = {"train": (Selector(subjects=rest),), "test": (Selector(subjects=settings.test_subjects),)}
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


def _given_labels(
    recordings: Sequence[Recording], lines: Mapping[str, Timeline], settings: VideosSettings
) -> dict[str, Labels]:
    """The labels of each recording that has a file of them, by number of the instant.

    Their time is counted from instant 0: the first picture, or with `mcss sync` that of the reference view.
    """
    labels, problems = {}, []
    for recording in recordings if settings.poses.read else ():
        try:
            path = pose_file(recording.views[0].path.parent)
            if path is not None:
                line = lines[recording.name]
                labels[recording.name] = read_labels(
                    path, line.first + line.count, line.rate, settings.poses, line.first
                )
        except ImportProblem as problem:
            problems.append(str(problem))
    if problems:
        raise ImportProblem("\n".join(problems))
    return labels


def _frames(
    recording: Recording,
    line: Timeline,
    boxes: Mapping[View, Float64[np.ndarray, "frames 4"]],
    labels: Labels | None,
    settings: VideosSettings,
    task: Task,
    warnings: list[str],
) -> list[Frame]:
    """All rows of a recording: first the boxes of every view, then the crops."""
    squares = {}
    for view in recording.views:
        given = boxes.get((recording.subject, recording.sequence, view.name))
        taken = line.pictures[view.name]
        if given is None:
            found = found_boxes(recording, view, taken, settings, task, warnings)
        else:
            found = given[taken]
            if not np.isfinite(found).any():  # the only boxes given are of pictures in between
                found = filled(given)[taken]
            task.advance(len(found))
        rate = line.rate / settings.every
        squares[view.name] = crop_squares(filled(found), rate, settings.margin, view.width, view.height)
    count = min(map(len, squares.values()))
    action = re.sub(r"[\s_.-]*\d+$", "", recording.sequence) or recording.sequence
    frames = []
    for view in recording.views:
        crops = crops_of(view, line.pictures[view.name][:count], squares[view.name], settings, task)
        for index, crop in enumerate(crops):
            frame = int(line.frames[index])
            x0, y0, x1, y1 = map(float, squares[view.name][index])
            frames.append(
                Frame(
                    subject=recording.subject,
                    sequence=recording.sequence,
                    action=action,
                    frame=frame,
                    time=frame / line.rate,
                    view=view.name,
                    image=crop,
                    box=(x0, y0, x1, y1),
                    pose=None if labels is None else labels.pose(frame),
                )
            )
    return sorted(frames, key=lambda f: f.frame)  # stable: the views of an instant lie together


def found_boxes(
    recording: Recording,
    view: Footage,
    taken: Int64[np.ndarray, " n"],
    settings: VideosSettings,
    task: Task,
    warnings: list[str],
) -> Float64[np.ndarray, "m 4"]:
    """The person's box in each picture taken that can be decoded, in source pixels; NaN where nobody is seen.

    Raises:
        ImportProblem: The video is damaged, or nobody is seen in it.
    """
    with closing(PictureSpool()) as spool:
        decoded = 0
        for decoded, picture in enumerate(pictures(view.path, LOOK_SIZE), start=1):
            while len(spool) < len(taken) and taken[len(spool)] == decoded - 1:
                spool.append(picture)
                task.advance()
        lost = view.count - decoded
        if lost > settings.max_missing or not len(spool):
            raise ImportProblem(
                f"{view.path}: only {decoded} of its {view.count} pictures can be decoded; the file is damaged or was "
                "cut off: copy it again, or cut all views of the sequence to the part that is whole"
            )
        if lost > 0:
            warnings.append(
                f"{view.path}: {lost} of its {view.count} pictures cannot be decoded; from there on it is {lost} "
                "pictures ahead of the other views, unless they are the last ones"
            )
        scene = _given_scene(recording, view, settings, spool[0].shape)
        if scene is None:
            at = np.unique(np.linspace(0, len(spool) - 1, SAMPLES).round().astype(int))
            scene = empty_scene([spool[int(i)] for i in at])
        boxes = person_boxes((spool[i] for i in range(len(spool))), scene)
        height, width = spool[0].shape[:2]
    seen = float(np.isfinite(boxes).all(axis=1).mean())
    if seen < SELDOM_SEEN:
        raise ImportProblem(
            f"{view.path}: no person was found in it (people are found by their motion before a static camera); "
            "give their boxes in a CSV (setting boxes) or pictures of the empty scene (setting background), or "
            "remove the view"
        )
    if seen < 1:
        warnings.append(f"{view.path}: no person seen in {1 - seen:.0%} of its pictures; boxes are interpolated there")
    scaled: Float64[np.ndarray, "n 4"] = boxes * np.array([view.width / width, view.height / height] * 2)
    return scaled


def _given_scene(recording: Recording, view: Footage, settings: VideosSettings, shape: tuple[int, ...]) -> Scene | None:
    """The empty scene of a view from the user's folder; None if the folder has nothing for it."""
    if settings.background is None:
        return None
    if not settings.background.is_dir():
        raise ImportProblem(f"{settings.background}: expected a folder with pictures or videos of the empty scene")
    for place in (f"{recording.subject}/{recording.sequence}", recording.subject, "."):
        for path in sorted((settings.background / place).glob(f"{glob.escape(view.name)}.*")):
            suffix = path.suffix.lower()
            if suffix in PICTURE_SUFFIXES or suffix in VIDEO_SUFFIXES:
                shots = list(itertools.islice(pictures(path, LOOK_SIZE), 25))
                if not shots or shots[0].shape != shape:
                    came = f"{shots[0].shape[1]}×{shots[0].shape[0]}" if shots else "nothing"
                    raise ImportProblem(
                        f"{path}: expected the empty scene in the shape of {view.path.name} ({shape[1]}×{shape[0]} "
                        f"when scaled down), came {came}; take it with the same camera and settings"
                    )
                scene: Scene = np.median(np.stack(shots), axis=0).astype(np.float32)
                return scene
    return None


def crops_of(
    view: Footage,
    taken: Int64[np.ndarray, " n"],
    squares: Int64[np.ndarray, "m 4"],
    settings: VideosSettings,
    task: Task,
) -> list[bytes]:
    """The crops, as JPEG, of the pictures taken."""
    crops: list[bytes] = []
    for index, picture in enumerate(pictures(view.path)):
        while len(crops) < len(taken) and taken[len(crops)] == index:
            crops.append(jpeg(cut_out(picture, squares[len(crops)], settings.size), settings.quality))
            task.advance()
        if len(crops) == len(taken):
            break
    return crops
