"""Run the commands of README's own-footage path as they stand there, and write how long each took beside it.

    python scripts/measure_walk.py FOOTAGE

FOOTAGE is laid out as README says: PERSON/SEQUENCE/CAMERA.mp4. The commands run in a new folder with an empty cache, so
that nothing is known from before.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from mcss.data.capture import Capture
from mcss.data.provenance import describe_machine
from write_table import write_between

README = Path("README.md")
_LINE = re.compile(r"^(mcss .*?)(\s+# )(.+?): (.*)$")


def main() -> None:
    """Read the commands, run each, and write the block again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("footage", type=Path)
    options = parser.parse_args()
    block = README.read_text(encoding="utf-8").split("<!-- footage:begin -->")[1].split("<!-- footage:end -->")[0]
    _, commands, _ = block.split("```")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "footage").symlink_to(options.footage.resolve())
        lines = [timed(line, work) for line in commands.strip().splitlines()]
        images = len(Capture.open(work / "captures" / "mine"))
    about = f"The times are of {images:,} images, measured on {date.today()} ({describe_machine()})."
    write_between(README, "footage", "\n".join(["```", *lines, "```", "", about]))


def timed(line: str, work: Path) -> str:
    """Run the command of a line, if it has one, and return the line with the time that it took."""
    found = _LINE.match(line)
    if found is None:
        return line
    command, gap, _, text = found.groups()
    place = {"MCSS_CACHE": str(work / "cache"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    begun = time.monotonic()
    subprocess.run(shlex.split(command), cwd=work, env={**os.environ, **place}, check=True)
    minutes, seconds = divmod(round(time.monotonic() - begun), 60)
    return f"{command}{gap}{f'{minutes} min ' if minutes else ''}{seconds} s: {text}"


if __name__ == "__main__":
    main()
