"""What a build does, step by step: values with all that is needed to do them, and nothing left to interpret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from builder.contexts.remote import RemoteSource
from builder.dockerfile.mounts import Mount
from builder.errors import Span
from builder.events import StepName
from builder.execution.chmod import ModeChange
from builder.planning.plan import StagePlan
from builder.planning.sources import Origin, Selection
from cache.oci.config import ImageConfig

PROXY_ARGUMENTS = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Arguments that every RUN sees without an ARG, and that are not part of its key (Dockerfile reference, "Predefined
ARGs")."""


class StepMount(msgspec.Struct, frozen=True):
    """A mount of a RUN: ``target`` is absolute ("" where a secret is only a variable); ``origin`` is whose files a bind
    or a cache begins with, None for nobody's."""

    mount: Mount
    target: str
    origin: Origin | None = None

    @property
    def selection(self) -> Selection:
        """The files that it shows: the source, or all."""
        return Selection(patterns=(self.mount.source or "/",))


Network = Literal["default", "none", "host"]


class _Step(msgspec.Struct, frozen=True, kw_only=True):
    """``config`` is the image's configuration after the step; ``created_by`` what its history says, "" for nothing."""

    name: StepName
    span: Span
    config: ImageConfig
    created_by: str


class Metadata(_Step, frozen=True, kw_only=True):
    """Changes the configuration only."""


class RunCommand(_Step, frozen=True, kw_only=True):
    """RUN: ``environment`` is all that the command gets; ``keyed_environment`` leaves out what must not change the key.

    ``user`` is the text of USER ("" = root), resolved in the image when the command runs. ``script`` is a file, by its
    name, that is there for the time of the command.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    keyed_environment: Mapping[str, str]
    user: str
    cwd: str
    mounts: tuple[StepMount, ...] = ()
    script: tuple[str, str] | None = None
    network: Network = "default"


class CopyFiles(_Step, frozen=True, kw_only=True):
    """COPY and ADD: ``remotes`` are fetched, ``documents`` are names and contents of files that the Dockerfile itself
    holds; ``chown`` "" for none. ``unpack``: archives are unpacked. ``link``: the layer is the same on any other.
    """

    selection: Selection
    destination: str
    workdir: str
    origin: Origin
    documents: tuple[tuple[str, str], ...] = ()
    remotes: tuple[RemoteSource, ...] = ()
    chown: str = ""
    chmod: ModeChange | None = None
    unpack: bool = False
    link: bool = False


class MakeDirectory(_Step, frozen=True, kw_only=True):
    """WORKDIR: ``path`` is absolute; a directory that is missing will belong to ``user``."""

    path: str
    user: str


LayerStep = RunCommand | CopyFiles | MakeDirectory
Step = Metadata | LayerStep


class StageSteps(msgspec.Struct, frozen=True):
    """A stage as the engine does it: its steps, and the configuration that it starts from."""

    plan: StagePlan
    base_config: ImageConfig
    steps: tuple[Step, ...] = ()

    @property
    def config(self) -> ImageConfig:
        """The configuration after the last step, without the history of this stage."""
        return self.steps[-1].config if self.steps else self.base_config
