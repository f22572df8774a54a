"""The weights of the best point of a run's learning curve."""

from pathlib import Path

from torch import nn

from mcss.errors import CheckpointError
from mcss.models.model_file import copy_state, read_tensors, write_tensors
from mcss.training.checkpoints import METRICS
from mcss.training.metrics_log import learning_curve_of

BEST = "best.safetensors"


class BestWeights:
    """Keeps the weights with the least N-MPJPE on the validation subjects so far in ``best.safetensors``.

    A checkpoint is due whenever the file is written, so that an interrupted run never goes on from before it: on some
    devices it would not come to the same weights again.
    """

    def __init__(self, run: Path) -> None:
        """Continue a run, whose log has been rewound to its checkpoint.

        Args:
            run: The run folder.

        Raises:
            CheckpointError: The run has a learning curve, and its best weights are gone.
        """
        self._path = run / BEST
        points = [point["n_mpjpe"] for point in learning_curve_of(run / METRICS) if "n_mpjpe" in point]
        self._least: float | None = min(points, default=None)
        if points and not self._path.exists():
            raise CheckpointError(
                f"{self._path} is missing, with the best weights so far; train anew in another --out."
            )

    def see(self, n_mpjpe: float, network: nn.Module) -> bool:
        """Keep the weights if the error is less than that of all points before; return whether they were kept."""
        if self._least is not None and not n_mpjpe < self._least:
            return False
        write_tensors(self._path, network.state_dict(), {"n_mpjpe": repr(n_mpjpe)})
        self._least = n_mpjpe
        return True

    def restore(self, network: nn.Module) -> None:
        """Give the network the best weights; it keeps its own if the curve has no point with an error."""
        if self._least is not None:
            copy_state(network, read_tensors(self._path, "the best weights of a run")[0], self._path)
