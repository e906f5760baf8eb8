"""The exported baseline in ONNX Runtime against torch, measured in turns in the same run."""

import pytest

from detector.config.presets import load_preset
from detector.export.exporter import export
from detector.export.runtime import load_exported
from detector.inference.latency import latencies
from detector.network.model import build_detector


@pytest.mark.benchmark
def test_onnx_runtime_is_at_least_as_fast_as_torch(tmp_path, capsys):
    config, _ = load_preset("retinaface_mobile025")
    model = build_detector(config)
    exported = load_exported(export(model, config, tmp_path / "model.onnx"), threads=1)
    times = latencies({"torch": model, exported.runtime: exported}, (480, 640), threads=1)
    with capsys.disabled():
        for name, time in times.items():
            print(f"\n{name}: {time.median_ms:.1f} ms, 640×480, {time.machine}")
    assert times[exported.runtime].median_ms <= times["torch"].median_ms
