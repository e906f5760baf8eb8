"""ONNX and OpenVINO graphs: exported, checked, run."""
