"""Measure how many images per second one process renders and, with --prototype, an earlier renderer for comparison.

    python benchmarks/rendering.py
    python benchmarks/rendering.py --prototype DIR --assets DIR   # the old scripts and their unpacked assets

Both renderers run in turn, each in a process of one thread, at 128 pixels with 2 × 2 samples and four views, and with
their own motion capture. Times are processor seconds, so that other programs on the machine hardly affect the ratio.
Ours include posing, grounding, JPEG encoding and everything else that a build does for an image; the prototype's do
not include JPEG encoding.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

OURS = """
import json, time
from mcss.sources.synthetic.sequences import SyntheticSettings, _performances, body_of, render_sequence
settings = SyntheticSettings(size={size})
takes = [p for p in _performances(settings, 0) if p.action in ("Walking", "Dancing", "Getting up")][:{takes}]
render_sequence(settings, 0, takes[0])  # compiles, loads
begin = time.process_time()
images = sum(len(render_sequence(settings, 0, take).frames) for take in takes)
print(json.dumps([images, time.process_time() - begin]))
"""

PROTOTYPE = """
import contextlib, io, json, sys, time, types
sys.modules["skimage"] = sys.modules["skimage.data"] = types.ModuleType("skimage.data")  # imported there, never used
sys.modules["skimage"].data = sys.modules["skimage.data"]
with contextlib.redirect_stdout(io.StringIO()):
    import generate
generate.time = types.SimpleNamespace(time=time.process_time)
generate.np.savez = lambda *_, **__: None
generate.subject(0, "train", 4)  # compiles, loads
said = io.StringIO()
with contextlib.redirect_stdout(said):
    generate.subject(0, "train", {instants})
*_, images, seconds = said.getvalue().split()
print(json.dumps([int(images), float(seconds)]))
"""


def rate(code: str, cwd: Path | None = None, **environment: str) -> float:
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **single, **environment},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    images, seconds = json.loads(done.stdout.splitlines()[-1])
    return float(images) / float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prototype", type=Path, help="folder of the prototype's generate.py")
    parser.add_argument("--assets", type=Path, help="its SYNTHETIC_ASSETS")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the result there")
    options = parser.parse_args()
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(options.runs):
        ours.append(rate(OURS.format(size=128, takes=3)))
        if options.prototype:
            assets = str(options.assets.resolve())
            theirs.append(rate(PROTOTYPE.format(instants=60), options.prototype, SYNTHETIC_ASSETS=assets))
    result: dict[str, object] = {"images_per_second": round(statistics.median(ours), 1), "runs": ours}
    print(f"mcss       {statistics.median(ours):7.1f} images/s a process ({min(ours):.1f} to {max(ours):.1f})")
    if theirs:
        ratio = statistics.median(ours) / statistics.median(theirs)
        result |= {"prototype": round(statistics.median(theirs), 1), "prototype_runs": theirs, "ratio": round(ratio, 2)}
        print(
            f"prototype  {statistics.median(theirs):7.1f} images/s a process ({min(theirs):.1f} to {max(theirs):.1f})"
        )
        print(f"ratio      {ratio:7.2f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
