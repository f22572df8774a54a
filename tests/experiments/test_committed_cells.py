import json
from dataclasses import replace
from pathlib import Path

import pytest

from mcss.experiments.runs import Cell
from mcss.methods.registry import METHODS
from mcss.training.config_file import read_config
from mcss.training.settings import recipe

CELLS = Path(__file__).parents[2] / "results" / "cells"
CONFIGS = sorted(CELLS.glob("*/config.json"))


@pytest.mark.skipif(not CONFIGS, reason="the measured cells are not here")
def test_cells_that_were_measured_keep_their_names_so_that_their_figures_stay_valid() -> None:
    methods = {method.name: method for method in METHODS}
    renamed = {}
    for config in CONFIGS:
        about = json.loads(config.read_text(encoding="utf-8"))
        usual = recipe("fast", methods[about["method_name"]], "")
        settings = read_config(config, replace(usual, keep="last"))  # as all runs did before this was a setting
        name = Cell(settings, about["capture_fingerprint"]).name
        if name != config.parent.name:
            renamed[config.parent.name] = name
    assert renamed == {}
