"""Does an import keep up with decoding, and does it need more memory for longer videos? In one run, on one core.

    python benchmarks/importing.py VIDEO [--json FILE]     # such as footage/subject/balancing/cam01.mp4

The video, of a real static camera, is played forwards and backwards repeatedly, with a keyframe every half second,
and imported as two views of one recording. For comparison, PyAV only decodes both files. Both use one thread on one
core and are measured in processor time, which other programs on the machine change less than elapsed time. The aim is
a ratio of at least 0.8. The largest memory is that of the whole process, for the long recording and for one of a
quarter of its length.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

RATE = 60
"""Frames per second."""


def there_and_back(source: Path, target: Path) -> None:
    """Write a video forwards, then backwards, as H.264."""
    import av

    with av.open(str(source)) as container:
        shots = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    with av.open(str(target), "w") as container:
        options = {"preset": "superfast", "crf": "21", "x264-params": f"keyint={RATE // 2}:scenecut=0"}
        stream = container.add_stream("libx264", rate=Fraction(RATE), options=options)
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = shots[0].shape[0] * 2 // 3, shots[0].shape[1]
        for image in shots + shots[-2:0:-1]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="yuv420p")))
        container.mux(stream.encode())


def repeated(source: Path, target: Path, times: int) -> None:
    """Write the frames of a video several times over without encoding them again."""
    import av

    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(target), "w") as container:
        stream, start = None, 0
        for _ in range(times):
            with av.open(str(source)) as once:
                own = once.streams.video[0]
                stream = stream or container.add_stream_from_template(own)
                for packet in once.demux(own):
                    if packet.size:
                        packet.pts, packet.dts, packet.stream = packet.pts + start, packet.dts + start, stream
                        container.mux(packet)
                start += own.duration


def decoding(folder: Path) -> float:
    """Return the processor seconds to decode all videos of a folder."""
    from mcss.video.reading.decoding import decoded_count

    start = time.process_time()
    for path in sorted(folder.rglob("*.mp4")):
        decoded_count(path)
    return time.process_time() - start


def importing(folder: Path, out: Path) -> float:
    """Return the processor seconds to import all videos of a folder."""
    from mcss.sources.videos.video_folder import Videos

    start = time.process_time()
    Videos(max_missing=1_000_000).import_to(out, folder, workers=1)
    return time.process_time() - start


def measured(folder: Path) -> dict[str, float]:
    """Measure decoding and one import in this process, with everything loaded beforehand."""
    import cv2

    from mcss.sources.videos.video_folder import Videos
    from mcss.video.reading.container import load_av
    from mcss.video.recordings import find_recordings

    cv2.setNumThreads(1)
    assert load_av() is not None
    assert callable(Videos)
    images = sum(view.count for view in find_recordings(folder)[0].views)
    plain = decoding(folder)
    with tempfile.TemporaryDirectory() as out:
        seconds = importing(folder, Path(out) / "capture")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "images": images,
        "decoding_ms": 1e3 * plain / images,
        "importing_ms": 1e3 * seconds / images,
        "ratio": plain / seconds,
        "peak_mb": peak / 1e6,
    }


COSTS = {
    "spool.py:append": "keeping what may be the person: scaling and JPEG",
    "spool.py:part_with": "reading that again",
    "yuv.py:crop": "the crops: scaling, colours",
    "images.py:encode_jpeg": "the crops: JPEG",
    "yuv.py:thumbnail": "small images in which people are detected",
    "people.py:detect": "finding what differs from the empty scene",
    "person_crops.py:_scene_samples": "keyframes",
    "background.py:empty_scene": "the empty scene",
}
"""Functions and what they do; none calls another, except that keeping parts of images also encodes JPEGs."""


def costs(folder: Path) -> dict[str, float]:
    """Return the milliseconds per frame that an import spends besides decoding, by purpose."""
    import cProfile
    import pstats

    from mcss.video.recordings import find_recordings

    profile = cProfile.Profile(time.thread_time)  # decoding uses its own threads
    with tempfile.TemporaryDirectory() as out:
        profile.runcall(importing, folder, Path(out) / "capture")
    images = sum(view.count for view in find_recordings(folder)[0].views)
    found = {}
    for (file, _, function), (_, _, _, cumulative, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        purpose = COSTS.get(f"{Path(file).name}:{function}")
        if function == "encode_jpeg":
            of_crops = [cost[3] for (_, _, caller), cost in callers.items() if caller in ("append_crops", "encoded")]
            cumulative = sum(of_crops)
        if purpose is not None:
            found[purpose] = found.get(purpose, 0.0) + 1e3 * cumulative / images
    return found


def written(figures: dict[str, Any], page: Path) -> None:
    """Write the figures into a page of the documentation."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    from write_table import write_between

    lines = [
        "| recording | images | decoding, ms | importing, ms | ratio | largest memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("short", "long"):
        f = figures[name]
        lines.append(
            f"| {name} | {f['images']:,} | {f['decoding_ms']:.1f} | {f['importing_ms']:.1f} | {f['ratio']:.2f} "
            f"| {f['peak_mb']:,.0f} |"
        )
    shares = ", ".join(f"{name} {cost:.2f}" for name, cost in sorted(figures["costs"].items(), key=lambda c: -c[1]))
    note = (
        f"Written by `benchmarks/importing.py` on {date.today()} ({platform.system()} {platform.machine()}, one core, "
        f"PyAV {figures['av']}); processor time an image. The aim is a ratio of 0.8, and 2,000 MB."
    )
    text = [note, "", *lines, "", f"Where the rest goes, in ms an image of the short recording: {shares}."]
    write_between(page, "importing", "\n".join(text))


def apart(folder: Path, core: int | None, *more: str) -> dict[str, Any]:
    """Measure in a separate process."""
    command = [sys.executable, __file__, str(folder), "--measure", *more]
    command += [] if core is None else ["--core", str(core)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--times", type=int, default=24, help="there and back of the long recording")
    parser.add_argument("--core", type=int, help="the core to run on; by default the last one")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--page", type=Path, help="write the table into this page, such as docs/real_footage.md")
    parser.add_argument("--costs", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if a.core is None else a.core})
    if a.measure:
        print(json.dumps(costs(a.video) if a.costs else measured(a.video)))
        return
    about = {"machine": platform.machine(), "processor": platform.processor(), "av": version("av")}
    figures: dict[str, Any] = about
    with tempfile.TemporaryDirectory() as folder:
        once = Path(folder) / "once.mp4"
        there_and_back(a.video, once)
        for name, times in (("short", max(a.times // 4, 1)), ("long", a.times)):
            for view in range(2):  # a second copy, because importing the same file twice is refused
                repeated(once, Path(folder) / name / "subject" / "long" / f"{view}.mp4", times + view)
            figures[name] = found = apart(Path(folder) / name, a.core)
            print(f"{name}: two views, together {found['images']:,} images")
            print(f"  decoding       {found['decoding_ms']:.2f} ms an image")
            print(f"  importing      {found['importing_ms']:.2f} ms an image")
            print(f"  ratio          {found['ratio']:.2f} (aim: at least 0.8)")
            print(f"  largest memory {found['peak_mb']:,.0f} MB (aim: at most 2,000)", flush=True)
        figures["costs"] = apart(Path(folder) / "short", a.core, "--costs")
    for purpose, cost in figures["costs"].items():
        print(f"  {cost:.2f} ms {purpose}")
    if a.page:
        written(figures, a.page)
    if a.json:
        a.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
