"""If Triton cannot build kernels, one line of the log says so, and training continues without."""

import pytest

from detector.gpu import kernels


@pytest.fixture(autouse=True)
def cleared_cache():
    kernels.kernels_run.cache_clear()
    yield
    kernels.kernels_run.cache_clear()


def test_a_missing_compiler_is_one_line(monkeypatch, caplog):
    def fails():
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(kernels, "_built", fails)
    assert not kernels.kernels_run() and not kernels.kernels_run()
    (message,) = caplog.messages
    assert "\n" not in message and "Failed to find C compiler. Please specify" in message
    assert "gcc and python3-dev" in message


@pytest.mark.parametrize("value, works", [(1, True), (0, False)])
def test_a_kernel_must_give_the_right_result(monkeypatch, caplog, value, works):
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(kernels, "_built", lambda: value)
    assert kernels.kernels_run() == works
    assert ("wrong result" in caplog.text) != works


def test_without_triton_nothing_is_printed(monkeypatch, caplog):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert not kernels.kernels_run()
    assert caplog.messages == []
