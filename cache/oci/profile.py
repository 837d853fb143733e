"""What has been learned of a registry by asking it: which of the ways that the specification offers work there."""

from __future__ import annotations

from dataclasses import dataclass

MOUNT_REFUSALS = 3


@dataclass(slots=True)
class Profile:
    """One registry, as its replies have shown it; shared by all clients of it, who note what they learn.

    ``heads_manifests``: it answers HEAD on a manifest, with type, length and digest. ``upload_chunk_bytes``: the size
    of the chunks that it takes, 0 = it takes streams of any length. ``least_chunk_bytes``: it said that chunks must not
    be smaller (``OCI-Chunk-Min-Length``). ``refused_mounts``: so many mounts in succession it refused as such.
    """

    heads_manifests: bool = True
    upload_chunk_bytes: int = 0
    least_chunk_bytes: int = 0
    refused_mounts: int = 0

    @property
    def mounts(self) -> bool:
        """Whether asking it to mount a blob is worth a request."""
        return self.refused_mounts < MOUNT_REFUSALS
