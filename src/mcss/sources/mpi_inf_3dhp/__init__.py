"""MPI-INF-3DHP, the original release: videos, ``annot.mat``, ``camera.calibration`` and the test set → capture."""
