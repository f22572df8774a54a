"""mcss: 3D human pose and pose search from unlabelled multi-view video and a few 3D labels."""

__version__ = "0.1.0"
