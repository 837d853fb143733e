"""Layers → directories: unpacked as they come, a few at once, and given out only when they are what they shall be.

A layer may need those below it: their directories where it does not list its own, and what it hides or links to. Its
thread then waits for them, and its stream waits for the thread. That ends, since work begins in the order in which it
is asked for, lowest layers first: whatever is waited for has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from builder.errors import BuildError
from builder.layer.chunk_stream import read_in_thread
from builder.layer.origins import BuildLayers
from builder.layer.rootfs import Tree
from builder.layer.unpack import unpack_layer
from builder.options import Limits
from cache.errors import CacheError
from cache.oci.errors import OCIError
from cache.oci.layer import Layer

PARALLEL = 4
T = TypeVar("T")


class Unpacking:
    """The unpacking of one build's layers."""

    def __init__(self, layers: BuildLayers, limits: Limits) -> None:
        self._layers = layers
        self._limits = limits
        self._slots = asyncio.Semaphore(PARALLEL)
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="unpack")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: BaseException | None = None

    async def begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The work, which has begun when this returns, in turn; it goes on when its caller is cancelled.

        Raises what other work has failed with: so will the build.
        """
        await self._slots.acquire()
        if self._failure is not None:
            self._slots.release()
            raise self._failure
        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()  # to ask is to have seen it: nobody else may
        self._failure = self._failure or failure
        self._slots.release()

    async def close(self) -> None:
        """Ends all work; whoever waits for it sees CancelledError."""
        self._failure = self._failure or BuildError("interrupted")  # nothing begins any more
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown()

    async def unpack(
        self, layer: Layer, directory: Path, below: Callable[[], Coroutine[Any, Any, Tree]], *, overlay: bool
    ) -> bool:
        """Unpacks a layer on what ``below`` waits for: into a new directory, or without ``overlay`` in place.

        True when all of it could be made here (device nodes, for one, may be refused). Raises BuildError for what
        cannot be fetched, is not the blob that was asked for or no layer, and when its content is not what the image's
        configuration says. The directory is good for nothing then.
        """
        try:
            return await self._unpack(layer, directory, below, overlay=overlay)
        except (CacheError, OCIError) as error:
            raise BuildError(f"cannot fetch layer {layer.descriptor.digest}: {error}") from error

    async def _unpack(
        self, layer: Layer, directory: Path, below: Callable[[], Coroutine[Any, Any, Tree]], *, overlay: bool
    ) -> bool:
        loop = asyncio.get_running_loop()

        def lower() -> Tree:
            return asyncio.run_coroutine_threadsafe(below(), loop).result()

        async with self._layers.stream(layer) as stream:
            if not overlay:
                await below()
            read = partial(unpack_layer, stream, directory, overlay=overlay, lower=lower, limits=self._limits)
            try:
                unpacked = await read_in_thread(stream, read, self._threads)
            except BuildError as error:
                raise BuildError(f"cannot unpack layer {layer.descriptor.digest}: {error}") from error
        if unpacked.diff_id != layer.diff_id:
            raise BuildError(
                f"layer {layer.descriptor.digest} does not hold what its image says: expected diff_id {layer.diff_id},"
                f" got {unpacked.diff_id}"
            )
        return not unpacked.skipped


async def finished(tasks: Sequence[asyncio.Future[T]]) -> list[T]:
    """The results of all, or at once the exception of the first that has one. To cancel it cancels none of them."""
    if tasks:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    return [task.result() for task in tasks]
