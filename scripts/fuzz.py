"""Mangle files of every kind that mcss reads, and count how their readers take it: docs/results/fuzz.json.

Each file must end in the reader's own error, which names it, or be read: no traceback, no message without the file,
no crash, not 10 s of computing, and not 2 GB of memory. The same command goes on where it was stopped.

python scripts/fuzz.py --minutes 10
"""

import argparse
import json
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("", "sources", "video", "search")]

import fuzz_readers  # noqa: E402
from mcss.errors import MCSSError  # noqa: E402
from mcss.files import write_json  # noqa: E402

CPU_SECONDS, WALL_SECONDS, MEGABYTES = 10.0, 300.0, 2000
KINDS = ("own_error", "accepted", "raw", "tracebacks", "hangs", "crashes", "heavy")
CRAFTED = (
    b"", b"\0" * 100, b"[" * 100_000, b'{"a":' * 50_000, b"\xff" * 1000, b"null", b"[]", b"{}", b"1e999", b"\n" * 50,
    b"PK\x05\x06" + b"\0" * 18, b"\x89HDF\r\n\x1a\n" + b"\xff" * 200, b"\x80\x05." * 50, b'"' * 9999, b"=1," * 5000,
)  # fmt: skip
"""Whole files, whatever the reader expects."""

NUMBERS = (b"-1", b"0", b"1e400", b"nan", b"99999999999999999999", b"2147483648", "²".encode(), b"", b"'")
"""What takes the place of a number in a text."""


@dataclass
class Tally:
    """How a reader took its files."""

    files: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    faults: list[dict[str, Any]] = field(default_factory=list)


def mangled(data: bytes, chance: random.Random) -> bytes:
    """Damage the content of a file in one of the ways in which files are damaged, or made to do harm."""
    if chance.random() < 0.05 or not data:
        return chance.choice(CRAFTED)
    at = chance.randrange(len(data))
    length = min(chance.choice((1, 2, 4, 8, 64, 512, 4096)), len(data) - at)
    match chance.randrange(8):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes(length) + data[at + length :]
        case 2:
            return data[:at] + chance.randbytes(length) + data[at + length :]
        case 3:
            return data[:at] + data[at + length :]
        case 4:
            return data[:at] + data[at : at + length] * chance.choice((2, 3, 50)) + data[at + length :]
        case 5:
            extreme = chance.choice((b"\xff", b"\x7f", b"\x80")) * length
            return data[:at] + extreme + data[at + length :]
        case 6:
            digits = [i for i in range(max(0, at - 2000), min(len(data), at + 2000)) if 48 <= data[i] <= 57]
            if digits:
                first = last = chance.choice(digits)
                while last < len(data) and 48 <= data[last] <= 57:
                    last += 1
                return data[:first] + chance.choice(NUMBERS) + data[last:]
            return data[:at]
        case _:
            changed = bytearray(data)
            for _ in range(chance.choice((1, 3, 10))):
                changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            return bytes(changed)


def outcome(reader: "fuzz_readers.Reader", path: Path, named: str) -> tuple[str, str]:
    """Read a file, and say how that ended."""
    begun = time.process_time()
    try:
        reader.read(path)
        kind, message = "accepted", ""
    except (MCSSError, *reader.own) as error:
        kind, message = "own_error" if named in str(error) else "raw", str(error)
    except (ValueError, OSError) as error:
        kind, message = "raw", f"{type(error).__name__}: {error}"
    except BaseException as error:
        kind, message = "tracebacks", f"{type(error).__name__}: {error}"
    if time.process_time() - begun > CPU_SECONDS:
        kind = "hangs"
    elif resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MEGABYTES * 1000:
        kind = "heavy"
    return kind, message[:300]


