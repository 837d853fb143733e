"""Steps → cache keys (design: what can change a layer is in its key, and nothing else; pure).

The chain of a stage starts at its base and goes on at each step that may add a layer. Metadata instructions are not in
it: what they change enters the keys of the commands that can see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builder.planning.sources import Selection
from builder.planning.steps import CopyFiles, MakeDirectory, RunCommand, StepMount
from cache.keys import CacheKey, KeyBuilder
from cache.oci.config import ImageConfig
from cache.oci.layer import Layer


def base_key(config: ImageConfig, clamp_mtime_s: int | None) -> KeyBuilder:
    """The start of a stage's chain: the base's layers and platform, whatever the base is called.

    The clamp is part of it, because layers made under another one hold other times.
    """
    key = KeyBuilder("base").text("platform", str(config.platform))
    key.items("diff_ids", (str(diff_id) for diff_id in config.rootfs.diff_ids))
    return key.text("clamp_mtime_s", str(clamp_mtime_s))


def run_key(parent: CacheKey, step: RunCommand, contents: Mapping[int, str]) -> KeyBuilder:
    """RUN: the command, and all of the environment that it sees and that is not a predefined proxy argument.

    Of mounts what they show, ``contents`` by their number; of a secret or an agent only the name, never the value.
    """
    key = KeyBuilder("run").text("parent", parent.hex).items("argv", step.argv)
    key.mapping("environment", step.keyed_environment)
    key.text("user", step.user).text("cwd", step.cwd)
    if step.network != "default":
        key.text("network", step.network)
    if step.script is not None:
        key.items("script", step.script)
    for number, mount in enumerate(step.mounts):
        _add_mount(key, mount, contents.get(number, ""))
    return key


def _add_mount(key: KeyBuilder, step: StepMount, content: str) -> None:
    mount = step.mount
    key.items("mount", (mount.type, step.target, mount.source, mount.id, mount.env, content))
    numbers = (mount.mode, mount.uid, mount.gid, mount.size_bytes, mount.writable)
    key.items("access", map(str, numbers))


def copy_key(parent: CacheKey, step: CopyFiles, contents: Mapping[int, str], clamp_mtime_s: int | None) -> KeyBuilder:
    """COPY and ADD: ``contents`` stand for what is copied (a digest of files, the key of the source stage, a commit).

    With ``--link`` the layer is the same on any parent, which is then no part of its key; the clamp of times, which
    is otherwise in the base's key, has to be.
    """
    key = KeyBuilder("add" if step.unpack else "copy").items("content", (contents[n] for n in sorted(contents)))
    clamp = "" if clamp_mtime_s is None else f"clamp {clamp_mtime_s}"
    key.text("parent", clamp if step.link else parent.hex)
    key.text("destination", step.destination).text("workdir", step.workdir)
    key.text("chown", step.chown).text("chmod", step.chmod.text if step.chmod else "")
    for document in step.documents:
        key.items("document", document)
    return key


def linked_chain(parent: CacheKey, layer: CacheKey) -> CacheKey:
    """The chain behind a step whose own key does not hold its parent."""
    return KeyBuilder("linked").text("parent", parent.hex).text("layer", layer.hex).key()


def stage_content(source: CacheKey, selection: Selection) -> str:
    """What is taken from a stage, as far as it is known before the stage is built."""
    key = KeyBuilder("stage").text("stage", source.hex).items("sources", selection.patterns)
    key.items("excludes", selection.excludes).text("parents", str(selection.parents))
    return key.key().hex


def copied_content(files: CacheKey) -> str:
    """What is taken from a stage, by what is in it: known once the stage is built."""
    return KeyBuilder("stage content").text("files", files.hex).key().hex


def directory_key(parent: CacheKey, step: MakeDirectory) -> KeyBuilder:
    """WORKDIR: the path, and whom a new directory belongs to."""
    return KeyBuilder("workdir").text("parent", parent.hex).text("path", step.path).text("user", step.user)


def layer_without_key(layer: Layer, ignored: Iterable[str]) -> CacheKey:
    """What is left of a layer without the paths that these patterns match."""
    return KeyBuilder("layer without").text("diff_id", str(layer.diff_id)).items("ignored", ignored).key()


def single_layer_key(base: Iterable[Layer], made: Iterable[Layer]) -> CacheKey:
    """The one layer that stands for those which a build ``made`` over its base."""
    key = KeyBuilder("single layer").items("base", (str(layer.diff_id) for layer in base))
    return key.items("made", (str(layer.diff_id) for layer in made)).key()


def formatted_key(key: CacheKey, layer_format: str) -> CacheKey:
    """The key of the same step with its layer compressed in another way than usual."""
    return KeyBuilder("format").text("key", key.hex).text("format", layer_format).key()
