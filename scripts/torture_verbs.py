"""The commands that `torture.py` kills and hinders: their arguments, and what identifies their results."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("", "video")]

MCSS = str(Path(sys.executable).with_name("mcss"))
TRAIN = (
    *(
        "--labels",
        "S1",
        "--steps",
        "12",
        "--backbone",
        "timm/test_efficientnet",
        "--weights",
        "random",
        "--image-size",
        "32",
    ),
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
    workers: bool = False
    """Whether it starts a process for each processor."""


def fingerprint(out: Path) -> str:
    """Of a capture, and whether files lie in it that do not belong to it."""
    import lance

    from mcss.data.capture import Capture

    capture = Capture.open(out / "capture")
    table = out / "capture" / "frames.lance"
    of_it = {file.path for piece in lance.dataset(str(table)).get_fragments() for file in piece.data_files()}
    others = {path.name for path in (table / "data").iterdir()} - of_it
    return f"{capture.fingerprint} {len(capture)} {len(others)} other files"


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


def table(out: Path) -> str:
    """Of the rows of a reproduced table, without how long their training took."""
    told = json.loads((out / "results" / "table1.json").read_text())["rows"]
    for row in told:
        for name in [name for name in row if "seconds" in name or "minutes" in name]:
            del row[name]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


BUILD = ("--takes", "1", "--instants", "128", "--views", "2", "--outfits", "1", "--no-new-motion")

VERBS = (
    Verb(
        "build",
        lambda _, out: ["synthetic", "build", f"{out}/capture", "--subjects", "3", "--size", "32", *BUILD],
        fingerprint,
        workers=True,
    ),
    Verb(
        "import",
        lambda given, out: ["import", "videos", f"{given}/footage", f"{out}/capture", "--size", "32"],
        fingerprint,
        workers=True,
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
    Verb(
        "adapt",
        lambda given, out: [
            *("adapt", f"{given}/capture", "--from", f"{given}/run", "--out", f"{out}/run", "--labels", "S1"),
            *("--steps", "6", "--variants", "2", "--hold-out", "0.3", "--resume"),
        ],
        contents("run/model.safetensors"),
    ),
    Verb(
        "index",
        lambda given, out: ["index", f"{given}/capture", "-o", f"{out}/index", "--run", f"{given}/run"],
        rows,
    ),
    Verb(
        "export",
        lambda given, out: ["export", f"{given}/run", "--format", "onnx", "-o", f"{out}/model.onnx"],
        contents("model.onnx"),
    ),
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
        workers=True,
    ),
    Verb(
        "reproduce",
        lambda given, out: [
            *("reproduce", "table1", "--capture", f"{given}/capture", "--out", f"{out}/results", "--steps", "2"),
            *("--seeds", "1", "--trials", "0", "--weights", "random"),
        ],
        table,
    ),
)


def prepare(given: Path) -> None:
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
    if (given / "run" / "model.safetensors").exists():
        return
    command = ["train", "mcss", "--capture", f"{given}/capture", "--out", f"{given}/run", *TRAIN]
    subprocess.run([MCSS, *command], check=True, capture_output=True)