def child(reader: "fuzz_readers.Reader", seed: int, first: int, count: int, out: int) -> None:
    """Mangle and read files in a process of its own; report each before and after."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    report = os.fdopen(out, "w", buffering=1)
    with tempfile.TemporaryDirectory(prefix="mcss-fuzz-") as place:
        target = reader.make(Path(place))
        files = sorted(path for path in target.rglob("*") if path.is_file()) if target.is_dir() else [target]
        reader.read(target)  # whole, it is read
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries say of damaged files
        for number in range(first, first + count):
            chance = random.Random(f"{seed}/{reader.name}/{number}")
            path = chance.choice(files)
            whole = path.read_bytes()
            path.write_bytes(mangled(whole, chance))
            print(json.dumps({"begun": number}), file=report)
            kind, message = outcome(reader, target, target.name)
            print(json.dumps({"number": number, "kind": kind, "message": message}), file=report)
            path.write_bytes(whole)


def fuzz(reader: "fuzz_readers.Reader", seed: int, count: int, tally: Tally) -> bool:
    """Let a process read `count` more files; one that dies or hangs costs that file alone.

    Returns:
        Whether the suite itself works for this reader.
    """
    end = tally.files + count
    while tally.files < end:
        inside, outside = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(inside)
            code = 1
            try:
                child(reader, seed, tally.files, end - tally.files, outside)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(outside)
        begun: int | None = None
        status = "crashes"
        with os.fdopen(inside, "rb", buffering=0) as report:  # a buffer would hold lines that select cannot see
            while True:
                if not select.select([report], [], [], WALL_SECONDS)[0]:
                    os.kill(process, signal.SIGKILL)
                    status = "hangs"
                    break
                line = report.readline()
                if not line:
                    break
                said = json.loads(line)
                if "begun" in said:
                    begun = said["begun"]
                    continue
                begun = None
                tally.files += 1
                tally.counts[said["kind"]] += 1
                if said["kind"] not in ("own_error", "accepted"):
                    tally.faults.append({"number": said["number"], "kind": said["kind"], "message": said["message"]})
        _, code = os.waitpid(process, 0)
        if begun is None and code and tally.files < end:
            print(f"{reader.name}: the file that is whole cannot be read, or the suite itself is at fault")
            return False
        if begun is not None:
            tally.files += 1
            tally.counts[status] += 1
            tally.faults.append({"number": begun, "kind": status, "message": f"status {code}"})
    return True


def main() -> None:
    """Fuzz all readers in turn until the time is over or each has had its files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--files", type=int, default=100, help="files of each reader, those of earlier calls included")
    parser.add_argument("--step", type=int, default=20, help="files of a reader before the next one's turn")
    parser.add_argument("--only", nargs="*", default=[], help="names of readers")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "fuzz.json")
    given = parser.parse_args()
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    before = known.get("readers", {}) if known.get("seed") == given.seed else {}
    tallies = {name: Tally(**told) for name, told in before.items()}
    seconds = known.get("seconds", 0.0) if before else 0.0
    begun = time.monotonic()
    print(f"seed {given.seed}")
    chosen = [one for one in fuzz_readers.READERS if not given.only or one.name in given.only]
    failed: list[str] = []
    while waiting := [one for one in chosen if tallies.setdefault(one.name, Tally()).files < given.files]:
        for reader in waiting:
            tally = tallies[reader.name]
            if not fuzz(reader, given.seed, min(given.step, given.files - tally.files), tally):
                chosen.remove(reader)
                failed.append(reader.name)
                continue
            result = {
                "seed": given.seed,
                "seconds": round(seconds + time.monotonic() - begun, 1),
                "files": sum(one.files for one in tallies.values()),
                **{kind: sum(one.counts[kind] for one in tallies.values()) for kind in KINDS},
                "readers": {name: vars(one) for name, one in tallies.items()},
            }
            write_json(given.out, result)
            print(f"{reader.name}: {tally.files} files, {len(tally.faults)} faults", flush=True)
            if time.monotonic() - begun > 60 * given.minutes:
                return
    if failed:
        raise SystemExit(f"the suite does not work for {', '.join(failed)}")


if __name__ == "__main__":
    main()
