"""What Kaniko itself accepts: names and kinds, noted from the sources of its original (v1.24) and of its two forks."""

from __future__ import annotations

BOOL = """
    cache cache-copy-layers cache-run-layers cleanup compressed-caching dryrun force force-build-metadata ignore-var-run
    insecure insecure-pull log-timestamp materialize no-push no-push-cache pre-cleanup preserve-context
    push-ignore-immutable-tag-errors reproducible single-snapshot skip-default-registry-fallback
    skip-push-permission-check skip-tls-verify skip-tls-verify-pull skip-unused-stages use-new-run whitelist-var-run
"""
TEXT = """
    azure-container-registry-config bucket cache-dir cache-repo cache-ttl compression compression-level context
    context-sub-path digest-file dockerfile image-download-retry image-format image-fs-extract-retry
    image-name-tag-with-digest-file image-name-with-digest-file kaniko-dir log-format oci-layout-path push-retry
    snapshot-mode snapshotMode tar-path tarPath upload-tar upload-tar-retry verbosity
"""
LIST = """
    annotation build-arg credential-helpers custom-platform customPlatform destination git ignore-path insecure-registry
    label registry-certificate registry-client-cert registry-map registry-mirror secret skip-tls-verify-registry target
"""
SHORT = {"b": "bucket", "c": "context", "d": "destination", "f": "dockerfile", "v": "verbosity"}

WARMER_BOOL = "force insecure-pull log-timestamp skip-default-registry-fallback skip-tls-verify-pull"
WARMER_TEXT = "cache-dir cache-ttl log-format verbosity"
WARMER_LIST = """
    build-arg customPlatform dockerfile image insecure-registry registry-certificate registry-client-cert registry-map
    registry-mirror skip-tls-verify-registry
"""
WARMER_SHORT = {"c": "cache-dir", "d": "dockerfile", "f": "force", "i": "image", "v": "verbosity"}

PUSH_BOOL = """
    insecure insecure-pull push-ignore-immutable-tag-errors skip-default-registry-fallback skip-push-permission-check
    skip-tls-verify skip-tls-verify-pull
"""
PUSH_TEXT = "image-download-retry push-retry"
PUSH_LIST = """
    credential-helpers destination insecure-registry registry-certificate registry-client-cert registry-map
    registry-mirror skip-tls-verify-registry
"""
PUSH_SHORT = {"d": "destination"}

VARIABLES = """
    AWS_* AZURE_CLIENT_ID AZURE_CLIENT_SECRET AZURE_ENVIRONMENT AZURE_STORAGE_ACCESS_KEY AZURE_TENANT_ID BENCHMARK_FILE
    BUILDER_OUTPUT CI_REGISTRY CI_REGISTRY_PASSWORD CI_REGISTRY_USER DOCKER_AUTH_CONFIG DOCKER_CONFIG GIT_PASSWORD
    GIT_PULL_METHOD GIT_TOKEN GIT_USERNAME GOOGLE_APPLICATION_CREDENTIALS HTTPS_PROXY HTTP_PROXY KANIKO_<HOST>_PASSWORD
    KANIKO_<HOST>_USER KANIKO_CLEANUP KANIKO_DIR KANIKO_IGNORE_ASSERTIONS KANIKO_NO_PUSH KANIKO_PRESERVE_CONTEXT
    KANIKO_PRE_CLEANUP KANIKO_PRINT_PLAN KANIKO_REGISTRY_MAP KANIKO_REGISTRY_MIRROR KANIKO_TELEMETRY_ENDPOINT
    KANIKO_TELEMETRY_OMIT_DOCKERFILE NO_PROXY OTEL_* REGISTRY_AUTH_FILE S3_ENDPOINT S3_FORCE_PATH_STYLE
    SNAPSHOT_TIMEOUT_DURATION SSL_CERT_DIR SSL_CERT_FILE STACKLOG_PATH UPSTREAM_CLIENT_TYPE XDG_RUNTIME_DIR container
"""

GATES = """
    BUILDKIT_ARG_ENV_PRECEDENCE CACHE_LOOKAHEAD CACHE_PROBE_AFTER_MISS CHOWN_ON_IMPLICIT_DIRS CLEAN_KANIKO_DIR
    COPY_AS_ROOT COPY_CHMOD_ON_IMPLICIT_DIRS CROSS_REPO_MOUNT DEPRECATE_INTER_STAGE_RESTORE DISABLE_HTTP2 EXPAND_HEREDOC
    HASH_DIR_FRAMING IGNORE_CACHED_MANIFEST INFER_CROSS_STAGE_CACHE_KEY NO_PROPAGATE_ANNOTATIONS OCI_SCRATCH_BASE
    OCI_WARMER PATH_SCOPED_REGISTRY_AUTH PRECOMPILE_DOCKERIGNORE PRESERVE_HARDLINKS PRESERVE_MOUNTED_PATHS
    RELATIVE_LINK_TARGETS REPRODUCIBLE_PRESERVE_BASE_LAYERS RESOLVE_CACHE_KEY ROLLING_CACHE_KEY RUN_HONOR_GROUP
    RUN_MOUNT_BIND RUN_VIA_TINI SCOPED_DOCKERIGNORE SECUREJOIN_EXTRACTION SHARED_BASE_CACHE SKIP_CACHED_STAGES
    SKIP_RELABEL_RECOMPRESS SKIP_WRITE_WHITEOUTS UNTAR_SKIP_ROOT VOLUME_SKIP_MKDIR WARMER_CACHE_LOCK
"""
