"""If Triton cannot build kernels, a line on stderr says so, and training continues without."""

import pytest

from detector.gpu import kernels


@pytest.fixture(autouse=True)
def cleared_cache():
    kernels.kernels_run.cache_clear()
    yield
    kernels.kernels_run.cache_clear()


def test_a_missing_compiler_is_one_line(monkeypatch, capsys):
    def fails():
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(kernels, "_built", fails)
    assert not kernels.kernels_run() and not kernels.kernels_run()
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "Failed to find C compiler. Please specify" in message
    assert "gcc and python3-dev" in message


@pytest.mark.parametrize("value, works", [(1, True), (0, False)])
def test_a_kernel_must_give_the_right_result(monkeypatch, capsys, value, works):
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(kernels, "_built", lambda: value)
    assert kernels.kernels_run() == works
    assert ("wrong result" in capsys.readouterr().err) != works


def test_without_triton_nothing_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert not kernels.kernels_run()
    assert capsys.readouterr().err == ""
