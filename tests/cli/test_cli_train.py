"""The options of `mcss train METHOD`, which are the settings of the method."""

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mcss.cli import main
from mcss.cli.training import defaults
from mcss.data.capture import Capture
from mcss.methods.chen_cvpr19 import ChenCVPR19
from mcss.methods.method import Method
from mcss.methods.registry import METHODS, method_named
from mcss.methods.rhodin_eccv18 import RhodinECCV18
from mcss.training.settings import recipe


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(tmp_path)


def help_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the text of each option in the help of a verb."""
    with pytest.raises(SystemExit) as stopped:
        main([*args, "--help"])
    assert stopped.value.code == 0
    words = re.sub(r"[│╭╮╰╯─\s]+", " ", capsys.readouterr().out)
    options = re.split(r"(?<!,) (?=--[a-z][a-z0-9-]+[ ,])", words)
    return {option.split()[0].strip(",")[2:]: option for option in options if option.startswith("--")}


def leaves(settings: Any) -> list[tuple[str, Any]]:
    """Return all settings by name, those in groups included."""
    found = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        found += leaves(value) if is_dataclass(value) else [(field.name, value)]
    return found


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_two_settings_of_a_method_have_one_name(method: type[Method]) -> None:
    names = [name for name, _ in leaves(recipe("fast", method, "c"))]
    others = ["recipe", "config", "show_config", "out", "resume", "accelerator", "devices", "nodes", "json"]
    assert len({*names, *others}) == len(names) + len(others)


@pytest.mark.parametrize(
    ("method", "recipe_name"), [*((method, "fast") for method in METHODS), (METHODS[0], "paper")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)  # fmt: skip
def test_help_shows_the_settings_of_the_method_with_their_defaults_and_of_no_other(
    method: type[Method], recipe_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = help_of(["train", method.name, "--recipe", recipe_name], capsys)
    settings = recipe(recipe_name, method, "c")  # type: ignore[arg-type]
    unused = method.network.UNUSED_CONFIG
    own = {name.replace("_", "-"): value for name, value in leaves(settings) if name not in unused}
    names = {name for other in METHODS for name, _ in leaves(other.in_recipe("fast"))} | unused
    others = {name.replace("_", "-") for name in names} - set(own)
    assert set(own) <= set(options)
    assert not others & set(options)
    for name, value in own.items():
        match value:
            case None | False | () | "c":
                continue
            case True:
                shown = "on"
            case tuple():
                shown = " ".join(map(str, value))
            case _:
                shown = str(value)
        assert f"(default: {shown})" in options[name], name


def test_networks_without_an_embedding_have_no_options_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert {name for name in METHODS if name.network.UNUSED_CONFIG} == {RhodinECCV18, ChenCVPR19}
    with pytest.raises(SystemExit):
        main(["train", "chen_cvpr19", "--capture", "c", "--dim", "8"])
    assert "Unrecognized options: --dim" in capsys.readouterr().err
    settings = shown_config(["chen_cvpr19", "--capture", "c", "--image-size", "64"], capsys)
    assert settings["network"]["image_size"] == 64
    assert settings["network"]["dim"] == recipe("fast", ChenCVPR19, "c").network.dim


def test_help_of_train_lists_the_methods(capsys: pytest.CaptureFixture[str]) -> None:
    listed = help_text(["train", "--help"], capsys)
    assert all(method.name in listed for method in METHODS)


def help_text(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main(args)
    return capsys.readouterr().out


def shown_config(args: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    main(["train", *args, "--show-config"])
    return dict(json.loads(capsys.readouterr().out))


def test_show_config_prints_what_would_run_and_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shown = shown_config(
        ["rhodin-eccv18", "--capture", "c", "--recipe", "paper", "--drawn-size", "16", "--steps", "7", "--label-views",
         "1,2", "--labels", "all"], capsys,
    )  # fmt: skip
    assert shown["method_name"] == "rhodin_eccv18"
    assert shown["method"]["representation"]["synthesis"]["drawn_size"] == 16
    assert shown["method"]["representation"]["instants"] == 33
    assert (shown["optimiser"]["steps"], shown["optimiser"]["lr"]) == (7, 1e-3)
    assert (shown["labels"], shown["label_views"]) == ("all", ["1", "2"])
    assert not list(Path().iterdir())


def test_a_config_file_gives_the_defaults_and_flags_override_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("few.toml").write_text('capture = "c"\nsteps = 9\nlabel-views = "1,2"\n[method]\ntemperature = 0.2\n')
    Path("few.yaml").write_text("capture: c\noptimiser: {steps: 9, lr: 1e-3}\nmethod: {temperature: 0.2}\n")
    for name in ("few.toml", "few.yaml"):
        shown = shown_config(["mcss", "--config", name, "--steps", "5"], capsys)
        assert (shown["capture"], shown["optimiser"]["steps"], shown["method"]["temperature"]) == ("c", 5, 0.2)
    Path("whole.json").write_text(json.dumps(shown))
    again = shown_config(["mcss", "--config", "whole.json", "--backbone", "resnet18"], capsys)
    assert (again["frozen_stages"], again["variants"]) == (0, 0)
    assert again["optimiser"]["lr"] == 1e-3
    assert shown_config(["mcss", "--config", "whole.json"], capsys) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"temprature": 0.1}', "unknown settings temprature; mcss has"),
        ('{"method_name": "supervised"}', "use `mcss train supervised`"),
        ('{"steps": "many"}', "steps: expected a whole number, got 'many'"),
        ('{"method": {"frame": "oblique"}}', "frame: expected one of canonical, world, got 'oblique'"),
        ('{"temperature": 0}', "temperature: expected a value above 0, got 0.0"),
        ('{"embedding_norm": 1}', "embedding_norm: expected true or false, got 1"),
        ('{"betas": [0.9]}', "betas: expected a list of 2, got [0.9]"),
        ("{", "few.json cannot be read"),
        ("[]", "expected settings by name, got a list"),
    ],
)
def test_a_config_file_with_a_mistake_is_refused(text: str, message: str) -> None:
    Path("few.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        defaults(method_named("mcss"), ["--config", "few.json"])


def test_a_run_is_repeated_from_its_config(tiny_capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--capture", tiny_capture.uri, "--weights", "random", "--backbone", "resnet18", "--image-size", "32"]
    main(["train", "supervised", *small, "--steps", "1", "--pose-images", "4", "--out", "one"])
    main(["train", "supervised", "--config", "one/config.json", "--out", "two"])
    one, two = (json.loads(Path(run, "config.json").read_text()) for run in ("one", "two"))
    assert one == two
    weights, repeated = (load_file(Path(run, "model.safetensors")) for run in ("one", "two"))
    assert all(torch.equal(weights[key], repeated[key]) for key in weights)


def test_labels_for_a_method_that_uses_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "points2d", "--capture", "c", "--labels", "S1"])
    assert stopped.value.code == 1
    assert "labels: points2d uses no 3D labels, got 'S1'; leave --labels out." in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(["--labels", "S9"], "S9"), (["--instants", "99"], "instants"), (["--frozen-stages", "9"], "frozen_stages")],
)
def test_a_refused_training_leaves_nothing_that_blocks_the_corrected_one(
    tiny_capture: Capture, wrong: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["train", "rhodin_cvpr18", "--capture", tiny_capture.uri, "--weights", "random", "--backbone", "resnet18"]
    args += ["--image-size", "32", "--steps", "2", "--instants", "4", "--min-gap", "0.2", "--out", "run"]
    with pytest.raises(SystemExit):
        main([*args, *wrong])
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("run").exists()
