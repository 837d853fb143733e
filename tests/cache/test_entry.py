"""A cache entry as a manifest and as a line of the batched lookup: exact inverses, and clear refusals."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import entry
from cache.entry import CachedStep, InvalidEntry, LookupHit, from_manifest, to_manifest
from cache.keys import CacheKey
from cache.oci import media_types
from cache.oci.config import ImageConfig
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.oci.manifest import Manifest, make_manifest, parse_manifest

KEY = CacheKey("ab" * 32)
CREATED = "2026-08-01T12:00:00Z"


def layer(data: bytes = b"tar.gz", **annotations: str) -> Layer:
    described = Descriptor(
        media_type=media_types.OCI_LAYER_GZIP, digest=Digest.of(data), size=len(data), annotations=annotations
    )
    return Layer(described, Digest.of(b"tar of " + data))


def stored(step: CachedStep) -> Manifest:
    """The entry as a registry gives it back."""
    manifest = parse_manifest(to_manifest(step)[0].raw, media_types.OCI_MANIFEST)
    assert isinstance(manifest, Manifest)
    return manifest


def changed(step: CachedStep, **annotations: str | None) -> Manifest:
    """The entry's manifest with other annotations; None takes one away."""
    manifest = stored(step)
    merged = {**manifest.annotations, **annotations}
    kept = {name: value for name, value in merged.items() if value is not None}
    return make_manifest(manifest.config, manifest.layers, annotations=kept)


digests = st.binary(max_size=8).map(Digest.of)
layers = st.builds(
    Layer,
    st.builds(
        Descriptor,
        media_type=st.sampled_from([media_types.OCI_LAYER_GZIP, media_types.OCI_LAYER_ZSTD, media_types.OCI_LAYER]),
        digest=digests,
        size=st.integers(0, 1 << 50),
        annotations=st.dictionaries(st.sampled_from(["a", "b.c"]), st.text(max_size=5)),
    ),
    digests,
)
steps = st.builds(
    CachedStep,
    key=st.binary(min_size=32, max_size=32).map(lambda raw: CacheKey(raw.hex())),
    layer=st.none() | layers,
    seconds=st.floats(0, 1e9, allow_nan=False),
    created=st.sampled_from(["", CREATED]),
)


@given(steps)
def test_manifest_and_config_give_the_step_back(step):
    manifest, config = to_manifest(step)
    assert from_manifest(step.key, stored(step), config) == step
    assert from_manifest(step.key, stored(step)) == step
    assert to_manifest(step) == (manifest, config)


@given(st.lists(steps, max_size=4))
def test_a_lookup_reply_gives_the_steps_back(found):
    hits = {step.key: LookupHit(to_manifest(step)[0].descriptor, step) for step in found}
    asked = {**hits, KEY: None}
    assert entry.decode_reply(entry.encode_reply(asked)) == asked


def test_the_shape_of_an_entry():
    manifest, config = to_manifest(CachedStep(KEY, layer(), 1.5, CREATED))
    read = ImageConfig.from_json(config)
    assert manifest.config.digest == Digest.of(config)
    assert read.rootfs.diff_ids == (layer().diff_id,)
    assert [(step.created, step.empty_layer) for step in read.history] == [(CREATED, False)]
    assert manifest.annotations == {
        "io.crossdock.cache.key": KEY.hex,
        "io.crossdock.cache.schema": "1",
        "io.crossdock.cache.seconds": "1.5",
        "org.opencontainers.image.created": CREATED,
    }


def test_a_step_that_changed_nothing_has_no_layer():
    manifest, config = to_manifest(CachedStep(KEY, None, 0.1))
    assert manifest.layers == ()
    assert ImageConfig.from_json(config).rootfs.diff_ids == ()
    assert ImageConfig.from_json(config).history[0].empty_layer


def test_the_wire_form_of_a_lookup():
    step = CachedStep(KEY, layer(), 1.5, CREATED)
    hit = LookupHit(to_manifest(step)[0].descriptor, step)
    empty = CachedStep(CacheKey("cd" * 32), None)
    reply = json.loads(
        entry.encode_reply({KEY: hit, empty.key: LookupHit(hit.manifest, empty), CacheKey("0" * 64): None})
    )
    assert reply["0" * 64] is None
    assert reply[KEY.hex]["layer"]["digest"] == str(layer().descriptor.digest)
    assert reply[KEY.hex]["diff_id"] == str(layer().diff_id)
    assert (reply[KEY.hex]["seconds"], reply[KEY.hex]["created"]) == (1.5, CREATED)
    assert (reply[empty.key.hex]["layer"], reply[empty.key.hex]["diff_id"]) == (None, None)
    asked = json.loads(entry.encode_request("cache/app", [KEY]))
    assert asked == {"repository": "cache/app", "keys": [KEY.hex]}
    assert entry.decode_request(json.dumps(asked).encode()) == entry.LookupRequest("cache/app", (KEY,))


