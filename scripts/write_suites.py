"""Write the table of what `make torture`, `make fuzz` and `make siege` counted into docs/reliability.md.

python scripts/write_suites.py
"""

import json
from pathlib import Path
from typing import Any

from write_table import write_between

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Read the results that there are, and write the table."""
    lines = ["| suite | what it did | how that was taken |", "|---|---|---|"]
    for name, row in (("torture", torture), ("fuzz", fuzz), ("siege", siege)):
        path = DOCS / "results" / f"{name}.json"
        if path.exists():
            lines.append(row(json.loads(path.read_text(encoding="utf-8"))))
    write_between(DOCS / "reliability.md", "suites", "\n".join(lines))


def torture(told: dict[str, Any]) -> str:
    """Return the row of the kills."""
    did = f"{told['kills']:,} kills in {told['rounds']:,} rounds of {len(told['verbs'])} commands, seed {told['seed']}"
    ended = f"{told['finished']:,} finished, {told['identical']:,} identical, {told['lost']:,} at fault"
    return f"| `make torture` | {did} | {ended} |"


def fuzz(told: dict[str, Any]) -> str:
    """Return the row of the mangled files."""
    bad = ", ".join(
        f"{told[kind]:,} {kind.replace('_', ' ')}" for kind in ("raw", "tracebacks", "hangs", "crashes", "heavy")
    )
    return (
        f"| `make fuzz` | {told['files']:,} mangled files, {len(told['readers'])} readers, seed {told['seed']} | "
        f"{told['own_error']:,} own errors, {told['accepted']:,} read; {bad} |"
    )


def siege(told: dict[str, Any]) -> str:
    """Return the row of the hostile requests."""
    did = f"{told['requests']:,} hostile requests, {told['slow_visitors']:,} slow visitors, seed {told['seed']}"
    bad = f"{told['crashes']:,} crashes, {told['server_errors']:,} server errors, {told['visitors_files']:,} files kept"
    served = f"{told['others_served']:,} of {told['others_asked']:,} others served"
    return f"| `make siege` | {did} | {bad}; {told['given_up']:,} slow visitors given up, {served} |"


if __name__ == "__main__":
    main()
