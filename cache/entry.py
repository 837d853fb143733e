"""A build-layer cache entry, as a value, as an image manifest, and as a line of the batched lookup.

In a registry an entry is an OCI image manifest tagged with its key: one layer (none when the step changed nothing), a
config with the layer's diff_id and one history entry, and annotations for what neither key nor config can say. The
diff_id is repeated in an annotation of the layer, so that the manifest alone is enough to use the entry.

Lookup: ``POST /_crossdock/v1/lookup`` with ``{"repository": "…", "keys": ["<hex>", …]}`` is answered by an object that
has for each key either null or ``{"manifest": descriptor, "layer": descriptor or null, "diff_id": "sha256:…" or null,
"seconds": 1.5, "created": "…"}``. A registry that offers it says so on ``GET /v2/``: ``Crossdock-Features: lookup``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from cache.errors import CacheError
from cache.keys import SCHEMA_VERSION, CacheKey
from cache.oci import codec, media_types
from cache.oci.config import History, ImageConfig, RootFS
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import InvalidDigest, InvalidManifest
from cache.oci.layer import Layer
from cache.oci.manifest import Index, Manifest, make_manifest

SCHEMA = "io.crossdock.cache.schema"
KEY = "io.crossdock.cache.key"
SECONDS = "io.crossdock.cache.seconds"
DIFF_ID = "io.crossdock.cache.diff-id"
NOTE = "io.crossdock.cache.note"
CREATED = "org.opencontainers.image.created"
CREATED_BY = "crossdock cache entry"
UNKNOWN = "unknown"

FEATURES_HEADER = "Crossdock-Features"
LOOKUP_FEATURE = "lookup"
LOOKUP_PATH = "/_crossdock/v1/lookup"
MAX_LOOKUP_KEYS = 2000


class InvalidEntry(CacheError, ValueError):
    """Something that is not a cache entry of ours, or not the one that was asked for."""


class CachedStep(msgspec.Struct, frozen=True):
    """What a build step gave: its layer (None when it changed nothing), how long it took, when (RFC 3339).

    ``note`` is text that a build keeps for later ones; a batched lookup leaves it out.
    """

    key: CacheKey
    layer: Layer | None
    seconds: float = 0.0
    created: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.seconds) or self.seconds < 0:
            raise InvalidEntry(f"a step takes 0 seconds or more, got {self.seconds}")


def to_manifest(step: CachedStep) -> tuple[Manifest, bytes]:
    """The entry's manifest and its config; the same step gives the same bytes."""
    config = _config(step).to_json()
    descriptor = Descriptor(media_type=media_types.OCI_CONFIG, digest=Digest.of(config), size=len(config))
    annotations = {SCHEMA: str(SCHEMA_VERSION), KEY: step.key.hex, SECONDS: repr(float(step.seconds))}
    if step.created:
        annotations[CREATED] = step.created
    if step.note:
        annotations[NOTE] = step.note
    layers = () if step.layer is None else (_annotated(step.layer),)
    return make_manifest(descriptor, layers, annotations=annotations), config


def _config(step: CachedStep) -> ImageConfig:
    """A config that holds for any platform: an entry is not an image to run."""
    diff_ids = () if step.layer is None else (step.layer.diff_id,)
    history = History(created=step.created, created_by=CREATED_BY, empty_layer=step.layer is None)
    rootfs = RootFS(diff_ids=diff_ids)
    return ImageConfig(created=step.created, os=UNKNOWN, architecture=UNKNOWN, rootfs=rootfs, history=(history,))


def _annotated(layer: Layer) -> Descriptor:
    annotations = {**layer.descriptor.annotations, DIFF_ID: str(layer.diff_id)}
    return msgspec.structs.replace(layer.descriptor, annotations=dict(sorted(annotations.items())))