def test_an_entry_of_kaniko_is_refused_and_does_no_harm():
    config = Descriptor(media_type=media_types.DOCKER_CONFIG, digest=Digest.of(b"{}"), size=2)
    described = Descriptor(media_type=media_types.DOCKER_LAYER_GZIP, digest=Digest.of(b"x"), size=1)
    theirs = make_manifest(config, (described,), media_type=media_types.DOCKER_MANIFEST)
    with pytest.raises(InvalidEntry, match="not a cache entry of Crossdock"):
        from_manifest(KEY, parse_manifest(theirs.raw, media_types.DOCKER_MANIFEST))


def test_an_index_is_no_entry():
    index = parse_manifest(b'{"schemaVersion":2,"manifests":[]}', media_types.OCI_INDEX)
    with pytest.raises(InvalidEntry, match="not a cache entry"):
        from_manifest(KEY, index)


STEP = CachedStep(KEY, layer(), 1.5, CREATED)


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ({entry.SCHEMA: "2"}, "schema 2"),
        ({entry.SCHEMA: None}, "not a cache entry"),
        ({entry.KEY: "cd" * 32}, "for key cdcd"),
        ({entry.SECONDS: "long"}, "how long its step took"),
        ({entry.SECONDS: "nan"}, "0 seconds or more"),
        ({entry.SECONDS: "-1"}, "0 seconds or more"),
    ],
)
def test_annotations_that_do_not_fit(annotations, says):
    with pytest.raises(InvalidEntry, match=says):
        from_manifest(KEY, changed(STEP, **annotations))


def test_another_keys_entry_is_refused():
    with pytest.raises(InvalidEntry, match="for key abab"):
        from_manifest(CacheKey("00" * 32), stored(STEP))


def test_layers_that_do_not_fit():
    manifest = stored(STEP)
    twice = make_manifest(manifest.config, manifest.layers * 2, annotations=manifest.annotations)
    with pytest.raises(InvalidEntry, match="2 layers"):
        from_manifest(KEY, twice)
    bare = make_manifest(manifest.config, (layer().descriptor,), annotations=manifest.annotations)
    with pytest.raises(InvalidEntry, match="diff_id"):
        from_manifest(KEY, bare)


def test_a_config_that_says_something_else():
    other = to_manifest(CachedStep(KEY, layer(b"other"), 1.5, CREATED))[1]
    with pytest.raises(InvalidEntry, match="another diff_id"):
        from_manifest(KEY, stored(STEP), other)
    with pytest.raises(InvalidEntry, match="cannot be read"):
        from_manifest(KEY, stored(STEP), b"{")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"repository": 1, "keys": []}', b'{"repository": "a", "keys": ["xyz"]}', b'{"repository": "a"}'],
)
def test_lookups_that_cannot_be_read(body):
    with pytest.raises(InvalidEntry):
        entry.decode_request(body)


def test_a_lookup_has_a_limit():
    keys = [CacheKey(f"{number:064x}") for number in range(entry.MAX_LOOKUP_KEYS + 1)]
    assert len(entry.decode_request(entry.encode_request("a", keys[1:])).keys) == entry.MAX_LOOKUP_KEYS
    with pytest.raises(InvalidEntry, match="at most 2000 keys, got 2001"):
        entry.decode_request(entry.encode_request("a", keys))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"xyz": null}', b'{"%s": {"seconds": 1}}' % KEY.hex.encode()])
def test_replies_that_cannot_be_read(body):
    with pytest.raises(InvalidEntry):
        entry.decode_reply(body)


def test_a_reply_with_half_a_layer():
    hit = LookupHit(to_manifest(STEP)[0].descriptor, STEP)
    reply = json.loads(entry.encode_reply({KEY: hit}))
    reply[KEY.hex]["diff_id"] = None
    with pytest.raises(InvalidEntry, match="without a diff_id"):
        entry.decode_reply(json.dumps(reply).encode())
