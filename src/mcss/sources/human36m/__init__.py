"""Human3.6M, the original release: videos, D3_Positions, ground-truth boxes and ``metadata.xml`` → capture."""
