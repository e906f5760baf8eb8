"""Fused batch normalisation against torch's: under Triton's interpreter, with this file run as a
script (Triton reads TRITON_INTERPRET at import), and on a GPU."""

from __future__ import annotations

import copy

import helpers
import pytest
import torch
from torch import Tensor, nn

ACTIVATIONS = {
    "none": lambda: None,
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "hard_swish": lambda: nn.Hardswish(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
}
TIMED_SHAPES = (
    (32, 16, 320, 320),
    (32, 32, 160, 160),
    (32, 64, 80, 80),
    (32, 128, 40, 40),
    (32, 256, 20, 20),
)
GRADS = ("grad x", "grad weight", "grad bias")

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def _norm(channels: int, generator: torch.Generator) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=0.3)
    with torch.no_grad():
        norm.weight.normal_(generator=generator).add_(1)
        norm.bias.normal_(generator=generator).add_(1)
        norm.running_mean.normal_(generator=generator)
    return norm


def _inputs(
    shape: tuple[int, ...], mean: float, dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """x with channels of different means, and a gradient of y; both channels-last."""
    x = torch.randn(shape, generator=generator)
    x = x + mean * (1 + 0.1 * torch.randn(1, shape[1], 1, 1, generator=generator))
    grad = torch.randn(shape, generator=generator) + 0.5
    return tuple(t.to(dtype).contiguous(memory_format=torch.channels_last) for t in (x, grad))


def _result(run, x: Tensor, norm: nn.BatchNorm2d, grad: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    y = run(x, norm)
    y.backward(grad)
    return {
        "y": y.detach(),
        "grad x": x.grad,
        "grad weight": norm.weight.grad,
        "grad bias": norm.bias.grad,
        "running mean": norm.running_mean,
        "running var": norm.running_var,
    }


def _reference(
    x: Tensor, norm: nn.BatchNorm2d, activation: nn.Module | None, grad: Tensor
) -> dict[str, Tensor]:
    """By torch in float64 on the CPU."""
    norm = copy.deepcopy(norm).cpu().double()
    return _result(
        lambda x, norm: (activation or nn.Identity())(norm(x)),
        x.cpu().double(),
        norm,
        grad.cpu().double(),
    )


def _compare(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Norms of the differences relative to the values'."""
    for name, value in expected.items():
        error = (got[name].cpu().double() - value).norm() / value.norm()
        assert error < tolerance, (name, error.item())


def _check(
    run,
    shape,
    kind,
    mean=0.0,
    dtype=torch.float32,
    tolerance=1e-5,
    device: str | torch.device = "cpu",
):
    generator = torch.Generator().manual_seed(shape[1])
    norm = _norm(shape[1], generator)
    x, grad = _inputs(shape, mean, dtype, generator)
    activation = ACTIVATIONS[kind]()
    expected = _reference(x, norm, activation, grad)
    norm = norm.to(device)
    x, grad = x.to(device), grad.to(device)
    got = _result(lambda x, norm: run(x, norm, activation), x, norm, grad)
    for name in "y", "grad x":
        assert got[name].dtype == dtype
        assert got[name].is_contiguous(memory_format=torch.channels_last)
    _compare(got, expected, tolerance)
    return got, expected


def _check_large_mean(run, shape, device="cpu"):
    # Means in float32 have errors of 3e-5, which add up in the sum for the weights' gradient.
    got, expected = _check(run, shape, "none", mean=1000.0, tolerance=2e-3, device=device)
    for name in "y", "grad x", "running mean", "running var":
        _compare({name: got[name]}, {name: expected[name]}, 1e-4)


def interpreted() -> None:
    """The tests of this file as a script: raises if a kernel is wrong."""
    from detector.gpu import fused_norm

    def run(x, norm, activation):
        return fused_norm.normalise(
            x,
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
            norm.momentum,
            norm.eps,
            activation,
        )

    for kind in ACTIVATIONS:
        _check(run, (3, 24, 7, 11), kind)
    for channels, kind in (1, "none"), (3, "relu6"), (8, "relu"), (64, "leaky"), (100, "leaky"):
        _check(run, (3, channels, 7, 11), kind)
    # So far a tile or two; here several tiles per program, the last one partly filled.
    for channels in 8, 24, 64, 100:
        _check(run, (5, channels, 41, 23), "leaky")
    for shape in (5, 5, 1, 1), (1, 512, 9, 1), (7, 35, 1, 1):  # few rows, many columns
        _check(run, shape, "leaky")
    for channels in 3, 8, 64:
        _check_large_mean(run, (3, channels, 21, 17))
    for dtype, tolerance in (torch.bfloat16, 2e-2), (torch.float16, 2e-3):
        _check(run, (3, 24, 21, 17), "leaky", mean=2.0, dtype=dtype, tolerance=tolerance)

    # Channels are constant except at a border: the sums' pivot must not be of the border.
    x = torch.ones(2, 8, 40, 40)
    x[:, :, 0, :] = 1.01
    x = x.contiguous(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(8, momentum=1.0)
    run(x, norm, None)
    torch.testing.assert_close(
        norm.running_var.double(), x.double().var((0, 2, 3)), rtol=1e-5, atol=0
    )

    # NaN stays NaN; the gradient may have any layout.
    x = torch.randn(2, 8, 5, 5).contiguous(memory_format=torch.channels_last)
    x[1, 3, 2, 2] = torch.nan
    for kind, make in ACTIVATIONS.items():
        nan = run(x, nn.BatchNorm2d(8), make()).isnan()
        assert nan[:, 3].all() and nan.sum() == nan[:, 3].numel(), kind
    x = torch.randn(2, 8, 5, 5).contiguous(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(8)
    grad = torch.randn(8, 5, 5).expand(2, 8, 5, 5)
    _compare(
        _result(lambda x, norm: run(x, norm, None), x, norm, grad),
        _reference(x, nn.BatchNorm2d(8), None, grad),
        1e-5,
    )

    # A matrix [rows, C] as well.
    rows = torch.randn(50, 6)
    y = fused_norm.normalise(
        rows, torch.ones(6), torch.zeros(6), torch.zeros(6), torch.ones(6), 0.1, 1e-5
    )
    torch.testing.assert_close(
        y, nn.functional.batch_norm(rows, None, None, training=True, eps=1e-5)
    )


def test_interpreted():
    pytest.importorskip("triton")
    helpers.run_interpreted(f"import runpy; runpy.run_path({__file__!r}, run_name='__main__')")


def test_not_usable_on_cpu():
    pytest.importorskip("triton")
    from detector.gpu.fused_norm import usable

    x = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    assert not usable(x, nn.BatchNorm2d(4), nn.ReLU())


def test_autocast_keeps_the_dtype():
    """The fused one returns bf16 for bf16 because torch's does."""
    x = torch.randn(2, 4, 3, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.BatchNorm2d(4)(x).dtype == torch.bfloat16


class TestGPU:
    pytestmark = needs_gpu

    @pytest.mark.parametrize("channels", [1, 3, 8, 16, 24, 32, 64, 100, 256, 509])
    @pytest.mark.parametrize(
        "dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
    )
    def test_equals_torch(self, dtype, tolerance, channels):
        from detector.gpu.fused_norm import fused_batch_norm

        # Rows that fill tiles and loads, and rows that do not.
        sizes = ((80, 80), (81, 37)) if channels in (8, 24, 64) else ((80, 80),)
        for size in sizes:
            _check(
                fused_batch_norm,
                (4, channels, *size),
                "leaky",
                dtype=dtype,
                tolerance=tolerance,
                device="cuda",
            )

    @pytest.mark.parametrize("kind", ACTIVATIONS)
    def test_activations(self, kind):
        from detector.gpu.fused_norm import fused_batch_norm

        for dtype, tolerance in (
            (torch.float32, 1e-5),
            (torch.bfloat16, 2e-2),
            (torch.float16, 2e-3),
        ):
            _check(
                fused_batch_norm,
                (3, 24, 40, 40),
                kind,
                dtype=dtype,
                tolerance=tolerance,
                device="cuda",
            )

    def test_large_mean(self):
        from detector.gpu.fused_norm import fused_batch_norm

        for channels in 8, 24, 256:
            _check_large_mean(fused_batch_norm, (8, channels, 40, 40), "cuda")

    def test_repeats_bit_for_bit_and_never_waits(self):
        from detector.gpu.fused_norm import fused_batch_norm

        x, grad = (
            t.cuda()
            for t in _inputs((8, 24, 80, 80), 0.0, torch.bfloat16, torch.Generator().manual_seed(0))
        )
        norms = [_norm(24, torch.Generator().manual_seed(0)).cuda() for _ in range(2)]
        torch.cuda.set_sync_debug_mode("error")
        try:
            first, second = (
                _result(lambda x, norm: fused_batch_norm(x, norm, nn.ReLU()), x, norm, grad)
                for norm in norms
            )
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for name, value in first.items():
            assert torch.equal(value, second[name]), name

    def test_usable(self):
        from detector.gpu.fused_norm import usable

        norm = nn.BatchNorm2d(4).cuda()
        x = torch.randn(2, 4, 3, 3, device="cuda").contiguous(memory_format=torch.channels_last)
        for make in ACTIVATIONS.values():
            assert usable(x, norm, make())
        assert not usable(x, norm, nn.SiLU())
        assert not usable(x.contiguous(), norm, None)
        assert not usable(x.double(), norm, None)
        assert not usable(
            x[:1, :, :1, :1].contiguous(memory_format=torch.channels_last), norm, None
        )
        assert not usable(x, nn.BatchNorm2d(4, affine=False).cuda(), None)
        assert not usable(x, nn.BatchNorm2d(4, momentum=None).cuda(), None)
        assert not usable(x, nn.BatchNorm2d(4, track_running_stats=False).cuda(), None)
        assert not usable(x, nn.SyncBatchNorm(4).cuda(), None)
        assert not usable(x, norm.eval(), None)

    def test_in_a_cuda_graph(self):
        from detector.gpu.fused_norm import fused_batch_norm

        generator = torch.Generator().manual_seed(0)
        norm = _norm(16, generator).cuda()
        activation = nn.LeakyReLU(0.1, inplace=True)
        pairs = [
            tuple(t.cuda() for t in _inputs((4, 16, 40, 40), mean, torch.float32, generator))
            for mean in (0.0, 3.0)
        ]
        x, grad = (t.clone() for t in pairs[0])
        x.requires_grad_()

        def step():
            y = fused_batch_norm(x, norm, activation)
            return y, *torch.autograd.grad(y, (x, norm.weight, norm.bias), grad)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiles
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = step()
        for pair in pairs:
            with torch.no_grad():
                x.copy_(pair[0])
            grad.copy_(pair[1])
            expected = _reference(pair[0], norm, activation, pair[1])
            before = norm.num_batches_tracked.item()
            graph.replay()
            got = dict(zip(("y", *GRADS), outputs)) | {
                "running mean": norm.running_mean,
                "running var": norm.running_var,
            }
            _compare(got, expected, 1e-5)
            assert norm.num_batches_tracked.item() == before + 1

    def test_time(self, capsys):
        from detector.gpu.fused_norm import fused_batch_norm

        def milliseconds(run, repeats: int = 20) -> float:
            for _ in range(3):
                run()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(repeats):
                    run()
            graph.replay()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / repeats

        def plain(x, norm, activation):
            return activation(norm(x))

        for shape in TIMED_SHAPES:
            generator = torch.Generator().manual_seed(0)
            norm = _norm(shape[1], generator).cuda()
            activation = nn.LeakyReLU(0.1, inplace=True)
            x, grad = (
                torch.randn(shape, device="cuda", dtype=torch.bfloat16).contiguous(
                    memory_format=torch.channels_last
                )
                for _ in range(2)
            )
            x.requires_grad_()
            times = []
            for run in plain, fused_batch_norm:

                def forward(run=run, x=x, norm=norm, activation=activation):
                    with torch.no_grad():
                        run(x, norm, activation)

                def both(run=run, x=x, norm=norm, activation=activation, grad=grad):
                    torch.autograd.grad(run(x, norm, activation), (x, norm.weight, norm.bias), grad)

                ahead = milliseconds(forward)
                times += [ahead, milliseconds(both) - ahead]
            # x or its gradient are read five times in all, and two tensors written.
            least = 8 * x.numel() * x.element_size() / 3.35e9
            with capsys.disabled():
                print(
                    "\n{}: torch {:.3f} + {:.3f} ms, fused {:.3f} + {:.3f} ms, {:.3f} at the "
                    "rate of an H100's memory".format(shape, *times, least)
                )
            assert all(map(torch.isfinite, torch.tensor(times)))


if __name__ == "__main__":
    interpreted()
