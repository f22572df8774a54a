"""Kill mcss at random moments, run the same command again, and compare: docs/results/torture.json.

After each kill (signal 9) the same command must finish, with the same tables and weights as an undisturbed run, and
leave nothing behind: no half files, locks, temporary files or worker processes. The same command goes on where it was
stopped; a kill is determined by its number and the seed.

python scripts/torture.py --minutes 20
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("", "video")]

MCSS = str(Path(sys.executable).with_name("mcss"))
MARK = "MCSS_TORTURE"
TRAIN = (
    *("--labels", "S1", "--steps", "12", "--backbone", "resnet18", "--weights", "random", "--image-size", "32"),
    *("--dim", "8", "--instants", "4", "--pose-images", "4", "--checkpoint-every", "2", "--log-every", "1"),
    *("--validate-every", "6", "--validation-instants", "4", "--resume"),
)


@dataclass(frozen=True)
class Verb:
    """A command that is killed."""

    name: str
    arguments: Callable[[Path, Path], list[str]]
    """Of the folder of inputs and that of outputs."""
    digest: Callable[[Path], str]
    """Identifies what it wrote to the folder of outputs, whatever order or time of day that depends on."""


def fingerprint(out: Path) -> str:
    """Of a capture."""
    from mcss.data.capture import Capture

    capture = Capture.open(out / "capture")
    return f"{capture.fingerprint} {len(capture)}"


def contents(*names: str) -> Callable[[Path], str]:
    """Of the bytes of files."""

    def digest(out: Path) -> str:
        return " ".join(hashlib.sha256((out / name).read_bytes()).hexdigest()[:16] for name in names)

    return digest


def rows(out: Path) -> str:
    """Of the entries of an index, in the order of their rows."""
    from mcss.search.index import PoseIndex

    table = PoseIndex.open(out / "index").table(["row", "view", "vector"]).sort_by("row")
    return f"{len(table)} {hashlib.sha256(json.dumps(table.to_pylist()).encode()).hexdigest()[:16]}"


def scores(out: Path) -> str:
    """Of the figures of an evaluation."""
    told = json.loads((out / "evaluation.json").read_text())
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


BUILD = ("--takes", "1", "--instants", "128")

VERBS = (
    Verb(
        "build",
        lambda _, out: ["synthetic", "build", f"{out}/capture", "--subjects", "3", "--size", "32", *BUILD],
        fingerprint,
    ),
    Verb(
        "import",
        lambda given, out: ["import", "videos", f"{given}/footage", f"{out}/capture", "--size", "32"],
        fingerprint,
    ),
    Verb(
        "train",
        lambda given, out: ["train", "mcss", "--capture", f"{given}/capture", "--out", f"{out}/run", *TRAIN],
        contents("run/model.safetensors"),
    ),
    Verb(
        "train with cached stages",
        lambda given, out: [
            *("train", "mcss", "--capture", f"{given}/capture", "--out", f"{out}/run", *TRAIN),
            *("--frozen-stages", "2", "--variants", "2"),
        ],
        contents("run/model.safetensors"),
    ),
    Verb("index", lambda given, out: ["index", f"{given}/capture", "-o", f"{out}/index"], rows),
    Verb(
        "select",
        lambda given, out: ["select", f"{given}/capture", "-o", f"{out}/few.csv", "--budget", "6", "--by", "pose"],
        contents("few.csv"),
    ),
    Verb(
        "evaluate",
        lambda given, out: [
            *("evaluate", f"{given}/run", "--capture", f"{given}/capture", "--out", f"{out}/report"),
            *("--json", f"{out}/evaluation.json"),
        ],
        scores,
    ),
    Verb(
        "predict",
        lambda given, out: [
            *("predict", f"{given}/footage", "-o", f"{out}/poses", "--fuse", "--formats", "csv", "--no-overlay"),
        ],
        lambda out: " ".join(
            hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted((out / "poses").rglob("*.csv"))
        ),
    ),
)


def prepare(given: Path, with_run: bool) -> None:
    """Write the inputs of all verbs; a trained run takes longest."""
    from filming import film

    from captures_for_tests import INFO, stick_parts
    from mcss.data.writer import CaptureWriter

    writer = CaptureWriter.open(given / "capture", info=INFO)
    for part in stick_parts():
        if (part[0].subject, part[0].sequence) not in writer.done():
            writer.append(part)
    writer.finish()
    for sequence in ("one", "two"):
        if not (given / "footage" / "S1" / sequence).exists():
            film(given / "footage" / "S1" / sequence)
    if not with_run:
        return
    command = ["train", "mcss", "--capture", f"{given}/capture", "--out", f"{given}/run", *TRAIN]
    subprocess.run([MCSS, *command], check=True, capture_output=True)


def environment(place: Path, token: str) -> dict[str, str]:
    """Of a command whose temporary files and caches lie within a folder."""
    for folder in ("tmp", "cache"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    return {**os.environ, MARK: token, "TMPDIR": f"{place}/tmp", "MCSS_CACHE": f"{place}/cache", "OMP_NUM_THREADS": "1"}


def run(arguments: list[str], place: Path, token: str, kill_after: float | None = None) -> tuple[int, float, str]:
    """Run a command, and kill it after some seconds if it is not done by then; returns its code, seconds and words."""
    begun = time.monotonic()
    with (
        (place / "words").open("w+") as words,
        subprocess.Popen([MCSS, *arguments], stdout=words, stderr=words, env=environment(place, token)) as process,
    ):
        try:
            code = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        words.seek(0)
        return code, time.monotonic() - begun, words.read()[-1500:]


def survivors(token: str, seconds: float = 30.0) -> list[int]:
    """Wait for the workers of a killed command to end, and return those that do not."""
    end = time.monotonic() + seconds
    while True:
        alive = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={token}\0".encode() in (process / "environ").read_bytes() + b"\0":
                    alive.append(int(process.name))
            except OSError:
                continue
        if not alive or time.monotonic() > end:
            return alive
        time.sleep(0.2)


def left(place: Path) -> list[str]:
    """What is neither result nor cache: temporary files, half files and locks. PyTorch keeps a cache among them."""
    found = [path for path in (place / "tmp").iterdir() if not path.name.startswith("torchinductor_")]
    found += [path for path in place.rglob("*") if path.name.endswith(".part") or path.name == ".writing"]
    return sorted(str(path.relative_to(place)) for path in found)


def torment(verb: Verb, given: Path, chance: random.Random, token: str, whole: dict[str, Any]) -> dict[str, Any]:
    """Kill a verb once or twice and finish it; returns what happened."""
    kills = []
    with tempfile.TemporaryDirectory(prefix="mcss-torture-") as folder:
        place = Path(folder)
        arguments = verb.arguments(given, place)
        for _ in range(chance.choice((1, 1, 2))):
            moment = whole["seconds"] * chance.uniform(0.05, 1.0)
            code, _, _ = run(arguments, place, token, moment)
            kills.append({"after": round(moment, 2), "killed": code == -signal.SIGKILL})
            workers = survivors(token)
            if workers:
                return {"kills": kills, "fault": f"workers {workers} go on"}
        code, seconds, words = run(arguments, place, token)
        told: dict[str, Any] = {"kills": kills, "seconds": round(seconds, 1)}
        if code:
            return {**told, "fault": f"the same command ended with {code}: {words}"}
        told["identical"] = verb.digest(place) == whole["digest"]
        if not told["identical"]:
            told["fault"] = "other results"
        elif remains := left(place):
            told["fault"] = f"left: {remains[:5]}"
        return told


def main() -> None:
    """Torture all verbs in turn until the time is over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=25, help="of each verb, those of earlier calls included")
    parser.add_argument("--only", nargs="*", default=[], help="names of verbs")
    parser.add_argument("--inputs", type=Path, help="keep the inputs in this folder")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "torture.json")
    given = parser.parse_args()
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    rounds: dict[str, list[dict[str, Any]]] = known.get("verbs", {}) if known.get("seed") == given.seed else {}
    spent, begun = (known.get("seconds", 0.0) if rounds else 0.0), time.monotonic()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mcss-torture-") as own:
        inputs = given.inputs or Path(own)
        chosen = [verb for verb in VERBS if not given.only or verb.name in given.only]
        prepare(inputs, with_run=any(verb.name == "evaluate" for verb in chosen))
        wholes: dict[str, dict[str, Any]] = {}
        while waiting := [verb for verb in chosen if len(rounds.setdefault(verb.name, [])) < given.rounds]:
            for verb in waiting:
                if verb.name not in wholes:
                    with tempfile.TemporaryDirectory(prefix="mcss-torture-") as folder:
                        place = Path(folder)
                        code, seconds, words = run(verb.arguments(inputs, place), place, "whole")
                        if code:
                            raise SystemExit(f"{verb.name}: not even undisturbed: {words}")
                        wholes[verb.name] = {"seconds": seconds, "digest": verb.digest(place)}
                number = len(rounds[verb.name])
                chance = random.Random(f"{given.seed}/{verb.name}/{number}")
                told = torment(verb, inputs, chance, f"{os.getpid()}-{verb.name}-{number}", wholes[verb.name])
                rounds[verb.name].append(told)
                print(verb.name, number, told, flush=True)
                write(given.out, given.seed, spent + time.monotonic() - begun, rounds)
                if time.monotonic() - begun > 60 * given.minutes:
                    return


def write(out: Path, seed: int, seconds: float, rounds: dict[str, list[dict[str, Any]]]) -> None:
    """Write the counts and every round."""
    from mcss.files import write_json

    every = [one for verb in rounds.values() for one in verb]
    result = {
        "seed": seed,
        "seconds": round(seconds, 1),
        "kills": sum(kill["killed"] for one in every for kill in one["kills"]),
        "rounds": len(every),
        "finished": sum("seconds" in one and not one.get("fault", "").startswith("the same") for one in every),
        "identical": sum(one.get("identical", False) for one in every),
        "lost": sum("fault" in one for one in every),
        "verbs": rounds,
    }
    write_json(out, result)


if __name__ == "__main__":
    main()
