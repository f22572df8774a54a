"""Install mcss into new environments and write how much room they take into README's table.

    python scripts/measure_install.py                     # PyTorch for CPUs, and as PyPI has it for Linux
    python scripts/measure_install.py cpu --cpu-torch "torch==2.13.0+cpu torchvision"      # another place or version

The wheel is built from this clone. An environment gets the core first and is measured, then every extra. What was
measured before is kept in `docs/results/install.json`, so that one flavour can be measured alone. Each takes minutes.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Literal, NamedTuple

from mcss.files import write_json
from write_table import write_between

README = Path("README.md")
RESULT = Path("docs/results/install.json")

Flavour = Literal["cpu", "cuda"]
TITLES: dict[Flavour, str] = {"cpu": "CPU only", "cuda": "with CUDA, for NVIDIA GPUs"}
HOW: dict[Flavour, str] = {
    "cpu": "`pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu` first",
    "cuda": "the default on Linux",
}


class Sizes(NamedTuple):
    """What a flavour takes on disk, in GB of 10⁹ bytes."""

    core: float
    all: float
    torch: str
    date: str


def main() -> None:
    """Measure the flavours asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flavours", nargs="*", choices=[*TITLES, []], help="default: all")
    parser.add_argument("--cpu-torch", default="torch torchvision --index-url https://download.pytorch.org/whl/cpu")
    parser.add_argument("--environments", type=Path, help="where to make and keep them (default: a temporary folder)")
    options = parser.parse_args()
    measured = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        place = options.environments or Path(temporary)
        subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", temporary, "."], check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        for flavour in options.flavours or TITLES:
            torch = shlex.split(options.cpu_torch) if flavour == "cpu" else []
            measured[flavour] = sizes(place / flavour, wheel, torch)._asdict()
    write_json(RESULT, measured)
    write_between(
        README, "install", table({flavour: Sizes(**measured[flavour]) for flavour in TITLES if flavour in measured})
    )


def sizes(environment: Path, wheel: Path, torch: list[str]) -> Sizes:
    """Make an environment, install the core and then everything, and measure after each."""
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"

    def install(*what: str) -> float:
        subprocess.run([python, "-m", "pip", "install", "--no-cache-dir", "--quiet", *what], check=True)
        return gigabytes(environment)

    if torch:
        install(*torch)
    core = install(str(wheel))
    everything = install(f"{wheel}[all]")
    version = subprocess.check_output([python, "-c", "import torch; print(torch.__version__)"], text=True).strip()
    return Sizes(core, everything, version, str(date.today()))


def gigabytes(folder: Path) -> float:
    """Return the room that the files of a folder take on disk, as `du` counts it."""
    kilobytes = subprocess.check_output(["du", "--summarize", "--block-size=1000", folder], text=True).split()[0]
    return round(int(kilobytes) / 1e6, 1)


def table(rows: dict[Flavour, Sizes]) -> str:
    """Return README's table."""
    lines = ["| | core, on disk | with `[all]` | |", "|---|---|---|---|"]
    lines += [f"| {TITLES[f]} | {size.core:.1f} GB | {size.all:.1f} GB | {HOW[f]} |" for f, size in rows.items()]
    versions = " and ".join(sorted({size.torch for size in rows.values()}))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    newest = max(size.date for size in rows.values())
    return "\n".join(
        [*lines, "", f"Measured in new environments on {newest} (Linux x86_64, Python {version}, PyTorch {versions})."]
    )


if __name__ == "__main__":
    main()
