"""What a build is asked to do: one frozen value, made once by the command line."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.contexts.locations import MainContext, NamedContext
from builder.contexts.remote import shown
from builder.outputs.exports import Export
from cache.oci.descriptor import Platform
from cache.oci.reference import Reference
from cache.oci.registry_options import RegistryOptions


@dataclass(frozen=True, slots=True)
class DockerfilePlace:
    """Where the Dockerfile is: a path, as given or inside the context, an http or https URL, or "-", standard input."""

    text: str = "Dockerfile"

    @property
    def name(self) -> str:
        """What it is called in messages and on reports: its last part."""
        return posixpath.basename(shown(self.text)) if self.text != "-" else "Dockerfile"

    @property
    def is_url(self) -> bool:
        """True for one that is fetched."""
        return self.text.startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may come in, of each context, archive or layer the unpacked bytes and the files, of each download the bytes;
    and how long a RUN may take (None: as long as it likes)."""

    unpacked_bytes: int = 64 << 30
    files: int = 2_000_000
    download_bytes: int = 32 << 30
    step_s: float | None = None


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """Whether steps are looked up and saved, and where: a repository, or (None) a store in ``directory``.

    Without one (None) that is the builder's own. ``runs`` and ``copies`` say which steps: RUN and WORKDIR, COPY and
    ADD. ``warmed`` is the directory of a store with layers of base images; it need not exist.
    """

    enabled: bool = False
    repository: Reference | None = None
    directory: Path | None = None
    save: bool = True
    runs: bool = True
    copies: bool = True
    warmed: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """How images are pushed: ``retries`` of a whole push after a temporary failure, beside those of each request.

    ``ignore_immutable``: a tag that the registry will not move is warned of.
    """

    check_permission: bool = True
    retries: int = 0
    ignore_immutable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where what is built goes. ``names`` are the image's, be it pushed or not. The files for digests are paths or
    URLs, "" for none. Without ``owners`` the files of a directory belong to whoever builds."""

    exports: tuple[Export, ...] = ()
    names: tuple[Reference, ...] = ()
    push: PushOptions = PushOptions()
    digest_file: str = ""
    image_name_with_digest_file: str = ""
    image_name_tag_with_digest_file: str = ""
    images_file: Path | None = None
    owners: bool = True

    @property
    def destinations(self) -> tuple[Reference, ...]:
        """Everything that is pushed to."""
        return tuple(name for export in self.exports if export.push for name in export.names)


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret in a file, read when a step asks for it."""

    path: Path


@dataclass(frozen=True, slots=True)
class SecretText:
    """A secret that came in an environment variable; it does not show itself."""

    _value: str = field(repr=False)

    def reveal(self) -> str:
        """The secret."""
        return self._value


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSecrets:
    """What steps may ask for by ``--mount``: secrets, and the sockets of SSH agents, by their names."""

    values: Mapping[str, SecretFile | SecretText] = field(default_factory=dict)
    agents: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Everything that one build depends on, apart from the files it reads.

    ``contexts`` are the named ones, by their names in lower case. ``platforms`` are what the image is for,
    ``build_platform`` what this machine is. ``targets`` are the stages to build, "" for the last one; the first is
    what is delivered where nothing else is said. ``clamp_mtime_s`` is the Unix time that no file in a new layer is
    newer than, and that the image says it was made at (SOURCE_DATE_EPOCH; 0 for ``--reproducible``); None leaves
    the times as they are. ``single_snapshot`` makes one layer of all that the build adds to its base;
    what it adds at or below paths that the patterns in ``ignored`` match is left out.
    ``check_only`` reads the Dockerfile and builds nothing; ``dry_run`` also looks the steps up, and tells what a
    build would do, and ``print_plan`` before it does it; ``explain`` tells why steps were not found. ``state_dir`` is
    where the builder keeps its work,
    its local cache and its cache mounts; ``rung`` forces a rung of the sandbox ladder ("" = the best that works).
    """

    context: MainContext
    context_sub_path: str = ""
    dockerfile: DockerfilePlace = DockerfilePlace()
    targets: tuple[str, ...] = ("",)
    single_snapshot: bool = False
    ignored: tuple[str, ...] = ()
    check_only: bool = False
    dry_run: bool = False
    print_plan: bool = False
    explain: bool = False
    contexts: Mapping[str, NamedContext] = field(default_factory=dict)
    secrets: StepSecrets = StepSecrets()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[Platform, ...]
    build_platform: Platform
    clamp_mtime_s: int | None = None
    state_dir: Path
    rung: str = ""
    cache: CacheOptions = CacheOptions()
    output: OutputOptions = OutputOptions()
    registry: RegistryOptions = field(default_factory=RegistryOptions)
    limits: Limits = DEFAULT_LIMITS

    @property
    def target(self) -> str:
        """The first target."""
        return self.targets[0]

    @property
    def platform(self) -> Platform:
        """The first platform."""
        return self.platforms[0]

    @property
    def all_targets(self) -> tuple[str, ...]:
        """The targets, and those that only an export names."""
        named = (export.target for export in self.output.exports if export.target)
        return tuple(dict.fromkeys((*self.targets, *named)))
