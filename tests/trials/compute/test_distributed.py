"""What the workers of one training get of the machines, without any training."""

import contextlib
from types import SimpleNamespace

import pytest

from detector.base.errors import UserError
from detector.config.presets import load_preset
from detector.config.recipe import Recipe
from trials.compute import distributed


@pytest.fixture
def ray_has(monkeypatch):
    """Function: sets the cores and GPUs that Ray reports."""

    def set_resources(**resources):
        monkeypatch.setattr(distributed.ray, "cluster_resources", lambda: resources)

    return set_resources


@pytest.mark.parametrize(
    ("gpus", "workers", "device", "share"),
    [
        (4, 4, "auto", 1.0),
        (8, 2, "cuda", 1.0),
        (1, 2, "auto", 0.5),
        (1, 3, "cuda", 0.3333),
        (2, 3, "auto", 0.5),
        (1, 2, "cpu", 0.0),
        (0, 2, "auto", 0.0),
    ],
)
def test_workers_share_gpus_if_there_are_too_few(ray_has, gpus, workers, device, share):
    ray_has(CPU=8.0, GPU=float(gpus))
    assert distributed._gpu_share(device, workers) == share


def test_too_few_cores_or_gpus_is_one_line(ray_has):
    ray_has(CPU=2.0)
    with pytest.raises(UserError, match="--workers 3: Ray sees 2 CPUs; give at most that"):
        distributed._gpu_share("auto", 3)
    with pytest.raises(UserError, match="--workers 2: Ray sees no GPU; give --device cpu"):
        distributed._gpu_share("cuda", 2)


@pytest.mark.parametrize(
    ("gpus", "backend", "resources"),
    [
        (2, None, {"CPU": 1, "GPU": 1.0}),
        (1, "gloo", {"CPU": 1, "GPU": 0.5}),
        (0, "gloo", {"CPU": 1}),
    ],
)
def test_a_shared_gpu_takes_another_backend(
    ray_has, monkeypatch, tmp_path, caplog, gpus, backend, resources
):
    trainers = []
    ray_has(CPU=8.0, GPU=float(gpus))
    monkeypatch.setattr(distributed, "_ray", lambda workers: contextlib.nullcontext())
    monkeypatch.setattr(distributed, "_listen", lambda *args: iter(()))
    monkeypatch.setattr(distributed, "Queue", lambda **options: None)
    monkeypatch.setattr(
        distributed, "TorchTrainer", lambda work, **settings: trainers.append(settings)
    )
    images = SimpleNamespace(folder=tmp_path)
    assert not list(
        distributed.fit_on_ray(
            load_preset("yunet_n")[0],
            Recipe(),
            images,
            images,
            workdir=tmp_path,
            device="auto",
            workers=2,
            progress=lambda *step: None,
        )
    )
    (settings,) = trainers
    assert settings["torch_config"].backend == backend
    assert settings["scaling_config"].resources_per_worker == resources
    assert settings["scaling_config"].use_gpu == (gpus > 0)
    assert settings["train_loop_config"]["device"] == ("cuda" if gpus else "cpu")
    assert ("2 workers share 1 GPU " in caplog.text) == (gpus == 1)
