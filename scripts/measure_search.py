"""Measure how well a model finds the same instant and the same movement in other views, to docs/results/search.json.

    python scripts/measure_search.py [--run RUN] [--real CAPTURE] [--synthetic CAPTURE] [--json FILE] [--page FILE]

*Real clip*: every image is searched for among those of the other cameras, and every half second of every camera, in
steps of a tenth, among the stretches of the others. *Synthetic*: two-second movements of people and performances that
were not in training are searched for among the other views of some of their sequences. In addition, two views of the
same performance are compared as `mcss compare` does; every difference that it finds there is an error of the model.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mcss
from mcss.data.capture import Capture
from mcss.data.provenance import provenance
from mcss.files import write_json
from mcss.inference.clips import clip_of_sequence
from mcss.inference.pose_sequence import PoseSequence
from mcss.inference.predict import capture_sequences
from mcss.models.model import Model
from mcss.retrieval import chance_at_k, embedding_distances, hit_at_k
from mcss.search.compare import compare
from mcss.search.dtw import Stretch, occurrences

TOLERANCE = 2
"""How many frames a hit in the real clip may be off."""


def clips_of(model: Model, capture: Capture, names: list[str]) -> dict[str, list[PoseSequence]]:
    """Return all views of some sequences as clips."""
    return {
        name: [clip_of_sequence(capture, f"{name}/{view}", model).sequence for view in capture.views] for name in names
    }


def instants_found(views: list[PoseSequence]) -> dict[str, float]:
    """Return how often an image of the same instant is among the nearest of the other views, and the chance level."""
    vector = torch.from_numpy(np.concatenate([clip.poses.embedding for clip in views]))
    frame = torch.from_numpy(np.concatenate([clip.frame for clip in views]))
    view = torch.arange(len(views)).repeat_interleave(torch.tensor([len(clip) for clip in views]))
    allowed = view[:, None] != view[None]
    right = (frame[:, None] - frame[None]).abs() <= TOLERANCE
    distance = embedding_distances(vector, vector)
    found: dict[str, float] = {"images": float(len(vector))}
    for k in (1, 5, 20):
        found[f"hit_at_{k}"] = float(hit_at_k(distance, right, allowed, k).double().mean())
        found[f"chance_at_{k}"] = float(chance_at_k(right, allowed, k).mean())
    return found


def movements_found(
    sequences: dict[str, list[PoseSequence]], seconds: float, step: float, near: float
) -> dict[str, float]:
    """Return how often the best stretch in the other views shows the same moment.

    That is the same sequence, with the middle of the stretch within `near` seconds.
    """
    hits, chances = [], []
    for name, views in sequences.items():
        for v, clip in enumerate(views):
            for start in np.arange(clip.time[0], clip.time[-1] - seconds + 1e-6, step):
                own = clip.take((clip.time >= start - 1e-6) & (clip.time <= start + seconds + 1e-6))
                best: tuple[float, bool] = (np.inf, False)
                near_ones, all_ones = 0.0, 0.0
                for other, tracks in sequences.items():
                    for w, track in enumerate(tracks):
                        if w == v:
                            continue
                        middles = track.time[: len(track) - len(own) + 1] + seconds / 2
                        same = other == name
                        all_ones += len(middles)
                        near_ones += same * (np.abs(middles - (start + seconds / 2)) <= near).sum()
                        for stretch in occurrences(own.poses.embedding, track.poses.embedding):
                            right = same and abs(middle(track, stretch) - (start + seconds / 2)) <= near
                            best = min(best, (stretch.cost, right))
                hits.append(best[1])
                chances.append(near_ones / all_ones)
    return {"movements": float(len(hits)), "hit_at_1": float(np.mean(hits)), "chance": float(np.mean(chances))}


def middle(track: PoseSequence, stretch: Stretch) -> float:
    """Return the time in the middle of a stretch."""
    return float(track.time[stretch.start] + track.time[stretch.stop - 1]) / 2


def same_compared(sequences: dict[str, list[PoseSequence]]) -> dict[str, float]:
    """Return the mean differences that `mcss compare` finds between two views of one performance; none is real."""
    rows = []
    for views in sequences.values():
        for a, b in itertools.combinations(views, 2):
            found = compare(a, b)
            angle = float(np.mean([d.mean for d in found.differences()]))
            rows.append((float(np.abs(found.time_a - found.time_b).mean()), angle, float(found.joints[:, 1:].mean())))
    seconds, angle, joints = np.mean(rows, axis=0).tolist()
    return {"pairs": float(len(rows)), "seconds": seconds, "degrees": angle, "mm": joints}


def table(found: dict[str, dict[str, float]], made: str) -> str:
    """Return the block of the page."""
    real, movement, synthetic, same, clip = (
        found[name] for name in ("instants", "movements", "synthetic_movements", "synthetic_compared", "real_compared")
    )
    lines = ["| asked | among | found first | by chance |", "|---|---|---|---|"]
    lines.append(
        f"| an image of the real clip ({real['images']:.0f}) | the other cameras, ±{TOLERANCE} frames | "
        f"{real['hit_at_1']:.2f} (within the first 20: {real['hit_at_20']:.2f}) | "
        f"{real['chance_at_1']:.2f} ({real['chance_at_20']:.2f}) |"
    )
    lines.append(
        f"| half a second of the real clip ({movement['movements']:.0f}) | the other cameras, middle within 0.1 s | "
        f"{movement['hit_at_1']:.2f} | {movement['chance']:.2f} |"
    )
    lines.append(
        f"| two seconds of the synthetic capture, test people ({synthetic['movements']:.0f}) | other views of "
        f"{synthetic['sequences']:.0f} sequences, middle within 0.5 s | {synthetic['hit_at_1']:.2f} | "
        f"{synthetic['chance']:.3f} |"
    )
    lines += ["", "| two views of one performance, compared | pairs | out of step, s | angles differ, ° | joints, mm |"]
    lines.append("|---|---|---|---|---|")
    for name, row in (("synthetic capture, test people", same), ("real clip", clip)):
        lines.append(f"| {name} | {row['pairs']:.0f} | {row['seconds']:.2f} | {row['degrees']:.0f} | {row['mm']:.0f} |")
    return "\n".join([*lines, "", made])


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="by default the weights shipped with the package")
    parser.add_argument("--real", default="captures/real")
    parser.add_argument("--synthetic", default="captures/synthetic")
    parser.add_argument("--sequences", type=int, default=12, help="of the split test of the synthetic capture")
    parser.add_argument("--json", type=Path, default=Path("docs/results/search.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/search.md"))
    options = parser.parse_args()
    model = mcss.load(options.run)
    real, synthetic = Capture.open(options.real), Capture.open(options.synthetic)
    clip = clips_of(model, real, [name for name, _ in capture_sequences(real)])
    names = [name for name, instants in capture_sequences(synthetic, "test") if len(instants) >= 40]
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, options.sequences).round().astype(int))]
    test = clips_of(model, synthetic, chosen)
    found: dict[str, dict[str, float]] = {
        "instants": instants_found(next(iter(clip.values()))),
        "movements": movements_found(clip, 0.5, 0.1, 0.1),
        "real_compared": same_compared(clip),
        "synthetic_movements": movements_found(test, 2.0, 2.0, 0.5) | {"sequences": float(len(test))},
        "synthetic_compared": same_compared(test),
    }
    made = provenance(
        "python scripts/measure_search.py" + (f" --run {options.run}" if options.run else ""), synthetic, {}
    )
    about: dict[str, Any] = {
        "command": made.command, "synthetic": synthetic.fingerprint, "real": real.fingerprint, "date": made.date,
        "machine": made.machine, "versions": dict(made.versions),
    }  # fmt: skip
    write_json(options.json, {**found, **about})
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    text = table(found, f"Written by `{made.command}` on {made.date} ({made.machine}, {versions}).")
    with tempfile.NamedTemporaryFile("w", suffix=".md") as written:
        written.write(text)
        written.flush()
        script = Path(__file__).with_name("write_table.py")
        subprocess.run([sys.executable, str(script), str(options.page), "finding", written.name], check=True)


if __name__ == "__main__":
    main()
