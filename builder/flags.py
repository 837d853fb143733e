"""The flags of ``crossdock build`` and ``crossdock push`` as data: those of Kaniko's executor, and our own."""

from __future__ import annotations

from cache import registry_flags
from cache.flags import Effect, Flag, Kind, with_effect

BOOL, TEXT, LIST = Kind.BOOL, Kind.TEXT, Kind.LIST

_PUSH = (
    Flag("push-retry", TEXT, "How often a whole push is tried again; requests are always tried again.", default="0"),
    Flag("push-ignore-immutable-tag-errors", BOOL, "Warn of a tag that the registry will not move, and go on."),
    Flag("skip-push-permission-check", BOOL, "Do not check first that the destinations accept a push."),
)

_KANIKO_S = (
    Flag(
        "context",
        TEXT,
        "The build context: a directory, a git repository, or a tar: see docs/contexts.md.",
        short="c",
        unlike="The default is the working directory, which is /workspace in the image.",
    ),
    Flag(
        "bucket",
        TEXT,
        "The bucket of a context that is called context.tar.gz: in Google's storage, or as its URL says.",
        short="b",
    ),
    Flag("context-sub-path", TEXT, "A directory inside the context to use instead of all of it."),
    Flag(
        "git",
        LIST,
        "branch=NAME, recurse-submodules=false or insecure-skip-tls=true, for a context in git.",
        unlike="Submodules are fetched if not told otherwise. single-branch and depth change nothing: of one commit no"
        " more is fetched anyway.",
    ),
    Flag(
        "dockerfile",
        TEXT,
        "The Dockerfile, as given or inside the context; a URL; or - for the standard input.",
        short="f",
        default="Dockerfile",
    ),
    Flag("target", LIST, "A stage to build (name or number), the last one if not given; outputs take the first."),
    Flag(
        "dry-run",
        BOOL,
        "Only print the plan: each step with its key, and whether the cache has it.",
        also=("dryrun",),
    ),
    Flag(
        "build-arg",
        LIST,
        "NAME=VALUE for an ARG; NAME alone takes the value from the environment.",
        unlike="A name that the environment has not is left out, as in docker, and not empty.",
    ),
    Flag("secret", LIST, "id=NAME,src=FILE or id=NAME,env=VARIABLE, for RUN --mount=type=secret."),
    Flag("label", LIST, "NAME=VALUE: a label to set on the image."),
    Flag(
        "custom-platform",
        LIST,
        "OS/ARCHITECTURE[/VARIANT][,…] to build for; several make an index.",
        also=("customPlatform", "platform"),
    ),
    Flag("destination", LIST, "Where to push the image.", short="d"),
    Flag("no-push", BOOL, "Build, and push the image nowhere.", env=("KANIKO_NO_PUSH",)),
    Flag("tar-path", TEXT, "Also write the image as a docker-save archive.", also=("tarPath",)),
    Flag("upload-tar", TEXT, "Also send the image as a docker-save archive to this URL, by POST."),
    Flag("upload-tar-retry", TEXT, "How often that is tried again after a temporary failure.", default="3"),
    Flag("oci-layout-path", TEXT, "Also write the image as an OCI layout directory."),
    Flag(
        "image-format",
        TEXT,
        "Media types of manifest and layers: oci or docker.",
        default="oci",
        unlike="The default is oci, and not what the base image has.",
    ),
    Flag("compression", TEXT, "How layers are compressed: gzip, zstd or uncompressed.", default="gzip"),
    Flag("compression-level", TEXT, "1 to 9 for gzip, 1 to 22 for zstd; the usual one if not given."),
    Flag("annotation", LIST, "KEY=VALUE for the manifest; manifest|index|…[PLATFORM]:KEY=VALUE says where."),
    Flag("digest-file", TEXT, "Write the image's digest to this file, or by PUT to this URL."),
    Flag("image-name-with-digest-file", TEXT, "Write NAME@DIGEST there, one line for each destination."),
    Flag("image-name-tag-with-digest-file", TEXT, "Write NAME:TAG@DIGEST there, one line for each destination."),
    *_PUSH,
    Flag("cache", BOOL, "Look steps up in the cache, and save what had to be built."),
    Flag(
        "cache-repo",
        TEXT,
        "The repository that holds the cache, or oci:DIRECTORY; the builder's own store if not given.",
        unlike="No repository is made up from the destination's name. A directory is a store, and holds no layouts.",
    ),
    Flag("no-push-cache", BOOL, "Look steps up in the cache, and save none."),
    Flag("cache-run-layers", BOOL, "Look up and save the steps of RUN and WORKDIR.", default="true"),
    Flag(
        "cache-copy-layers",
        BOOL,
        "Look up and save the steps of COPY and ADD.",
        default="true",
        unlike="The default is true.",
    ),
    Flag(
        "cache-dir",
        TEXT,
        "A directory that crossdock warm has filled: layers of base images are read from there first.",
        default="/cache",
    ),
    Flag(
        "reproducible",
        BOOL,
        "Set all times in the image to 0, so that equal inputs give equal digests.",
        unlike="The base's layers stay as they are.",
    ),
    Flag(
        "single-snapshot",
        BOOL,
        "One layer for all that the build adds to its base; steps are cached as ever.",
        also=("squash",),
    ),
    Flag(
        "ignore-path",
        LIST,
        "Leave out of the image what the build adds at or below this path; * and ** are wildcards.",
        unlike="Steps see what earlier ones put there, from the cache too: the layers of the cache keep it.",
    ),
    *registry_flags.FLAGS,
    Flag("log-format", TEXT, "How progress is shown where --progress does not say: color, text or json."),
    Flag(
        "state-dir",
        TEXT,
        "The builder's own directory.",
        also=("kaniko-dir",),
        env=("CROSSDOCK_STATE", "KANIKO_DIR"),
        unlike="The program stays where it is. The image sets CROSSDOCK_STATE, which comes first.",
    ),
)
"""What is done as Kaniko does it."""

