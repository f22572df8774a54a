from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import settings_for

import mcss.training.loop as loop
from mcss.data.capture import Capture
from mcss.data.loading.batches import Batch
from mcss.methods.mcss import MCSS
from mcss.training.divergence import FiniteLosses
from mcss.training.loop import train


class Numbered:
    workers = 1

    def batch(self, step: int) -> Batch:
        return Batch(torch.full((1, 3, 2, 2), float(step)), (0, 0), torch.zeros(1, 17, 3), 0)


def test_the_batch_of_the_first_loss_that_is_not_finite_is_kept(tmp_path: Path) -> None:
    finite = FiniteLosses(Numbered(), tmp_path, "Lower --lr.")
    for number, loss in ((4, 1.0), (5, 0.5)):
        finite.see(number, torch.tensor(loss))
    finite.check(5, [torch.ones(2)])
    for number, loss in ((6, float("inf")), (7, float("nan")), (8, 0.5)):
        finite.see(number, torch.tensor(loss))
    kept = tmp_path / "batch-6.safetensors"
    with pytest.raises(FloatingPointError) as error:
        finite.check(8)
    assert str(error.value) == (
        f"batch 6: the loss is not finite. Its images and poses are kept in {kept}. Lower --lr."
    )
    assert load_file(kept)["images"].unique().tolist() == [6.0]


def test_weights_that_a_finite_loss_made_infinite_are_not_kept_as_a_checkpoint(tmp_path: Path) -> None:
    finite = FiniteLosses(Numbered(), tmp_path, "Lower --lr.")
    finite.see(0, torch.tensor(1.0))
    with pytest.raises(FloatingPointError, match=r"batch 0: the loss is finite, but its gradient made weights"):
        finite.check(0, [torch.ones(2), torch.tensor([1.0, float("inf")])])


def test_a_training_that_diverges_stops_before_it_writes_a_checkpoint_of_it(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings_for(tiny_capture), checkpoint_every=2, log_every=100)
    whole = train(settings, tmp_path / "whole")
    step, steps = MCSS.step, iter(range(100))

    def diverging(self: MCSS, *given: object) -> object:
        losses = step(self, *given)  # type: ignore[arg-type]
        return replace(losses, total=losses.total * float("nan")) if next(steps) == 2 else losses

    monkeypatch.setattr(MCSS, "step", diverging)
    with pytest.raises(FloatingPointError, match=r"batch 2: the loss is not finite\..*Lower --lr \(now"):
        train(settings, tmp_path / "run")
    known = load_file(tmp_path / "run" / "batch-2.safetensors")
    assert len(known["images"]) > 0
    monkeypatch.undo()
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    saved: list[int] = []
    save = loop.save_checkpoint
    monkeypatch.setattr(
        loop, "save_checkpoint", lambda path, step, *rest: (saved.append(step), save(path, step, *rest))
    )
    train(settings, tmp_path / "run", resume=True)
    assert saved[0] == 4, "it goes on after the last checkpoint, of step 2"
    one, other = (load_file(run / "model.safetensors") for run in (whole, tmp_path / "run"))
    assert all(torch.equal(one[key], other[key]) for key in one)
