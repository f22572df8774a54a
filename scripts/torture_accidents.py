"""Accidents that `torture.py` lets happen to commands, other than kills: each ends in a result or in clean words.

A full disk and a folder that nobody can write are small file systems in memory, where the user may mount one; else
limits of the size of files and access rights stand for them.
"""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcss.processes import LEAST_ADDRESSES, LEAST_FILES
from torture_verbs import TRAIN, Verb

HANDLES = 24
"""Files that a command may have open at a time where handles are too few."""

MEMORY = 200_000_000
"""Bytes of addresses beyond those of the loaded packages where memory is too little."""

SPARE = 16_000_000
"""Bytes of addresses that a command takes before it looks whether the rest is enough."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    words: str

    @property
    def is_clean(self) -> bool:
        """Whether it finished, or ended with an error in words, or in words after Ctrl-C."""
        said = "Stopped." if self.code == 130 else "Error"
        if self.code == -signal.SIGINT:  # it came after the last words
            return "Traceback" not in self.words
        return self.code == 0 or (self.code in (1, 2, 130) and "Traceback" not in self.words and said in self.words)

    def told(self, *folders: Path) -> dict[str, Any]:
        """Return what the results say of it, without the names of these folders."""
        words = self.words
        for folder in folders:
            words = words.replace(str(folder), "…")
        return {"code": self.code, "clean": self.is_clean, "said": "" if self.code == 0 else words[-400:]}


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


Start = Callable[..., tuple[list[Outcome], float]]
"""Starts a command with its temporary files and caches within a folder, under limits and until a signal if they are
given; see `torture_forks.Forks.run`. Returns how each of its writers has ended, and after how many seconds."""


def left(place: Path) -> list[str]:
    """What is neither result nor cache: temporary files, half files and locks. PyTorch keeps a cache among them."""
    found = [path for path in (place / "tmp").iterdir() if not path.name.startswith("torchinductor_")]
    found += [path for path in place.rglob("*") if path.name.startswith(".") or path.name.endswith(".part")]
    return sorted(str(path.relative_to(place)) for path in found)


def accidents(
    verb: Verb, given: Path, whole: dict[str, Any], start: Start, known: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Let the accidents that are not known yet happen to a command; yields each with what happened.

    After each accident the same command has to finish, with the results of an undisturbed one.
    """

    def hindered(place: Place, **how: Any) -> dict[str, Any]:
        arguments = verb.arguments(given, place.folder)
        outcomes, _ = start(arguments, place.folder, **{"processors": 1, **how})
        told = min(outcomes, key=lambda outcome: (outcome.is_clean, -outcome.code)).told(place.folder, given)
        place.enlarge()
        after = start(arguments, place.folder, processors=1)[0][0]
        if after.code:
            return {**told, "fault": f"the same command ended with {after.code}: {after.words[-1000:]}"}
        told["identical"] = verb.digest(place.folder) == whole["digest"]
        if not told["clean"]:
            told["fault"] = "no clean words"
        elif not told["identical"]:
            told["fault"] = "other results"
        elif remains := left(place.folder):
            told["fault"] = f"left: {remains[:5]}"
        return told

    def usual(**how: Any) -> dict[str, Any]:
        with ordinary() as place:
            return hindered(place, **how)

    def full_disk() -> dict[str, Any]:
        with full(whole["bytes"] // 2) as place:
            on_disk = os.path.ismount(place.folder.parent)
            return hindered(place, file_bytes=None if on_disk else whole["bytes"] // 8)

    def read_only() -> dict[str, Any]:
        with unwritable() as place:
            return hindered(place)

    happen: dict[str, Callable[[], dict[str, Any]]] = {
        "Ctrl-C": lambda: usual(after=whole["seconds"] / 4, by=signal.SIGINT, processors=None),
        "two writers": lambda: usual(writers=2),
        "full disk": full_disk,
        "read-only folder": read_only,
        "few file handles": lambda: usual(handles=HANDLES, processors=None),
        "little memory": lambda: usual(memory=MEMORY),
        "just enough": lambda: usual(memory=LEAST_ADDRESSES + SPARE, handles=LEAST_FILES),
    }
    if verb.name == "train":
        happen = {"a loss that is not finite": lambda: diverging(given, start), **happen}
    for kind, act in happen.items():
        if kind not in known:
            yield kind, act()


def diverging(given: Path, start: Start) -> dict[str, Any]:
    """Train at a rate at which the loss becomes infinite."""
    with ordinary() as place:
        out = place.folder
        options = ["train", "mcss", "--capture", f"{given}/capture", "--out", f"{out}/run", *TRAIN, "--lr", "1e30"]
        outcome = start(options, out)[0][0]
        kept = [path.name for path in (out / "run").glob("batch-*.safetensors") if str(path) in outcome.words]
        told = {**outcome.told(out, given), "kept": kept}
        is_right = outcome.code == 1 and outcome.is_clean and kept
        return told if is_right else {**told, "fault": "no batch kept, or no words"}
