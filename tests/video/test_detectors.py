import os
import re
from pathlib import Path
from typing import Any
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tflite_writing import answering, write_constant_network
from torchvision.models import get_model

from mcss.errors import SourceError, WeightsError
from mcss.video.detectors import BlazePoseDetector, PersonDetector, TorchvisionDetector, person_detector

IMAGE = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)


@pytest.fixture(scope="module")
def ssdlite() -> dict[str, torch.Tensor]:
    """Write random weights with the names of torchvision's release, but set so that everything found is a person."""
    torch.manual_seed(0)
    net = get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    state: dict[str, torch.Tensor] = net.state_dict()
    for name, bias in state.items():
        if re.fullmatch(r"head\.classification_head\.module_list\.\d\.1\.bias", name):
            bias.view(-1, 91)[:, 1] += 12
    return state


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_torchvision_detector_loads_strictly_and_finds_people_within_the_image(
    suffix: str, ssdlite: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / f"ssdlite{suffix}"
    if suffix == ".pth":
        torch.save(ssdlite, path)
    else:
        save_file(ssdlite, path)
    detector = person_detector("ssdlite320_mobilenet_v3_large", path)
    assert isinstance(detector, TorchvisionDetector)
    assert isinstance(detector, PersonDetector)
    loaded = detector._net.state_dict()
    assert all(torch.equal(loaded[name].cpu(), value) for name, value in ssdlite.items())
    one, other = detector.detect([IMAGE, np.ascontiguousarray(IMAGE[:, :80])])
    assert len(one.boxes) == len(one.scores) > 0
    for found, width in ((one, 200), (other, 80)):
        assert (found.scores >= 0.5).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [width, 120, width, 120]).all()
    assert detector.detect([]) == []


def test_what_is_not_a_person_is_not_found(ssdlite: dict[str, torch.Tensor], tmp_path: Path) -> None:
    dogs = {name: value.clone() for name, value in ssdlite.items()}
    for name, bias in dogs.items():
        if re.fullmatch(r"head\.classification_head\.module_list\.\d\.1\.bias", name):
            bias.view(-1, 91)[:, 18] += 24
    torch.save(dogs, tmp_path / "dogs.pth")
    (found,) = person_detector("ssdlite320_mobilenet_v3_large", tmp_path / "dogs.pth").detect([IMAGE])
    assert found.boxes.shape == (0, 4)


class _Trap:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_files_that_are_not_there_hold_other_weights_or_code_are_refused(
    ssdlite: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    name = "ssdlite320_mobilenet_v3_large"
    with pytest.raises(WeightsError, match=r"--detector-weights .*nowhere\.pth: no such file"):
        person_detector(name, tmp_path / "nowhere.pth")
    other = dict(ssdlite)
    other.pop("backbone.features.0.0.0.weight")
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=rf"not the weights of {name}: 1 tensors missing .* another --find"):
        person_detector(name, tmp_path / "other.pth")
    torch.save({"weight": _Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="not readable as plain weights"):
        person_detector(name, tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_hub_that_cannot_be_reached_is_an_error_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(SourceError, match=r"could not be downloaded .*Name or service.*--detector-weights FILE"):
        person_detector("ssdlite320_mobilenet_v3_large")


def test_blazepose_gives_the_square_around_the_circle_that_its_points_span(tmp_path: Path) -> None:
    # An image of 448 × 224 is halved and placed 56 pixels below the upper edge of the network's input.
    path = answering(tmp_path / "pose_detection.tflite", [(3, 3, 50, 3), (3, 6, 40, 2), (3, 5, 46, -1)])
    detector = person_detector("blazepose", path)
    assert isinstance(detector, BlazePoseDetector)
    (found,) = detector.detect([np.zeros((224, 448, 3), np.uint8)])
    np.testing.assert_allclose(found.boxes, [[124, 12, 324, 212], [336, 32, 448, 192]], atol=1e-3)
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp([-3.0, -2.0])), atol=1e-6)


def test_blazepose_counts_one_person_once_and_nobody_as_nobody(tmp_path: Path) -> None:
    twice = answering(tmp_path / "twice.tflite", [(3, 3, 50, 1), (2, 3, 55, 3)])
    assert len(person_detector("blazepose", twice).detect([IMAGE])[0].boxes) == 1
    nobody = answering(tmp_path / "nobody.tflite", [])
    assert person_detector("blazepose", nobody).detect([IMAGE])[0].boxes.shape == (0, 4)


def test_blazepose_without_its_file_or_with_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"--detector-weights must name .*pose_detection\.tflite.*real_footage"):
        person_detector("blazepose")
    with pytest.raises(WeightsError, match="no such file; expected pose_detection"):
        person_detector("blazepose", tmp_path / "nowhere.tflite")
    cv2.imwrite(str(tmp_path / "image.png"), IMAGE)
    with pytest.raises(WeightsError, match=r"image\.png: LiteRT cannot read it"):
        person_detector("blazepose", tmp_path / "image.png")
    other = write_constant_network(tmp_path / "o.tflite", (1, 64, 64, 3), [np.zeros((1, 10), np.float32)])
    with pytest.raises(WeightsError, match=r"got a network that maps \[\(1, 64, 64, 3\)\] to \[\(1, 10\)\]"):
        person_detector("blazepose", other)
