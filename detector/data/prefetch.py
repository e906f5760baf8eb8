"""`map` over threads that work ahead (prefetch), with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch_map(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Iterator[Result]:
    """`map(function, items)` over threads (OpenCV releases the GIL).

    Args:
        threads: 0 computes each result when it is requested.
        ahead: most results that are pending or ready besides the one requested.
    """
    if not threads:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="prefetch") as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # also if the caller stops early
            for future in pending:
                future.cancel()
