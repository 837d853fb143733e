"""The flags of ``crossdock warm`` as data: those of Kaniko's warmer, and our own."""

from __future__ import annotations

from cache import registry_flags
from cache.flags import Effect, Flag, Kind, with_effect

BOOL, TEXT, LIST = Kind.BOOL, Kind.TEXT, Kind.LIST

_OUR_OWN = {"credential-helpers", "insecure", "skip-tls-verify"}

FLAGS = (
    Flag("image", LIST, "An image, as with IMAGE.", short="i"),
    Flag(
        "dockerfile",
        LIST,
        "A Dockerfile whose images are fetched (its bases' ONBUILD too), or its URL.",
        short="d",
    ),
    Flag("build-arg", LIST, "NAME=VALUE for the ARGs before the first FROM."),
    Flag(
        "platform",
        LIST,
        "OS/ARCHITECTURE[/VARIANT]; this machine's if none.",
        also=("customPlatform", "custom-platform"),
    ),
    Flag(
        "cache-dir",
        TEXT,
        "The directory to warm, for crossdock build --cache-dir; /cache where there is one, and nothing else is named.",
        short="c",
        unlike="It is a store of ours, and holds no layouts.",
    ),
    *with_effect(
        Effect.OWN,
        Flag("proxy", TEXT, "HOST[:PORT] of the proxy to warm, or its URL."),
        Flag("store", TEXT, "URL of the store to warm: file:///PATH or s3://BUCKET/PREFIX."),
    ),
    *with_effect(
        Effect.IGNORED,
        Flag("force", BOOL, "What is held is found by its digest, so it is never out of date.", short="f"),
        Flag("cache-ttl", TEXT, "What is held is found by its digest, so it is never out of date."),
        Flag("log-format", TEXT, "One line is printed for each image."),
        Flag("log-timestamp", BOOL, "One line is printed for each image."),
        Flag("verbosity", TEXT, "One line is printed for each image.", short="v"),
    ),
    *(flag for flag in registry_flags.FLAGS if flag.name not in _OUR_OWN),
    *with_effect(Effect.OWN, *(flag for flag in registry_flags.FLAGS if flag.name in _OUR_OWN)),
)
