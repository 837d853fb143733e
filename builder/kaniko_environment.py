"""The environment variables of Kaniko's executor and warmer as data, those apart that give flags their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cache.flags import Effect


@dataclass(frozen=True, slots=True)
class Variable:
    """Some variables, and what they do here; ``unlike`` says how that differs from Kaniko."""

    names: tuple[str, ...]
    help: str
    effect: Effect = Effect.SAME
    unlike: str = ""


VARIABLES = (
    Variable(
        ("KANIKO_<HOST>_USER", "KANIKO_<HOST>_PASSWORD"),
        "Credentials of a registry, its name in capitals with _ for . and -; its first labels may be left out.",
    ),
    Variable(("DOCKER_CONFIG",), "The directory of config.json, with credentials and credential helpers."),
    Variable(
        ("DOCKER_AUTH_CONFIG",),
        "What config.json would hold.",
        unlike="It comes before the file, which still counts for other registries.",
    ),
    Variable(
        ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"),
        "Podman's file of credentials, which counts where docker's is missing.",
    ),
    Variable(("CI_REGISTRY", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"), "What a job of GitLab has for its registry."),
    Variable(("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"), "The service principal that Azure's registries are shown."),
    Variable(
        ("AZURE_TENANT_ID", "AZURE_ENVIRONMENT"),
        "A registry takes the service principal itself, and knows where it belongs.",
        Effect.IGNORED,
    ),
    Variable(("GOOGLE_APPLICATION_CREDENTIALS",), "The file of Google's credentials, for contexts and registries."),
    Variable(("AZURE_STORAGE_ACCESS_KEY",), "The key of the storage account that a context is in."),
    Variable(("S3_ENDPOINT", "S3_FORCE_PATH_STYLE"), "Where the S3 is that a context is in, and how it is addressed."),
    Variable(("AWS_*",), "What every AWS tool reads, for contexts and registries."),
    Variable(("GIT_TOKEN", "GIT_USERNAME", "GIT_PASSWORD"), "Credentials for a context in git."),
    Variable(("GIT_PULL_METHOD",), "What git:// stands for: https, which it is if not set, http or git."),
    Variable(("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"), "The proxy that registries and contexts are reached through."),
    Variable(("SSL_CERT_DIR", "SSL_CERT_FILE"), "The certificate authorities that are trusted."),
    Variable(("BUILDER_OUTPUT",), "A directory; what was pushed is written to its file images, an object a line."),
    Variable(("UPSTREAM_CLIENT_TYPE",), "Who it is that builds; it is added to the User-Agent that registries see."),
    Variable(
        ("KANIKO_TELEMETRY_ENDPOINT", "KANIKO_TELEMETRY_OMIT_DOCKERFILE", "OTEL_*"),
        "No traces are sent; --progress=json tells of each step what it took.",
        Effect.IGNORED,
    ),
    Variable(("BENCHMARK_FILE",), "--progress=json tells of each step what it took.", Effect.IGNORED),
    Variable(
        ("SNAPSHOT_TIMEOUT_DURATION",),
        "No file system is read as a whole; --step-timeout limits a RUN.",
        Effect.IGNORED,
    ),
    Variable(("KANIKO_IGNORE_ASSERTIONS",), "There are no assertions to be switched off.", Effect.IGNORED),
    Variable(("STACKLOG_PATH",), "No stacks are logged.", Effect.IGNORED),
    Variable(("container",), "The builder runs anywhere: it never touches the root it runs in.", Effect.IGNORED),
)

ON_GATES = (
    "BUILDKIT_ARG_ENV_PRECEDENCE",
    "CACHE_LOOKAHEAD",
    "CACHE_PROBE_AFTER_MISS",
    "CHOWN_ON_IMPLICIT_DIRS",
    "COPY_AS_ROOT",
    "CROSS_REPO_MOUNT",
    "DISABLE_HTTP2",
    "EXPAND_HEREDOC",
    "HASH_DIR_FRAMING",
    "INFER_CROSS_STAGE_CACHE_KEY",
    "NO_PROPAGATE_ANNOTATIONS",
    "OCI_SCRATCH_BASE",
    "PATH_SCOPED_REGISTRY_AUTH",
    "PRECOMPILE_DOCKERIGNORE",
    "PRESERVE_HARDLINKS",
    "RELATIVE_LINK_TARGETS",
    "REPRODUCIBLE_PRESERVE_BASE_LAYERS",
    "RESOLVE_CACHE_KEY",
    "ROLLING_CACHE_KEY",
    "RUN_HONOR_GROUP",
    "RUN_MOUNT_BIND",
    "RUN_VIA_TINI",
    "SCOPED_DOCKERIGNORE",
    "SECUREJOIN_EXTRACTION",
    "SHARED_BASE_CACHE",
    "SKIP_CACHED_STAGES",
    "SKIP_RELABEL_RECOMPRESS",
    "SKIP_WRITE_WHITEOUTS",
    "VOLUME_SKIP_MKDIR",
    "WARMER_CACHE_LOCK",
)
"""Kaniko's gates (``FF_KANIKO_…``) for what is always so here."""

OTHER_GATES: Mapping[str, str] = {
    "CLEAN_KANIKO_DIR": "There is nothing to clean: a build's own directory goes with it.",
    "COPY_CHMOD_ON_IMPLICIT_DIRS": "Off: directories made on the way have mode 0755.",
    "DEPRECATE_INTER_STAGE_RESTORE": "There is nothing to restore: each stage has a root of its own.",
    "IGNORE_CACHED_MANIFEST": "No manifests of base images are kept; the registry is asked.",
    "OCI_WARMER": "What is warmed is a store, neither a tar nor a layout.",
    "PRESERVE_MOUNTED_PATHS": "The build root is private: nothing is mounted in it.",
    "UNTAR_SKIP_ROOT": "Off: an archive's entry for its root holds for the directory that ADD unpacks it to.",
}
"""The rest of them, and what is so here."""
