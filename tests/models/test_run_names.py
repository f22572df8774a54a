"""Names of models: runs, files, the shipped weights, and models on the Hugging Face hub."""

import json
from pathlib import Path

import pytest

import mcss
from mcss.cli import main
from mcss.errors import CheckpointError
from mcss.models.run_names import SHIPPED, hub_folder, is_elsewhere, located
from runs_for_tests import small_run

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def on_the_hub(cache: Path, name: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay out a run as the hub's client keeps a model that it has downloaded."""
    place = cache / f"models--{name.replace('/', '--')}"
    hub_folder(run, place / "snapshots" / COMMIT, name)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_model_on_the_hub_is_a_run_wherever_one_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run(tmp_path / "run")
    on_the_hub(tmp_path / "hub", "ann/studio", run, monkeypatch)
    assert located("hf:ann/studio").name == COMMIT
    assert (located("hf:ann/studio") / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert mcss.load("hf:ann/studio").dim == 128
    assert mcss.load("hf:ann/studio@main").dim == 128
    with pytest.raises(CheckpointError, match=r"^hf:bob/nothere: this model could not be downloaded from the Hugging"):
        mcss.load("hf:bob/nothere")
    with pytest.raises(SystemExit):
        main(["equip", "hf:ann/studio", "--capture", "s3://nothing/here"])
    assert "out: hf:ann/studio is no run of yours" in " ".join(capsys.readouterr().err.split())


def test_what_is_pushed_says_what_was_measured_and_holds_no_images(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    config = {"method_name": "mcss", "labels": "S1:0.1", "seed": 3, "optimiser": {"steps": 900}}
    (run / "config.json").write_text(json.dumps(config))
    (run / "test").mkdir()
    (run / "test" / "example.jpg").write_bytes(b"a frame")
    row: dict[str, object] = {"n_mpjpe": 101.26, "mpjpe": None}
    for split, frames in (("test", 5), ("validation", 0)):
        (run / split).mkdir(exist_ok=True)
        row["retrieval"] = {"same_instant": {"hit_at_1": 0.191, "chance_at_1": 0.045, "tolerance": frames}}
        (run / split / "report.json").write_text(json.dumps({"rows": [row], "synthetic": False}))
    main(["push", str(run), "ann/studio", "--dry-run", str(tmp_path / "upload"), "--licence", "cc-by-4.0"])
    files = sorted(path.name for path in (tmp_path / "upload").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    card = (tmp_path / "upload" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: mcss\n")
    assert "license: cc-by-4.0" in card
    assert 'mcss.load("hf:ann/studio")' in card
    assert "Method `mcss`, labels `S1:0.1`, 900 steps, seed 3." in card
    assert "- N-MPJPE: 101.3 mm" in card
    assert "- the same moment, within ±5 frames, is found first: 19.1 % (by chance 4.5 %)" in card
    assert "- the exact instant is found first: 19.1 % (by chance 4.5 %)" in card


@pytest.mark.parametrize("name", ["studio", "ann/studio/2", "hf:", "hf:ann/", "https://x/y"])
def test_a_name_that_the_hub_cannot_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected hf:USER/NAME or hf:USER/NAME@REVISION"):
        hub_folder(small_run(tmp_path / "run"), tmp_path / "upload", name)


def test_a_run_without_a_model_is_not_pushed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(CheckpointError, match="there is no trained model in it; finish `mcss train` first"):
        hub_folder(tmp_path / "run", tmp_path / "upload", "ann/studio")


def test_shipped_names_the_shipped_weights_unless_there_is_such_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert located("shipped") == SHIPPED
    assert is_elsewhere("shipped")
    Path("shipped").mkdir()
    assert located("shipped") == Path("shipped")
    assert not is_elsewhere("shipped")
    assert located(tmp_path) == tmp_path
