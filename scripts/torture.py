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
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from mcss.files import folder_bytes, write_json
from torture_accidents import Outcome, accidents, left
from torture_forks import Forks, Order
from torture_verbs import ROOT, VERBS, Verb, prepare

MARK = "MCSS_TORTURE"
KINDS = ("Ctrl-C", "two writers", "full disk", "read-only folder", "few file handles", "little memory", "just enough")
"""The accidents of every command."""

LONG = 8.0
"""A command that takes more processor time, in seconds, is killed less often in a round."""

HANG = 180.0
"""A command that takes more processor time, in seconds, is killed."""


def variables(place: Path, token: str = "") -> dict[str, str]:
    """Return the environment of a command whose temporary files and caches lie within a folder."""
    for folder in ("tmp", "cache"):
        try:
            (place / folder).mkdir(parents=True, exist_ok=True)
        except OSError:  # read-only or full: the command has to say so
            continue
    own = {"TMPDIR": f"{place}/tmp", "MCSS_CACHE": f"{place}/cache", "OMP_NUM_THREADS": "1", "COLUMNS": "1000"}
    return {**own, MARK: token}


def started(
    forks: Forks,
    arguments: list[str],
    place: Path,
    token: str = "",
    after: float | None = None,
    by: int = signal.SIGKILL,
    **how: Any,
) -> tuple[list[Outcome], float]:
    """Run a command; returns how each of its writers ended, and its seconds of processor time."""
    order = Order(arguments, variables(place, token), **how)
    codes, words, seconds = forks.run(order, HANG if after is None else after, by)
    return [Outcome(code, said) for code, said in zip(codes, words, strict=True)], seconds


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


def torment(verb: Verb, given: Path, seed: int, number: int, whole: dict[str, Any], forks: Forks) -> dict[str, Any]:
    """Kill a verb until it is done, at most six to nine times, and finish it; returns what happened.

    Early moments are more frequent, so that a command which goes on where it was does not end too soon. In the first of
    four rounds a verb has worker processes, whose start takes long, and is killed twice or three times, as are verbs
    that take long.
    """
    chance, token = random.Random(f"{seed}/{verb.name}/{number}"), f"{os.getpid()}-{verb.name}-{number}"
    processors = 1 if verb.workers and number % 4 else None
    has_workers = verb.workers and processors is None
    latest = whole["seconds"] * (2 if has_workers else 1)
    most = chance.choice((2, 3) if has_workers or whole["seconds"] > LONG else (6, 7, 8, 9))
    told: dict[str, Any] = {"kills": []}
    with tempfile.TemporaryDirectory(prefix="mcss-torture-") as folder:
        place = Path(folder)
        arguments = verb.arguments(given, place)
        for moment in [*(latest * chance.random() ** 2 for _ in range(most)), None]:
            (outcome,), seconds = started(forks, arguments, place, token, moment, processors=processors)
            if workers := survivors(token):
                return {**told, "fault": f"workers {workers} go on"}
            if outcome.code == -signal.SIGKILL and moment is not None:
                told["kills"].append(round(moment, 2))
                continue
            if outcome.code:
                words = outcome.words.replace(folder, "…")[-1500:]
                return {**told, "fault": f"the same command ended with {outcome.code}: {words}"}
            told["seconds"] = round(seconds, 1)
            break
        told["identical"] = verb.digest(place) == whole["digest"]
        if not told["identical"]:
            told["fault"] = "other results"
        elif remains := left(place):
            told["fault"] = f"left: {remains[:5]}"
        return told


def undisturbed_results(inputs: Path, name: str) -> Path:
    """Return where the results of a verb that nobody disturbed are kept."""
    return inputs / f"{name}.json"


def undisturbed(verb: Verb, given: Path, forks: Forks) -> dict[str, Any]:
    """Run a verb as it should run; returns its processor time, its results and the bytes that it writes.

    They are kept with the inputs.
    """
    kept = undisturbed_results(given, verb.name)
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    with tempfile.TemporaryDirectory(prefix="mcss-torture-") as folder:
        place = Path(folder)
        (done,), seconds = started(forks, verb.arguments(given, place), place, processors=1)
        if done.code:
            raise SystemExit(f"{verb.name}: not even undisturbed: {done.words}")
        write_json(kept, {"seconds": seconds, "digest": verb.digest(place), "bytes": folder_bytes(place)})
    return undisturbed(verb, given, forks)


def main() -> None:
    """Torture all verbs in turn until the time is over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=4, help="of each verb, those of earlier calls included")
    parser.add_argument("--only", nargs="*", default=[], help="names of verbs")
    parser.add_argument("--again", nargs="*", default=[], help="names of verbs that are done anew, as after a mend")
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
        for name in given.again:
            rounds.pop(name, None)
            happened.pop(name, None)
            undisturbed_results(inputs, name).unlink(missing_ok=True)
        prepare(inputs)
        forks = Forks()
        for number in range(given.rounds):
            for verb in chosen:
                kills = rounds.setdefault(verb.name, [])
                if len(kills) <= number:
                    whole = undisturbed(verb, inputs, forks)
                    kills.append(torment(verb, inputs, given.seed, number, whole, forks))
                    print(verb.name, number, kills[-1], flush=True)
                    if is_over():
                        return
            for verb in [] if given.no_accidents else chosen:
                named = happened.setdefault(verb.name, {})
                if set(KINDS) <= set(named):
                    continue
                whole = undisturbed(verb, inputs, forks)
                for kind, told in accidents(verb, inputs, whole, partial(started, forks), set(named)):
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
    """Write the counts, every round and every accident.

    Kills count as finished and identical where the same command then finished, and had the undisturbed results.
    """
    every = [one for verb in rounds.values() for one in verb]
    others = [one for verb in happened.values() for one in verb.values()]
    result = {
        "seed": seed,
        "seconds": round(seconds, 1),
        "kills": sum(len(one["kills"]) for one in every),
        "rounds": len(every),
        "finished": sum(len(one["kills"]) for one in every if "seconds" in one),
        "identical": sum(len(one["kills"]) for one in every if one.get("identical", False)),
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
