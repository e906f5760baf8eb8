"""Face detectors of other programs as ONNX graphs: recognised by their outputs, run, counted."""
