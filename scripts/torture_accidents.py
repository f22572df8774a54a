"""Accidents that `torture.py` lets happen to commands, other than kills: each ends in a result or in clean words.

A full disk and a folder that nobody can write are small file systems in memory, where the user may mount one; else
limits of the size of files and access rights stand for them.
"""

import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture_verbs import TRAIN, Verb

SECONDS = 300
"""A command that goes on for longer hangs."""

HANDLES = 24
"""Files that a command may have open at a time where handles are few."""

MEMORY = 6_000_000_000
"""Bytes of address space where memory is little; loading the packages maps most of it."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    words: str

    @property
    def is_clean(self) -> bool:
        """Whether it finished, or ended with an error in words, or in words after Ctrl-C."""
        said = "Stopped." if self.code == 130 else "Error"
        return self.code == 0 or (self.code in (1, 2, 130) and "Traceback" not in self.words and said in self.words)

    def told(self) -> dict[str, Any]:
        """Return what the results say of it."""
        return {"code": self.code, "clean": self.is_clean, "said": "" if self.code == 0 else self.words[-400:]}


@dataclass(frozen=True)
class Place:
    """A folder for the results of a command, with its temporary files and caches."""

    folder: Path
    enlarge: Callable[[], None] = field(default=lambda: None)
    """Ends the lack of room, or of access."""


@contextmanager
def ordinary() -> Iterator[Place]:
    """Yield a folder as usual."""
    with tempfile.TemporaryDirectory(prefix="mcss-torture-") as folder:
        yield Place(Path(folder))


@contextmanager
def mounted(options: str, later: str) -> Iterator[Place | None]:
    """Yield a file system in memory with some options, which get others later; None where it cannot be mounted."""
    with tempfile.TemporaryDirectory(prefix="mcss-torture-") as folder:
        first = options.replace("ro", "rw")
        mount = ["mount", "-t", "tmpfs", "-o", first, "tmpfs", folder]
        if not hasattr(os, "geteuid") or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            yield None
            return
        try:
            (Path(folder) / "out").mkdir()
            _remount(folder, options)
            yield Place(Path(folder) / "out", lambda: _remount(folder, later))
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def _remount(folder: str, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


@contextmanager
def full(size: int) -> Iterator[Place]:
    """Yield a folder on a disk with room for some bytes, which gets more."""
    with mounted(f"size={max(size, 16_384)}", "size=2g") as place:
        if place is not None:
            yield place
            return
    with ordinary() as place:
        yield place


@contextmanager
def unwritable() -> Iterator[Place]:
    """Yield a folder that nobody can write, until they can."""
    with mounted("ro", "rw") as place:
        if place is not None:
            yield place
            return
    with ordinary() as place:
        place.folder.chmod(0o555)
        yield Place(place.folder, lambda: place.folder.chmod(0o755))


def limited(kind: int, value: int) -> Callable[[], None]:
    """Return a function that limits what a started process may take."""
    return lambda: resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


Begin = Callable[[list[str], Path, Callable[[], None] | None], "subprocess.Popen[str]"]
"""Starts a command whose temporary files and caches lie within a folder."""


def ended(process: "subprocess.Popen[str]") -> Outcome:
    """Wait for a command."""
    try:
        words, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        words, _ = process.communicate()
        return Outcome(-1, f"it hangs: {words}")
    return Outcome(process.returncode, words)


def accidents(
    verb: Verb, given: Path, whole: dict[str, Any], begin: Begin, known: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Let the accidents that are not known yet happen to a command; yields each with what happened.

    After each accident the same command has to finish, with the results of an undisturbed one.
    """

    def hindered(place: Place, limit: Callable[[], None] | None = None, writers: int = 1) -> dict[str, Any]:
        arguments = verb.arguments(given, place.folder)
        outcomes = [ended(process) for process in [begin(arguments, place.folder, limit) for _ in range(writers)]]
        worst = min(outcomes, key=lambda outcome: (outcome.is_clean, -outcome.code))
        place.enlarge()
        after = ended(begin(arguments, place.folder, None))
        told = worst.told()
        if after.code:
            return {**told, "fault": f"the same command ended with {after.code}: {after.words[-1000:]}"}
        told["identical"] = verb.digest(place.folder) == whole["digest"]
        if not told["clean"]:
            told["fault"] = "no clean words"
        elif not told["identical"]:
            told["fault"] = "other results"
        return told

    def interrupted() -> dict[str, Any]:
        with ordinary() as place:
            process = begin(verb.arguments(given, place.folder), place.folder, os.setsid)
            try:
                process.wait(whole["seconds"] / 2)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does, workers included
            outcome = ended(process)
            after = hindered(place)
            return {**after, **outcome.told(), **({} if outcome.is_clean else {"fault": "no clean words"})}

    def two_writers() -> dict[str, Any]:
        with ordinary() as place:
            return hindered(place, writers=2)

    def full_disk() -> dict[str, Any]:
        with full(whole["bytes"] // 2) as place:
            on_disk = os.path.ismount(place.folder.parent)
            return hindered(place, None if on_disk else limited(resource.RLIMIT_FSIZE, whole["bytes"] // 8))

    def read_only() -> dict[str, Any]:
        with unwritable() as place:
            return hindered(place)

    def few_handles() -> dict[str, Any]:
        with ordinary() as place:
            return hindered(place, limited(resource.RLIMIT_NOFILE, HANDLES))

    def little_memory() -> dict[str, Any]:
        with ordinary() as place:
            return hindered(place, limited(resource.RLIMIT_AS, MEMORY))

    def no_finite_loss() -> dict[str, Any]:
        with ordinary() as place:
            return diverging(given, place.folder, begin)

    happen = {
        "Ctrl-C": interrupted,
        "two writers": two_writers,
        "full disk": full_disk,
        "read-only folder": read_only,
        "few file handles": few_handles,
        "little memory": little_memory,
    }
    if verb.name == "train":
        happen = {"a loss that is not finite": no_finite_loss, **happen}
    for kind, act in happen.items():
        if kind not in known:
            yield kind, act()


def diverging(given: Path, out: Path, begin: Begin) -> dict[str, Any]:
    """Train at a rate at which the loss becomes infinite."""
    options = ["train", "mcss", "--capture", f"{given}/capture", "--out", f"{out}/run", *TRAIN, "--lr", "1e30"]
    outcome = ended(begin(options, out, None))
    kept = [path.name for path in (out / "run").glob("batch-*.safetensors") if str(path) in outcome.words]
    told = {**outcome.told(), "kept": kept}
    return told if outcome.code == 1 and outcome.is_clean and kept else {**told, "fault": "no batch kept, or no words"}
