"""A trained network as a file for ONNX Runtime or OpenVINO."""
