import os
import re
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from mcss.errors import SourceError, WeightsError
from mcss.video.detectors import BlazePoseDetector, PersonDetector, TorchvisionDetector, person_detector
from mcss.video.person_network import RawDetections, anchors

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


class Told:
    """A network that answers for each image in turn: the column, row, radius in pixels (of 224) and logit of people."""

    def __init__(self, *answers: list[tuple[float, float, float, float]]) -> None:
        self._answers = list(answers)
        self.asked = 0

    def __call__(self, images: torch.Tensor) -> RawDetections:
        count, number = len(images), len(anchors())
        logits, hips = torch.full((count, number), -9.0), torch.zeros(count, number, 2)
        reach = torch.zeros(count, number, 2)
        for image in range(count):
            self.asked += 1
            for k, (x, y, radius, logit) in enumerate(self._answers.pop(0) if self._answers else []):
                anchor = 28 * 28 * 2 + 14 * 14 * 2 + 6 * 24 + k  # the middle of the image, (112, 112)
                logits[image, anchor] = logit
                hips[image, anchor] = torch.tensor([x - 112, y - 112])
                reach[image, anchor] = hips[image, anchor] + torch.tensor([0.6, -0.8]) * radius
        return RawDetections(logits, hips, reach)


def told(*answers: list[tuple[float, float, float, float]]) -> tuple[BlazePoseDetector, Told]:
    detector = BlazePoseDetector()
    network = Told(*answers)
    detector._net = network  # type: ignore[assignment]
    return detector, network


def test_blazepose_gives_the_square_around_the_circle_of_the_second_look() -> None:
    # The image is twice as large as the network's. First the hips are at (200, 224) and the circle's radius is 100; the
    # close-up then has its corner at (60, 84) and a side of 280 pixels, 1.25 for each of the network's.
    detector, network = told([(100, 112, 50, 3)], [(120, 112, 80, 2)])
    (found,) = detector.detect([np.zeros((448, 448, 3), np.uint8)])
    np.testing.assert_allclose(found.boxes, [[110, 124, 310, 324]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-2.0))], atol=1e-6)
    assert network.asked == 2


def test_what_the_second_look_does_not_confirm_is_nobody() -> None:
    square = np.zeros((448, 448, 3), np.uint8)
    elsewhere = [(220.0, 220.0, 80.0, 3.0)]
    for again in ([], elsewhere, [(112.0, 112.0, 200.0, 3.0)], [(112.0, 112.0, 80.0, -1.0)]):
        detector, _ = told([(100, 112, 50, 3)], again)
        assert detector.detect([square])[0].boxes.shape == (0, 4)


def test_blazepose_looks_at_parts_of_an_oblong_image_when_the_whole_shows_nobody() -> None:
    # 400 × 200: the whole, then squares of 200 from x = 0, 100 and 200; somebody is in the last, at (300, 100).
    detector, network = told([], [], [], [(112, 112, 56, 3)], [(112, 112, 80, 3)])
    (found,) = detector.detect([np.zeros((200, 400, 3), np.uint8)])
    np.testing.assert_allclose(found.boxes, [[250, 50, 350, 150]], atol=1e-4)
    assert network.asked == 5


def test_blazepose_cuts_boxes_off_at_the_border_and_scales_them_to_large_images() -> None:
    # 2,560 pixels are considered as 640, in which the network's are 640 / 224 wide; the box reaches beyond the image.
    detector, _ = told([(112, 112, 112, 3)], [(112, 112, 112, 3)])
    (found,) = detector.detect([np.zeros((2560, 2560, 3), np.uint8)])
    np.testing.assert_allclose(found.boxes, [[0, 0, 2560, 2560]], atol=1e-3)


def test_blazepose_counts_one_person_once_and_nobody_as_nobody() -> None:
    detector, _ = told([(112, 112, 50, 1), (116, 112, 55, 3)], [(112, 112, 80, 3), (114, 112, 82, 1)])
    assert len(detector.detect([np.zeros((224, 224, 3), np.uint8)])[0].boxes) == 1
    assert BlazePoseDetector().detect([IMAGE, IMAGE[:1, :1]])[1].boxes.shape == (0, 4)


def test_blazepose_comes_with_its_weights_and_refuses_others(tmp_path: Path) -> None:
    assert isinstance(person_detector("blazepose"), BlazePoseDetector)
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors: no such file"):
        person_detector("blazepose", tmp_path / "nowhere.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"these are not the weights of blazepose: .* another --find"):
        person_detector("blazepose", tmp_path / "other.safetensors")