def from_manifest(key: CacheKey, manifest: Manifest | Index, config: bytes | None = None) -> CachedStep:
    """The step in an entry's manifest; the inverse of ``to_manifest``. The config is checked where it is given.

    Raises InvalidEntry for other images (Kaniko's entries live under tags of the same form) and other keys' entries.
    """
    if isinstance(manifest, Index) or SCHEMA not in manifest.annotations:
        raise InvalidEntry(f"what is tagged {key} is an image, but not a cache entry of Crossdock")
    stated = (manifest.annotations[SCHEMA], manifest.annotations.get(KEY))
    if stated != (str(SCHEMA_VERSION), key.hex):
        raise InvalidEntry(f"what is tagged {key} is an entry of schema {stated[0]} for key {stated[1]}")
    if len(manifest.layers) > 1:
        raise InvalidEntry(f"cache entry {key} has {len(manifest.layers)} layers, expected at most 1")
    layer = _plain_layer(key, manifest.layers[0]) if manifest.layers else None
    noted = manifest.annotations
    step = CachedStep(key, layer, _seconds(key, manifest), noted.get(CREATED, ""), noted.get(NOTE, ""))
    if config is not None and _diff_ids(key, config) != (() if layer is None else (layer.diff_id,)):
        raise InvalidEntry(f"cache entry {key} has another diff_id in its config than in its manifest")
    return step


def _plain_layer(key: CacheKey, described: Descriptor) -> Layer:
    annotations = dict(described.annotations)
    try:
        diff_id = Digest.parse(annotations.pop(DIFF_ID, ""))
    except InvalidDigest as error:
        raise InvalidEntry(f"cache entry {key} does not say its layer's diff_id: {error}") from error
    return Layer(msgspec.structs.replace(described, annotations=annotations), diff_id)


def _seconds(key: CacheKey, manifest: Manifest) -> float:
    try:
        return float(manifest.annotations.get(SECONDS, "0"))
    except ValueError as error:
        raise InvalidEntry(f"cache entry {key} does not say how long its step took: {error}") from error


def _diff_ids(key: CacheKey, config: bytes) -> tuple[Digest, ...]:
    try:
        return ImageConfig.from_json(config).rootfs.diff_ids
    except InvalidManifest as error:
        raise InvalidEntry(f"cache entry {key} has a config that cannot be read: {error}") from error


class LookupRequest(msgspec.Struct, frozen=True):
    """The question of a batched lookup."""

    repository: str
    keys: tuple[CacheKey, ...]


class LookupHit(msgspec.Struct, frozen=True):
    """One answer: the step and the manifest that holds it."""

    manifest: Descriptor
    step: CachedStep


class _Question(msgspec.Struct, frozen=True):
    repository: str
    keys: tuple[str, ...]


class _Answer(msgspec.Struct, frozen=True):
    manifest: Descriptor
    layer: Descriptor | None
    diff_id: Digest | None
    seconds: float
    created: str


def encode_request(repository: str, keys: Sequence[CacheKey]) -> bytes:
    """The body of a lookup."""
    return codec.encode(_Question(repository, tuple(key.hex for key in keys)))


def decode_request(data: bytes) -> LookupRequest:
    """The question in a lookup's body. Raises InvalidEntry; the repository's name is not checked."""
    try:
        question = codec.decode(data, _Question, "lookup")
        keys = tuple(map(CacheKey, question.keys))
    except ValueError as error:
        raise InvalidEntry(str(error)) from error
    if len(keys) > MAX_LOOKUP_KEYS:
        raise InvalidEntry(f"a lookup has at most {MAX_LOOKUP_KEYS} keys, got {len(keys)}")
    return LookupRequest(question.repository, keys)


def encode_reply(found: Mapping[CacheKey, LookupHit | None]) -> bytes:
    """The answer to a lookup; None for a key that is not there."""
    return codec.encode({key.hex: _answer(hit) for key, hit in found.items()})


def decode_reply(data: bytes) -> dict[CacheKey, LookupHit | None]:
    """The answer in a reply's body. Raises InvalidEntry."""
    try:
        answers = codec.decode(data, dict[str, _Answer | None], "lookup reply")
        return {(key := CacheKey(text)): _hit(key, answer) for text, answer in answers.items()}
    except ValueError as error:
        raise InvalidEntry(str(error)) from error


def _answer(hit: LookupHit | None) -> _Answer | None:
    if hit is None:
        return None
    layer = hit.step.layer
    described, diff_id = (None, None) if layer is None else (layer.descriptor, layer.diff_id)
    return _Answer(hit.manifest, described, diff_id, hit.step.seconds, hit.step.created)


def _hit(key: CacheKey, answer: _Answer | None) -> LookupHit | None:
    if answer is None:
        return None
    if (answer.layer is None) != (answer.diff_id is None):
        raise InvalidEntry(f"the answer for {key} has a layer without a diff_id, or a diff_id without a layer")
    layer = Layer(answer.layer, answer.diff_id) if answer.layer is not None and answer.diff_id is not None else None
    return LookupHit(answer.manifest, CachedStep(key, layer, answer.seconds, answer.created))
