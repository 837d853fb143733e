"""Steps → cache keys (design: what can change a layer is in its key, and nothing else; pure).

The chain of a stage starts at its base and goes on at each step that may add a layer. Metadata instructions are not in
it: what they change enters the keys of the commands that can see it.
"""

from __future__ import annotations

from builder.steps import CopyFiles, MakeDirectory, RunCommand
from cache.keys import CacheKey, KeyBuilder
from cache.oci.config import ImageConfig


def base_key(config: ImageConfig, clamp_mtime_s: int | None) -> CacheKey:
    """The start of a stage's chain: the base's layers and platform, whatever the base is called.

    The clamp is part of it, because layers made under another one hold other times.
    """
    key = KeyBuilder("base").text("platform", str(config.platform))
    key.items("diff_ids", (str(diff_id) for diff_id in config.rootfs.diff_ids))
    return key.text("clamp_mtime_s", str(clamp_mtime_s)).key()


def run_key(parent: CacheKey, step: RunCommand) -> CacheKey:
    """RUN: the command, and all of the environment that it sees and that is not a predefined proxy argument."""
    key = KeyBuilder("run").text("parent", parent.hex).items("argv", step.argv)
    key.mapping("environment", step.keyed_environment)
    return key.text("user", step.user).text("cwd", step.cwd).key()


def copy_key(parent: CacheKey, step: CopyFiles, content: str) -> CacheKey:
    """COPY and ADD: ``content`` stands for what is copied (a digest of the files, or the key of the source stage)."""
    key = KeyBuilder("add" if step.unpack else "copy").text("parent", parent.hex).text("content", content)
    key.text("destination", step.destination).text("workdir", step.workdir)
    key.text("chown", step.chown).text("chmod", "" if step.chmod is None else f"{step.chmod:o}")
    return key.key()


def stage_content(source: CacheKey, step: CopyFiles) -> str:
    """What a COPY --from takes, as far as it is known before the source stage is built."""
    return KeyBuilder("stage").text("stage", source.hex).items("sources", step.sources).key().hex


def directory_key(parent: CacheKey, step: MakeDirectory) -> CacheKey:
    """WORKDIR: the path, and whom a new directory belongs to."""
    return KeyBuilder("workdir").text("parent", parent.hex).text("path", step.path).text("user", step.user).key()
