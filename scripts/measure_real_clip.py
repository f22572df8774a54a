"""Fine-tune a run on the real clip without labels and write what that did to docs/results/real_clip.json.

    python scripts/measure_real_clip.py RUN [--capture CAPTURE] [--out FOLDER] [--json FILE]

The clip is fetched by scripts/fetch_real_clip.py and imported by `mcss import videos`. L_cnstr alone is trained on the
first 64 instants; Hit@1 and Hit@5 (within ±2 frames) are those of the last 30, before and after. The report of the
fine-tuned run, with its pictures, is OUT/test/report.html.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from mcss.captures import Capture
from mcss.checkpoints import load_model
from mcss.evaluation import EvaluationSettings
from mcss.experiments import evaluate_run, provenance
from mcss.files import write_json
from mcss.methods.mcss import MCSSSettings
from mcss.progress import RichProgress
from mcss.recipes import recipe
from mcss.retrieval import InstantRetrieval
from mcss.training import train

TOLERANCE = 2
STEPS = 400
SEEDS = (0, 1, 2)


def main() -> None:
    """Evaluate, fine-tune with three seeds, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder that was trained before, such as the demo's")
    parser.add_argument("--capture", default="captures/real")
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--json", type=Path, default=Path("docs/results/real_clip.json"))
    options = parser.parse_args()
    capture, progress = Capture.open(options.capture), RichProgress()
    command = f"python scripts/measure_real_clip.py {options.run}"
    evaluation = EvaluationSettings(tolerance=TOLERANCE)

    def found(run: Path, out: Path) -> InstantRetrieval:
        result = evaluate_run(run, capture, "test", evaluation, out, command, progress)
        assert result.evaluation.retrieval is not None
        assert result.evaluation.retrieval.same_instant is not None
        return result.evaluation.retrieval.same_instant

    before = found(options.run, options.out / "before")
    after = []
    for seed in SEEDS:
        run = options.out / f"seed{seed}"
        settings = recipe("fast", "mcss", capture.uri)
        assert isinstance(settings.method, MCSSSettings)
        settings = replace(
            settings,
            labels="none",
            init=str(options.run),
            network=load_model(options.run).config,
            seed=seed,
            variants=16,
            # 64 instants lie 1/60 s apart: 16 of them at least 0.05 s from each other are what a step can hold.
            method=replace(settings.method, instants=16, min_gap=0.05),
            optimiser=replace(settings.optimiser, steps=STEPS),
        )
        train(settings, run, resume=True, progress=progress)
        after.append(found(run, run / "test"))
    made = provenance(command, capture, {})
    write_json(
        options.json,
        {
            "hit_at_1": {
                "before": before.hit_at_1,
                "after": sum(a.hit_at_1 for a in after) / len(after),
                "chance": before.chance_at_1,
                "after_seeds": [a.hit_at_1 for a in after],
            },
            "hit_at_5": {
                "before": before.hit_at_5,
                "after": sum(a.hit_at_5 for a in after) / len(after),
                "chance": before.chance_at_5,
                "after_seeds": [a.hit_at_5 for a in after],
            },
            "tolerance_frames": TOLERANCE,
            "queries": before.queries,
            "gallery": before.gallery,
            "steps": STEPS,
            "command": command,
            "capture": capture.fingerprint,
            "date": made.date,
            "machine": made.machine,
            "versions": dict(made.versions),
        },
    )


if __name__ == "__main__":
    main()