_OUR_OWN = with_effect(
    Effect.OWN,
    Flag("max-unpacked-bytes", TEXT, "The most that a context, an archive or a layer may hold.", default="64GiB"),
    Flag("max-files", TEXT, "The most files that a context, an archive or a layer may hold.", default="2000000"),
    Flag("max-download-bytes", TEXT, "The most that ADD may fetch from one URL.", default="32GiB"),
    Flag("step-timeout", TEXT, "The longest that a RUN may take, such as 90s or 1h30m; no limit if not given."),
    Flag("check", BOOL, "Only check the Dockerfile by BuildKit's rules; status 1 when they find something."),
    Flag("explain", BOOL, "Say of each step that the cache does not have in what its key is unlike the last build's."),
    Flag("build-context", LIST, "NAME=DIRECTORY, docker-image://IMAGE, oci-layout://PATH, or what --context takes."),
    Flag("ssh", LIST, "default or NAME=SOCKET: an SSH agent, for RUN --mount=type=ssh."),
    Flag(
        "output",
        LIST,
        "type=image|registry|docker|oci|local|tar,KEY=VALUE,…: an output as BuildKit has it, with target=STAGE for a"
        " stage of its own; or a directory for the files, or - for a tar of them.",
        short="o",
    ),
    Flag("force-compression", BOOL, "Compress the layers of base images so too."),
    Flag("print-plan", BOOL, "Print what --dry-run prints, and build.", env=("KANIKO_PRINT_PLAN",)),
    Flag("isolation", TEXT, "How RUN is isolated: auto, overlay, namespaces or chroot.", default="auto"),
    Flag("progress", TEXT, "How progress is shown: auto, plain, or json (one object a line); auto if not given."),
)

_IGNORED = with_effect(
    Effect.IGNORED,
    Flag("cache-ttl", TEXT, "Entries live as long as the registry or the store keeps them."),
    Flag("cleanup", BOOL, "The build root is always removed.", env=("KANIKO_CLEANUP",)),
    Flag("pre-cleanup", BOOL, "The build root is always new.", env=("KANIKO_PRE_CLEANUP",)),
    Flag("compressed-caching", BOOL, "Layers never stay in memory."),
    Flag("force", BOOL, "The builder runs anywhere: it never touches the root it runs in."),
    Flag("force-build-metadata", BOOL, "Metadata is always computed."),
    Flag(
        "ignore-var-run",
        BOOL,
        "The build root is private, so nothing of the container's is in it.",
        also=("whitelist-var-run",),
    ),
    Flag("image-download-retry", TEXT, "Downloads are always retried."),
    Flag("image-fs-extract-retry", TEXT, "Downloads are always retried."),
    Flag("log-timestamp", BOOL, "Lines have no times; those of --log-format=json always have."),
    Flag("preserve-context", BOOL, "The context is never changed.", env=("KANIKO_PRESERVE_CONTEXT",)),
    Flag("skip-unused-stages", BOOL, "Unused stages are never built."),
    Flag("snapshot-mode", TEXT, "Changes are found without reading unchanged files.", also=("snapshotMode",)),
    Flag("use-new-run", BOOL, "Changes are found without reading unchanged files."),
    Flag("verbosity", TEXT, "There is one level: what steps do and say.", short="v"),
)

_REFUSED = with_effect(
    Effect.REFUSED,
    Flag(
        "materialize",
        BOOL,
        "The files of the image are put together in a root of their own, and never in place of this one's: take"
        " --output=type=local,dest=DIRECTORY.",
    ),
    Flag(
        "azure-container-registry-config",
        TEXT,
        "That file is not read: give the service principal as AZURE_CLIENT_ID and AZURE_CLIENT_SECRET.",
    ),
)

BUILD = (*_KANIKO_S, *_OUR_OWN, *_IGNORED, *_REFUSED)
"""All that ``crossdock build`` takes."""

PUSH = (
    Flag("destination", LIST, "Where to push the image.", short="d"),
    Flag("digest-file", TEXT, "Write the image's digest to this file, or by PUT to this URL.", effect=Effect.OWN),
    Flag("image-name-with-digest-file", TEXT, "Write NAME@DIGEST lines there.", effect=Effect.OWN),
    *_PUSH,
    *registry_flags.FLAGS,
    *(flag for flag in _IGNORED if flag.name == "image-download-retry"),
)
"""All that ``crossdock push`` takes."""
