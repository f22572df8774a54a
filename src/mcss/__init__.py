"""mcss: 3D human pose and pose search from unlabelled multi-view video and a few 3D labels.

model = mcss.load("runs/mcss")
model.predict(["photo.jpg"]).pose  # (1, 17, 3), canonical, mm
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcss.inference.videos import predict_video as predict_video
    from mcss.models.model import load as load

__all__ = ["__version__", "load", "predict_video"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":  # imported on first use, so that `import mcss` stays cheap
        from mcss.models.model import load

        return load
    if name == "predict_video":
        from mcss.inference.videos import predict_video

        return predict_video
    raise AttributeError(f"module 'mcss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
