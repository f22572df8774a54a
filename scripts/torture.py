"""Kill mcss at random moments, run the same command again, and compare: docs/results/torture.json.

After each kill (signal 9) the same command must finish, with the same tables and weights as an undisturbed run, and
leave nothing behind: no half files, locks, temporary files or worker processes. The same command goes on where it was
stopped; a kill is determined by its number and the seed. Other accidents (`torture_accidents.py`) happen to every
command once.

python scripts/torture.py --minutes 20
"""

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcss.files import folder_bytes, write_json
from torture_accidents import Outcome, accidents, ended
from torture_verbs import MCSS, ROOT, VERBS, Verb, prepare

MARK = "MCSS_TORTURE"
KINDS = ("Ctrl-C", "two writers", "full disk", "read-only folder", "few file handles", "little memory")
"""The accidents of every command."""


def begin(
    arguments: list[str], place: Path, limit: Callable[[], None] | None = None, token: str = ""
) -> "subprocess.Popen[str]":
    """Start a command whose temporary files and caches lie within a folder."""
    variables = {"TMPDIR": f"{place}/tmp", "MCSS_CACHE": f"{place}/cache", "OMP_NUM_THREADS": "1", "COLUMNS": "1000"}
    for folder in ("tmp", "cache"):
        try:
            (place / folder).mkdir(parents=True, exist_ok=True)
        except OSError:  # read-only or full: the command has to say so
            continue
    return subprocess.Popen(
        [MCSS, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **variables, MARK: token},
        preexec_fn=limit,
    )


def killed(arguments: list[str], place: Path, token: str, after: float) -> bool:
    """Run a command, and kill it after some seconds; False if it was done by then."""
    process = begin(arguments, place, token=token)
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
    code = process.wait()  # without reading on: workers that live on would hold the pipe
    if process.stdout is not None:
        process.stdout.close()
    return code == -signal.SIGKILL


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
    """Kill a verb five to seven times and finish it; returns what happened."""
    kills = []
    with tempfile.TemporaryDirectory(prefix="mcss-torture-") as folder:
        place = Path(folder)
        arguments = verb.arguments(given, place)
        for _ in range(chance.choice((5, 6, 7))):
            moment = whole["seconds"] * chance.uniform(0.05, 1.0)
            kills.append({"after": round(moment, 2), "killed": killed(arguments, place, token, moment)})
            if workers := survivors(token):
                return {"kills": kills, "fault": f"workers {workers} go on"}
        begun = time.monotonic()
        last = ended(begin(arguments, place, token=token))
        told: dict[str, Any] = {"kills": kills, "seconds": round(time.monotonic() - begun, 1)}
        if last.code:
            return {**told, "fault": f"the same command ended with {last.code}: {last.words[-1500:]}"}
        told["identical"] = verb.digest(place) == whole["digest"]
        if not told["identical"]:
            told["fault"] = "other results"
        elif remains := left(place):
            told["fault"] = f"left: {remains[:5]}"
        return told


def undisturbed(verb: Verb, given: Path) -> dict[str, Any]:
    """Run a verb as it should run; returns its seconds, its results and the bytes that it writes.

    They are kept with the inputs.
    """
    kept = given / f"{verb.name}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    with tempfile.TemporaryDirectory(prefix="mcss-torture-") as folder:
        place, begun = Path(folder), time.monotonic()
        done: Outcome = ended(begin(verb.arguments(given, place), place))
        if done.code:
            raise SystemExit(f"{verb.name}: not even undisturbed: {done.words}")
        seconds = time.monotonic() - begun
        write_json(kept, {"seconds": seconds, "digest": verb.digest(place), "bytes": folder_bytes(place)})
    return undisturbed(verb, given)


def main() -> None:
    """Torture all verbs in turn until the time is over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=4, help="of each verb, those of earlier calls included")
    parser.add_argument("--only", nargs="*", default=[], help="names of verbs")
    parser.add_argument("--no-accidents", action="store_true", help="kills only")
    parser.add_argument("--inputs", type=Path, help="keep the inputs in this folder")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "torture.json")
    given = parser.parse_args()
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    known = known if known.get("seed") == given.seed else {}
    rounds: dict[str, list[dict[str, Any]]] = known.get("verbs", {})
    happened: dict[str, dict[str, Any]] = known.get("accidents", {})
    spent, start = known.get("seconds", 0.0), time.monotonic()
    print(f"seed {given.seed}", flush=True)

    def is_over() -> bool:
        write(given.out, given.seed, spent + time.monotonic() - start, rounds, happened)
        return time.monotonic() - start > 60 * given.minutes

    with tempfile.TemporaryDirectory(prefix="mcss-torture-") as own:
        inputs = given.inputs or Path(own)
        chosen = [verb for verb in VERBS if not given.only or verb.name in given.only]
        prepare(inputs)
        for number in range(given.rounds):
            for verb in chosen:
                kills = rounds.setdefault(verb.name, [])
                if len(kills) <= number:
                    chance = random.Random(f"{given.seed}/{verb.name}/{number}")
                    token = f"{os.getpid()}-{verb.name}-{number}"
                    kills.append(torment(verb, inputs, chance, token, undisturbed(verb, inputs)))
                    print(verb.name, number, kills[-1], flush=True)
                    if is_over():
                        return
            for verb in [] if given.no_accidents else chosen:
                named = happened.setdefault(verb.name, {})
                if set(KINDS) <= set(named):
                    continue
                for kind, told in accidents(verb, inputs, undisturbed(verb, inputs), begin, set(named)):
                    named[kind] = told
                    print(verb.name, kind, told, flush=True)
                    if is_over():
                        return


def write(
    out: Path,
    seed: int,
    seconds: float,
    rounds: dict[str, list[dict[str, Any]]],
    happened: dict[str, dict[str, Any]],
) -> None:
    """Write the counts, every round and every accident."""
    every = [one for verb in rounds.values() for one in verb]
    others = [one for verb in happened.values() for one in verb.values()]
    result = {
        "seed": seed,
        "seconds": round(seconds, 1),
        "kills": sum(kill["killed"] for one in every for kill in one["kills"]),
        "rounds": len(every),
        "finished": sum("seconds" in one and not one.get("fault", "").startswith("the same") for one in every),
        "identical": sum(one.get("identical", False) for one in every),
        "lost": sum("fault" in one for one in every),
        "other_accidents": {
            "happened": len(others),
            "clean": sum(one["clean"] for one in others),
            "identical": sum(one.get("identical", True) for one in others),
            "at_fault": sum("fault" in one for one in others),
        },
        "verbs": rounds,
        "accidents": happened,
    }
    write_json(out, result)


if __name__ == "__main__":
    main()
