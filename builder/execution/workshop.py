"""What does steps, put together when the first one has to be done: a build whose every step hits pays for none of it,
not even for importing it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder import events
from builder.execution.copy import Source
from builder.layer.origins import BuildLayers
from builder.options import BuildOptions
from builder.outputs.exports import step_format
from builder.planning.graph import Position

if TYPE_CHECKING:
    from builder.contexts.remotes import Remotes
    from builder.execution.perform import Performer
    from builder.execution.stage_root import RootFactory
    from builder.sandbox.cache_mounts import CacheDirectories
    from builder.sandbox.isolation import Isolation


@dataclass(slots=True, eq=False)
class Workshop:
    """Owns what the steps of one build share: the roots of its stages, and the cache mounts of its state directory."""

    options: BuildOptions
    work: Path
    layers: BuildLayers
    environ: Mapping[str, str]
    listen: events.Listener
    _remotes: Remotes | None = None
    _roots: RootFactory | None = None
    _caches: CacheDirectories | None = None

    def remotes(self) -> Remotes:
        """What ADD fetches."""
        if self._remotes is None:
            from builder.contexts.git_program import Git
            from builder.contexts.remotes import Remotes

            self._remotes = Remotes(self.work / "remotes", Git(self.environ, self.options.limits), self.options.limits)
        return self._remotes

    def roots(self) -> RootFactory:
        """Where the files of stages are."""
        if self._roots is None:
            from builder.execution.stage_root import RootFactory
            from builder.execution.unpacking import Unpacking

            unpacking = Unpacking(self.layers, self.options.limits)
            self._roots = RootFactory(self._probe, self.options.state_dir, self.work, unpacking)
        return self._roots

    def performer(self, sources: Mapping[Position, tuple[Source, ...]]) -> Performer:
        """Who does the steps of stages whose copies from contexts take ``sources``."""
        from builder.execution.mounting import Mounting
        from builder.execution.perform import Performer
        from builder.sandbox.cache_mounts import CacheDirectories
        from builder.sandbox.foreign import ForeignCode

        options = self.options
        if self._caches is None:
            self._caches = CacheDirectories.below(options.state_dir)
        return Performer(
            self.layers.store,
            self.work,
            sources,
            Mounting(self.work / "mounts", options.secrets, self._caches, sources),
            self.remotes(),
            self.listen,
            ForeignCode(options.build_platform, self.work),
            options.clamp_mtime_s,
            step_format(options.output.exports),
            options.limits,
        )

    async def close(self) -> None:
        """Gives everything up, and keeps the cache mounts within their bounds."""
        if self._roots is not None:
            await self._roots.close()
        if self._caches is not None:
            await asyncio.to_thread(self._caches.trim)

    def _probe(self) -> Isolation:
        from builder.sandbox.isolation import Rung, probe

        isolation = probe(self.work, Rung(self.options.rung) if self.options.rung else None)
        self.listen(events.Note(f"isolation: {isolation}" + (f"; {isolation.reason}" if isolation.reason else "")))
        return isolation
