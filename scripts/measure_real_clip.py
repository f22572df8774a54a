"""Fine-tune a run on the real clip without labels and write the effect to docs/results/real_clip.json.

    python scripts/measure_real_clip.py RUN [--capture CAPTURE] [--out FOLDER] [--json FILE]

scripts/fetch_real_clip.py fetches the clip and `mcss import videos` imports it. L_cnstr alone is trained on the first
64 instants. Hit@1 and Hit@5 (within ±2 frames) are measured on the last 30, before and after. If the clip was fetched
with --poses, so are the pose errors against joints triangulated from 2D keypoints, beside those of the mean of the
model's reference poses, which ignores the image. The report of each fine-tuned run, with its images, is
OUT/seedN/test/report.html.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mcss.data.capture import Capture
from mcss.data.provenance import provenance
from mcss.evaluation.evaluate import Evaluation, evaluate
from mcss.evaluation.predictions import EvaluationSettings, MeanPose
from mcss.experiments.comparison import evaluate_run
from mcss.files import write_json
from mcss.methods.mcss import MCSS
from mcss.models.model_file import read_model
from mcss.progress import RichProgress
from mcss.retrieval import InstantRetrieval
from mcss.training.loop import train
from mcss.training.settings import recipe

TOLERANCE = 2
STEPS = 400
SEEDS = (0, 1, 2)
ERRORS = ("mpjpe", "n_mpjpe", "pa_mpjpe")


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

    def evaluated(run: Path, out: Path) -> Evaluation:
        return evaluate_run(run, capture, "test", evaluation, out, command, progress).evaluation

    model = read_model(options.run)
    reference = model.parts.uncertainty
    unseeing = None if reference is None else evaluate(MeanPose(reference.pose.mean(0)), capture, "test", evaluation)
    before = evaluated(options.run, options.out / "before")
    after = []
    for seed in SEEDS:
        run = options.out / f"seed{seed}"
        settings = recipe("fast", MCSS, capture.uri)
        assert isinstance(settings.method, MCSS)
        settings = replace(
            settings,
            labels="none",
            init=str(options.run),
            network=model.network.config,
            seed=seed,
            variants=16,
            # The 64 instants are 1/60 s apart, so that a step can hold at most 16 that are at least 0.05 s apart.
            method=replace(settings.method, instants=16, min_gap=0.05),
            optimiser=replace(settings.optimiser, steps=STEPS),
        )
        train(settings, run, resume=True, progress=progress)
        after.append(evaluated(run, run / "test"))
    first = _found(before)
    made = provenance(command, capture, {})
    found = {
        "hit_at_1": _compared(before, after, lambda e: _found(e).hit_at_1) | {"chance": first.chance_at_1},
        "hit_at_5": _compared(before, after, lambda e: _found(e).hit_at_5) | {"chance": first.chance_at_5},
        **({} if before.pose is None else {name: _errors(before, after, unseeing, name) for name in ERRORS}),
        "tolerance_frames": TOLERANCE,
        "queries": first.queries,
        "gallery": first.gallery,
        "steps": STEPS,
        "command": command,
        "capture": capture.fingerprint,
        "date": made.date,
        "machine": made.machine,
        "versions": dict(made.versions),
    }
    write_json(options.json, found)


def _compared(
    before: Evaluation, after: Sequence[Evaluation], value: Callable[[Evaluation], float]
) -> dict[str, float | list[float]]:
    values = [value(evaluation) for evaluation in after]
    return {"before": value(before), "after": sum(values) / len(values), "after_seeds": values}


def _found(evaluation: Evaluation) -> InstantRetrieval:
    assert evaluation.retrieval is not None
    assert evaluation.retrieval.same_instant is not None
    return evaluation.retrieval.same_instant


def _errors(
    before: Evaluation, after: Sequence[Evaluation], unseeing: Evaluation | None, name: str
) -> dict[str, float | list[float]]:
    def error(evaluation: Evaluation) -> float:
        assert evaluation.pose is not None
        return float(getattr(evaluation.pose.over_poses, name))

    return _compared(before, after, error) | ({} if unseeing is None else {"mean_pose": error(unseeing)})


if __name__ == "__main__":
    main()
