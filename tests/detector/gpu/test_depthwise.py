"""Depthwise convolution against torch's: under Triton's interpreter, with this file run as a script
(Triton reads TRITON_INTERPRET at import), and on a GPU."""

from __future__ import annotations

import itertools
import time

import helpers
import pytest
import torch
from torch import Tensor, nn

TIMED = (
    ((32, 8, 320, 320), 1),
    ((32, 16, 320, 320), 2),
    ((32, 32, 160, 160), 1),
    ((32, 128, 40, 40), 1),
    ((32, 256, 20, 20), 1),
)
NEW_SHAPES = (3, 48, 37, 41), (5, 80, 23, 29), (6, 112, 19, 31)
TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def _channels_last(
    *shape: int,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
    device: str | None = None,
) -> Tensor:
    values = torch.randn(shape, generator=generator, device=device)
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def _conv(
    channels: int, kernel: int, stride: int, generator: torch.Generator | None = None
) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    with torch.no_grad():
        conv.weight.normal_(generator=generator)
    return conv


def _result(run, x: Tensor, weight: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """y, dx, dw of y = run(x, weight) and its gradient, `grad`."""
    x, weight = (t.detach().clone().requires_grad_() for t in (x, weight))
    y = run(x, weight)
    return {"y": y.detach(), **dict(zip(("dx", "dw"), torch.autograd.grad(y, (x, weight), grad)))}


def _torch(stride: int):
    def run(x, weight):
        return nn.functional.conv2d(
            x, weight, None, stride, weight.shape[-1] // 2, groups=len(weight)
        )

    return run


def _reference(x: Tensor, weight: Tensor, stride: int, grad: Tensor) -> dict[str, Tensor]:
    """By torch in float64 on the CPU."""
    return _result(_torch(stride), *(t.cpu().double() for t in (x, weight, grad)))


def _compare(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Norms of the differences relative to the values'."""
    for name, value in expected.items():
        assert got[name].shape == value.shape
        error = (got[name].cpu().double() - value).norm() / value.norm()
        assert error < tolerance, (name, error.item())


def _check(
    shape: tuple[int, ...],
    kernel: int,
    stride: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    reference: str = "cpu",
) -> None:
    from detector.gpu.depthwise import convolve

    generator = torch.Generator().manual_seed(shape[1])
    weight = _conv(shape[1], kernel, stride, generator).weight
    x = _channels_last(*shape, dtype=dtype, generator=generator).to(device)
    sizes = [(size - 1) // stride + 1 for size in shape[2:]]
    grad = _channels_last(*shape[:2], *sizes, dtype=dtype, generator=generator).to(device)
    weight = weight.to(device)
    got = _result(lambda x, weight: convolve(x, weight, stride), x, weight, grad)
    for name in "y", "dx":
        assert got[name].dtype == dtype
        assert got[name].is_contiguous(memory_format=torch.channels_last)
    assert got["dw"].dtype == torch.float32
    if reference == "cpu":
        expected = _reference(x, weight, stride, grad)
    else:
        # `flags` also turns cuDNN off: torch's own kernels need no compilation for new shapes.
        with torch.backends.cudnn.flags(allow_tf32=False):
            expected = _result(_torch(stride), *(t.float() for t in (x, weight, grad)))
        expected = {name: value.cpu().double() for name, value in expected.items()}
    _compare(got, expected, TOLERANCES[dtype])


def interpreted() -> None:
    """The tests of this file as a script: raises if a kernel is wrong."""
    from detector.gpu import depthwise

    for stride in 1, 2:
        for shape in (
            (1, 2, 9, 7),
            (3, 8, 12, 13),
            (2, 12, 5, 10),
            (2, 64, 6, 5),
            (1, 100, 7, 4),
            (1, 8, 33, 41),
        ):  # the last has several tiles per image
            _check(shape, 3, stride)
        for kernel, shape in (5, (2, 12, 8, 7)), (5, (1, 64, 3, 4)), (7, (2, 8, 7, 6)):
            _check(shape, kernel, stride)
    for shape in (1, 8, 1, 1), (1, 8, 1, 5), (1, 8, 4, 1), (1, 8, 2, 2):  # smaller than a kernel
        for stride in 1, 2:
            _check(shape, 3, stride)
    _check((1, 2, 2, 3), 7, 2)
    for dtype in torch.bfloat16, torch.float16:
        _check((2, 24, 9, 8), 3, 2, dtype)

    # More programs than tiles or than channels, or a single one; a gradient of any layout.
    x, weight = _channels_last(2, 40, 7, 5), _conv(40, 3, 1).weight
    grad = torch.randn(40, 7, 5).expand(2, 40, 7, 5)
    expected = _reference(x, weight, 1, grad)
    for programs in 3, 7, 1000:
        depthwise.PROGRAMS[3] = programs
        _compare(_result(depthwise.convolve, x, weight, grad), expected, 1e-5)

    # Gradients that are not needed are not computed.
    x, weight = x.requires_grad_(), weight.requires_grad_()
    for index, (name, value) in enumerate((("dx", x), ("dw", weight))):
        inputs = [x.detach(), weight.detach()]
        inputs[index] = value
        (got,) = torch.autograd.grad(depthwise.convolve(*inputs), value, grad)
        _compare({name: got}, {name: expected[name]}, 1e-5)


def test_interpreted():
    pytest.importorskip("triton")
    helpers.run_interpreted(f"import runpy; runpy.run_path({__file__!r}, run_name='__main__')")


def test_not_usable_on_cpu():
    pytest.importorskip("triton")
    from detector.gpu.depthwise import usable

    assert not usable(_channels_last(2, 4, 3, 3), _conv(4, 3, 1))


class TestGPU:
    pytestmark = needs_gpu

    @pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
    @pytest.mark.parametrize("kernel, stride", [*itertools.product((3, 5, 7), (1, 2))])
    def test_equals_torch(self, dtype, kernel, stride):
        # All tiles of channels, all sizes of loads, and tiles that are full or not.
        shapes = [(4, 8, 80, 80), (3, 24, 41, 37), (2, 100, 20, 33)]
        if kernel == 3:
            shapes += [
                (2, 2, 33, 32),
                (3, 7, 15, 16),
                (4, 16, 81, 80),
                (4, 256, 20, 20),
                (2, 509, 5, 5),
            ]
        for shape in shapes:
            _check(shape, kernel, stride, dtype, "cuda", reference="cuda")

    @pytest.mark.parametrize("stride", [1, 2])
    def test_equals_float64(self, stride):
        for channels in 8, 64:
            _check((4, channels, 80, 80), 3, stride, torch.float32, "cuda")

    def test_autocast(self):
        from detector.gpu.depthwise import depthwise, usable

        conv = _conv(16, 3, 2).cuda()
        x = _channels_last(2, 16, 20, 20, device="cuda").requires_grad_()
        for dtype in torch.bfloat16, torch.float16:
            with torch.autocast("cuda", dtype=dtype):
                assert usable(x, conv)
                y, expected = depthwise(x, conv), conv(x)
            assert y.dtype == expected.dtype == dtype
            grad = torch.randn_like(y)
            pairs = zip(
                (y, *torch.autograd.grad(y, (x, conv.weight), grad)),
                (expected, *torch.autograd.grad(expected, (x, conv.weight), grad)),
            )
            for got, value in pairs:
                assert got.dtype == value.dtype
                assert (got - value).float().norm() < 2e-2 * value.float().norm()

    def test_repeats_bit_for_bit_and_never_waits(self):
        from detector.gpu.depthwise import convolve

        for stride in 1, 2:
            x = _channels_last(8, 24, 80, 80, dtype=torch.bfloat16, device="cuda")
            grad = _channels_last(
                8, 24, 80 // stride, 80 // stride, dtype=torch.bfloat16, device="cuda"
            )
            weight = _conv(24, 3, stride).weight.cuda()
            torch.cuda.set_sync_debug_mode("error")
            try:
                first, second = (
                    _result(
                        lambda x, weight, stride=stride: convolve(x, weight, stride),
                        x,
                        weight,
                        grad,
                    )
                    for _ in range(2)
                )
            finally:
                torch.cuda.set_sync_debug_mode("default")
            for name, value in first.items():
                assert torch.equal(value, second[name]), name

    def test_usable(self):
        from detector.gpu.depthwise import usable

        def conv(*args, **kwargs):
            return nn.Conv2d(*args, **{"padding": 1, "groups": 4, "bias": False} | kwargs).cuda()

        x = _channels_last(2, 4, 6, 6, device="cuda")
        for dtype in TOLERANCES:
            assert usable(x.to(dtype), conv(4, 4, 3))
        assert usable(x, conv(4, 4, 3, stride=2))
        assert usable(x, conv(4, 4, 5, padding=2))
        assert usable(x, conv(4, 4, 7, padding=3))
        assert usable(x, conv(4, 4, 3).to(memory_format=torch.channels_last))
        assert not usable(x.double(), conv(4, 4, 3))
        assert not usable(x.contiguous(), conv(4, 4, 3))
        assert not usable(x[0], conv(4, 4, 3))
        assert not usable(x[:0], conv(4, 4, 3))
        assert not usable(x.cpu(), conv(4, 4, 3).cpu())
        assert not usable(x, conv(4, 4, 3).bfloat16())
        assert not usable(x, conv(4, 4, 3, bias=True))
        assert not usable(x, conv(4, 4, 3, groups=2))
        assert not usable(x, conv(4, 8, 3))
        assert not usable(x, conv(4, 4, 1, padding=0))
        assert not usable(x, conv(4, 4, 9, padding=4))
        assert not usable(x, conv(4, 4, (3, 5), padding=(1, 2)))
        assert not usable(x, conv(4, 4, 3, padding=0))
        assert not usable(x, conv(4, 4, 3, padding="same"))
        assert not usable(x, conv(4, 4, 3, stride=(1, 2)))
        assert not usable(x, conv(4, 4, 3, stride=3))
        assert not usable(x, conv(4, 4, 3, dilation=2))
        assert not usable(x, conv(4, 4, 3, padding_mode="reflect"))
        assert not usable(x, nn.BatchNorm2d(4).cuda())

    def test_in_a_cuda_graph(self):
        from detector.gpu.depthwise import convolve

        generator = torch.Generator().manual_seed(0)
        weight = _conv(16, 3, 2, generator).weight.detach().cuda().requires_grad_()
        pairs = [
            (
                _channels_last(4, 16, 41, 40, generator=generator).cuda(),
                _channels_last(4, 16, 21, 20, generator=generator).cuda(),
            )
            for _ in range(2)
        ]
        x, grad = (t.clone() for t in pairs[0])
        x.requires_grad_()

        def step():
            y = convolve(x, weight, 2)
            return y, *torch.autograd.grad(y, (x, weight), grad)

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
            graph.replay()
            _compare(
                dict(zip(("y", "dx", "dw"), outputs)), _reference(pair[0], weight, 2, pair[1]), 1e-5
            )

    def test_time(self, capsys):
        from detector.gpu.depthwise import convolve

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

        def first_call(run, x, weight, grad) -> float:
            """Seconds until the CPU has queued a step, not until it is done."""
            torch.cuda.synchronize()
            begin = time.perf_counter()
            torch.autograd.grad(run(x, weight), (x, weight), grad)
            return time.perf_counter() - begin

        def inputs(shape, stride):
            x = _channels_last(*shape, dtype=torch.bfloat16, device="cuda").requires_grad_()
            sizes = ((size - 1) // stride + 1 for size in shape[2:])
            grad = _channels_last(*shape[:2], *sizes, dtype=torch.bfloat16, device="cuda")
            return x, _conv(shape[1], 3, stride).weight.detach().cuda().requires_grad_(), grad

        def runs(stride):
            def cast(x, weight):
                return _torch(stride)(x, weight.bfloat16())

            return cast, lambda x, weight: convolve(x, weight, stride)

        for shape, stride in TIMED:
            x, weight, grad = inputs(shape, stride)
            times = []
            for run in runs(stride):

                def forward(run=run, x=x, weight=weight):
                    with torch.no_grad():
                        run(x, weight)

                def both(run=run, x=x, weight=weight, grad=grad):
                    torch.autograd.grad(run(x, weight), (x, weight), grad)

                ahead = milliseconds(forward)
                times += [ahead, milliseconds(both) - ahead]
            # Forward: x is read, y written; backward: x and y's gradient are read, x's written.
            least = [(a * x.numel() + grad.numel()) * x.element_size() / 4.8e9 for a in (1, 2)]
            with capsys.disabled():
                print(
                    "\n{} stride {}: torch {:.3f} + {:.3f} ms, own {:.3f} + {:.3f} ms, {:.3f} + "
                    "{:.3f} at the bandwidth of an H200".format(shape, stride, *times, *least)
                )
            assert all(map(torch.isfinite, torch.tensor(times)))

        for shape in NEW_SHAPES:
            tensors = inputs(shape, 1)
            seconds = [first_call(run, *tensors) for run in runs(1)]
            with capsys.disabled():
                print(
                    "\n{}: first call, torch {:.1f} ms, own {:.1f} ms".format(
                        shape, *(1e3 * s for s in seconds)
                    )
                )


if __name__ == "__main__":
    interpreted()
