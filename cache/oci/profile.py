"""What has been learned of a registry by asking it: which of the ways that the specification offers work there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Profile:
    """One registry, as its replies have shown it; shared by all clients of it, who note what they learn.

    ``heads_manifests``: it answers HEAD on a manifest, with type, length and digest.
    """

    heads_manifests: bool = True
