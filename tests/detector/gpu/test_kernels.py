"""Where Triton cannot build kernels, one line says so and training goes on without."""

import pytest

from detector.gpu import kernels


@pytest.fixture(autouse=True)
def anew():
    kernels.kernels_run.cache_clear()
    yield
    kernels.kernels_run.cache_clear()


def test_a_compiler_that_is_missing_is_one_line(monkeypatch, capsys):
    def fails():
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(kernels, "_built", fails)
    assert not kernels.kernels_run() and not kernels.kernels_run()
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "Failed to find C compiler. Please specify" in told
    assert "gcc and python3-dev" in told


@pytest.mark.parametrize("value, works", [(1, True), (0, False)])
def test_a_kernel_must_do_what_it_says(monkeypatch, capsys, value, works):
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(kernels, "_built", lambda: value)
    assert kernels.kernels_run() == works
    assert ("wrong result" in capsys.readouterr().err) != works


def test_without_triton_nothing_is_said(monkeypatch, capsys):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert not kernels.kernels_run()
    assert capsys.readouterr().err == ""
