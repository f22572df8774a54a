"""MPI-INF-3DHP as released: videos, ``annot.mat``, ``camera.calibration`` and the test set."""
