"""A training that diverges: it stops, and the batch of the first step whose loss is not finite is kept."""

from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mcss.data.loading.batches import StepBatches
from mcss.models.model_file import write_tensors


class FiniteLosses:
    """Watches over the losses of a run without waiting for the device at every step."""

    def __init__(self, source: StepBatches, out: Path, advice: str) -> None:
        """Begin to watch.

        Args:
            source: Makes the batch of any step again.
            out: The run folder.
            advice: What the user can do, as the end of the message.
        """
        self._source, self._out, self._advice = source, out, advice
        self._first: Tensor | None = None
        """Number of the first batch with such a loss, on the device; -1 if there is none."""

    def see(self, number: int, loss: Float[Tensor, ""]) -> None:
        """Note the loss of batch `number`."""
        if self._first is None:
            self._first = torch.full((), -1, dtype=torch.int64, device=loss.device)
        is_new = (self._first < 0) & ~loss.detach().isfinite()
        self._first = torch.where(is_new, number, self._first)

    def check(self, number: int, weights: Iterable[Tensor] = ()) -> None:
        """Check all losses so far, and the weights that are about to be kept.

        Args:
            number: The latest batch.
            weights: What the step with this batch has made of the network.

        Raises:
            FloatingPointError: One of them is not finite; the message names the file that holds its batch.
        """
        first = -1 if self._first is None else int(self._first)
        if first >= 0:
            raise self._error(first, "the loss is not finite")
        if not all(bool(values.isfinite().all()) for values in weights):
            raise self._error(number, "the loss is finite, but its gradient made weights that are not")

    def _error(self, number: int, what: str) -> FloatingPointError:
        path = self._out / f"batch-{number}.safetensors"
        batch = self._source.batch(number)
        tensors = {"images": batch.images.contiguous(), "poses": batch.poses}
        views = "x".join(map(str, batch.metric_shape))
        write_tensors(path, tensors, {"batch": str(number), "instants_x_views": views})
        return FloatingPointError(f"batch {number}: {what}. Its images and poses are kept in {path}. {self._advice}")
