"""Write the table of what `make torture`, `fuzz`, `siege` and `cluster` counted into docs/reliability.md.

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
    for name, row in (("torture", torture), ("fuzz", fuzz), ("siege", siege), ("ddp", ddp), ("ray", ray)):
        path = DOCS / "results" / f"{name}.json"
        if path.exists():
            lines.append(row(json.loads(path.read_text(encoding="utf-8"))))
    write_between(DOCS / "reliability.md", "suites", "\n".join(lines))


def torture(told: dict[str, Any]) -> str:
    """Return the row of the kills."""
    did = f"{told['kills']:,} kills in {told['rounds']:,} rounds of {len(told['verbs'])} commands, seed {told['seed']}"
    ended = f"{told['finished']:,} finished, {told['identical']:,} identical, {told['lost']:,} at fault"
    other = told["other_accidents"]
    return (
        f"| `make torture` | {did} | {ended} |\n"
        f"| | {other['happened']:,} other accidents: Ctrl-C, two writers, full disk, read-only folder, few files, "
        "little memory, just enough of both, a loss that is not finite | "
        f"{other['clean']:,} ended in a result or in words, {other['identical']:,} identical afterwards, "
        f"{other['at_fault']:,} at fault |"
    )


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


def ddp(told: dict[str, Any]) -> str:
    """Return the row of the training in two processes."""
    kills, starts = ([told[name] for name in told if name.startswith(word)] for word in ("killed", "started"))
    by = ", ".join(name.removeprefix("started by ") for name in told if name.startswith("started"))
    did = (
        f"{told['resumed']['methods']} methods trained in {told['processes']} processes together, and resumed; each "
        f"process killed; started by {by}"
    )
    ended = (
        f"{told['resumed']['identical']} of {told['resumed']['methods']} resumed to identical weights, as did "
        f"{sum(kill['identical'] for kill in kills)} of {len(kills)} runs after a kill, and "
        f"{sum(start['identical'] for start in starts)} of {len(starts)} started by others; "
        f"{sum(kill['tracebacks'] for kill in kills)} tracebacks"
    )
    return f"| `make cluster` | {did} | {ended} |"


def ray(told: dict[str, Any]) -> str:
    """Return the row of the cluster."""
    works = [told[name] for name in ("import", "index", "evaluate")]
    killed = sum(work["killed"] for work in works)
    did = f"import, index and evaluate on a Ray cluster of two nodes, {killed} workers killed"
    ended = (
        f"{sum(work['identical'] for work in works)} of {len(works)} identical to one process, "
        f"{sum(work['twice'] for work in works)} rows twice"
    )
    return f"| `make cluster` | {did} | {ended} |"


if __name__ == "__main__":
    main()
