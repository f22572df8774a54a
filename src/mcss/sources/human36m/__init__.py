"""Human3.6M as released (videos, D3_Positions, boxes, ``metadata.xml``), and two unpacked copies of it."""
