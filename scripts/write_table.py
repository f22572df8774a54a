"""Put a table that a program wrote into a page, between the marks with its name.

    python scripts/write_table.py README.md results results/table.md

replaces everything between ``<!-- results:begin -->`` and ``<!-- results:end -->``. Images beside the table's file are
found from the page.
"""

import argparse
import os
import re
import sys
from pathlib import Path


def main() -> None:
    """Write one table into one page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("name", help="of the marks")
    parser.add_argument("table", type=Path, help="Markdown file")
    options = parser.parse_args()
    beside = Path(os.path.relpath(options.table.parent, options.page.parent)).as_posix()
    text = re.sub(r"(!\[[^]]*\]\()(?!/|\w+:)", rf"\g<1>{beside}/", options.table.read_text(encoding="utf-8").strip())
    write_between(options.page, options.name, text)


def write_between(page: Path, name: str, text: str) -> None:
    """Replace everything between a page's begin and end marks."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, tail = rest.partition(end)
    if not found or not ended:
        sys.exit(f"{page}: expected the marks {begin} and {end}, in this order; put them where the table belongs")
    page.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
