"""What the pages say about the tables is what the tables say."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from write_findings import FINDINGS, Measured, of, rows_of  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = re.compile(r"<!-- ([\w-]+):begin -->(.*?)<!-- \1:end -->", re.DOTALL)
CLAIM = re.compile(r"\b(better|worse|lower|higher|ahead|behind|more accurate|gains?|against)\b|(as|than) in the paper")
MEASURE = re.compile(r"\d+\.\d (mm|against)|\d mm|MPJPE.*\d+\.\d")


@pytest.mark.parametrize("name", FINDINGS)
def test_a_finding_stands_on_its_page_as_its_rows_have_it(name: str) -> None:
    page, text = FINDINGS[name]
    marked = dict(MARKED.findall((ROOT / page).read_text(encoding="utf-8")))
    assert marked[name].strip() == text(rows_of), "run scripts/write_findings.py"


def sentences(page: str) -> Iterator[str]:
    """The sentences of a page that no program wrote."""
    by_hand = re.sub(r"```.*?```", "", MARKED.sub("", page), flags=re.DOTALL)
    for paragraph in re.split(r"\n\s*\n|\n(?=[*|])", by_hand):
        yield from re.split(r"(?<=\.) ", " ".join(paragraph.split()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_compares_measured_errors_in_words_of_its_own(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [each for each in sentences(text) if CLAIM.search(each) and MEASURE.search(each)] == []


def test_comparisons_in_free_prose_are_found() -> None:
    claims = (
        "A costs little.\n\nIn PA-MPJPE it is behind (120.9). Views help: 88.0 against 113.1.\n\n* It is 3 mm better."
    )
    assert len([each for each in sentences(claims) if CLAIM.search(each) and MEASURE.search(each)]) == 3


def test_a_difference_is_told_as_clear_only_beyond_what_seeds_make() -> None:
    assert (
        Measured((100.0, 102.0)).against(Measured((120.0, 122.0))) == "101.0 ± 1.4 against 121.0 ± 1.4 mm (17 % lower)"
    )
    assert (
        Measured((100.0, 110.0))
        .against(Measured((101.0, 111.0)))
        .endswith("(1 % lower; within the variation between seeds)")
    )
    assert Measured((104.0,)).against(Measured((100.0, 101.0))).endswith("higher; one seed cannot tell)")
    assert Measured((100.0,)).against(Measured((100.0,))).endswith("(the same)")


def test_a_finding_without_rows_is_refused() -> None:
    with pytest.raises(AssertionError, match="no row with n_mpjpe"):
        of([{"system": "mcss", "labels": "S1", "n_mpjpe": None}], system="mcss")
