import typing

import pytest

from mcss import progress

# The type checks of the tests need protocols that isinstance can check; importing captures applies them.
typing.runtime_checkable(progress.Progress)
typing.runtime_checkable(progress.Task)

from captures_for_tests import INFO, stick_parts  # noqa: E402
from mcss.captures import Capture, CaptureWriter  # noqa: E402


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """3 subjects × 2 sequences × 24 instants × 4 views of 64 px stick figures, finished."""
    writer = CaptureWriter.open(tmp_path_factory.mktemp("tiny_capture"), info=INFO)
    for part in stick_parts():
        writer.append(part)
    return writer.finish()
