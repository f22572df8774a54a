import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.writer import CaptureWriter
from mcss.inference.rerun_view import show_in_rerun


def test_a_scene_is_written_for_the_viewer(tiny_capture: Capture, tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    show_in_rerun(tiny_capture, tiny_capture.instants().take(np.array([0, 5, 70])), tmp_path / "new" / "scene.rrd")
    written = (tmp_path / "new" / "scene.rrd").read_bytes()
    assert written[:3] == b"RRF"
    for place in (b"world/person", b"world/cameras/4/image"):
        assert place in written
    assert b"images/4" not in written


def test_views_without_a_camera_are_shown_beside_the_scene(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    writer = CaptureWriter.open(tmp_path / "c", info=INFO)
    writer.append([type(f)(**{**vars(f), "camera": None, "pose": None}) for f in stick_part(0, 0, instants=2)])
    capture = writer.finish()
    show_in_rerun(capture, capture.instants(), tmp_path / "scene.rrd")
    written = (tmp_path / "scene.rrd").read_bytes()
    assert b"images/4" in written
    assert b"world/cameras" not in written


def test_without_the_viewer_the_extra_is_named(tiny_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "rerun":
            raise ModuleNotFoundError(name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'mcss\[rerun\]'"):
        show_in_rerun(tiny_capture, tiny_capture.instants().take(np.array([0])))


def test_a_scene_goes_into_an_rrd_file_only(tiny_capture: Capture) -> None:
    with pytest.raises(ValueError, match=r"expected a file that ends in \.rrd, got sheet\.jpg"):
        show_in_rerun(tiny_capture, tiny_capture.instants(), Path("sheet.jpg"))
