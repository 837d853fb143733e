"""The only owner of stored names. The same tree on disk and in a bucket:

    v1/
    ├── blobs/sha256/ab/abcd…                              immutable content: layers, configs, manifests
    ├── incoming/…                                         blobs on their way in; whatever is old is rubbish
    ├── locks/00 … ff                                      on disk only: who may change the records of a shard
    ├── quarantine/sha256/abcd…                            damaged blobs, put aside for whoever wants to look at them
    ├── probe                                              in buckets only: written and read to see whether that works
    └── records/
        ├── repositories/<namespace>/<repository…>/
        │   ├── _tags/<tag>                                what the tag points to, and when that was last checked
        │   ├── _members/<algorithm>/<hex>                 this repository has that manifest or blob
        │   └── _referrers/<algorithm>/<hex>               what refers to that manifest as its subject
        ├── damaged/<algorithm>/<hex>                      what was wrong with a blob that was put aside, and when
        ├── usage/<random>                                 what was used, and how often, until one flush of it
        ├── gc/state                                       which blobs are condemned, and since when
        ├── gc/condemned/<run>/<number>                    some of them, and which of these were spared
        ├── gc/used/ab                                     what all flushes have said of the names that hash to ab
        ├── gc/manifests/ab                                what the manifests ab… name, so that each is read once
        ├── maintenance/<task>                             how far a task that goes on in turns has come
        ├── names/<namespace>/<repository…, / as ~>        this repository has had a manifest
        ├── cluster/key                                    what the replicas of a cluster know each other by
        ├── leases/<name>                                  who does a thing for the whole cluster
        └── layers/ab/abcd…                                a build step's key → its layer (the builder's local cache)

``<namespace>`` is an upstream's name, or ``_hosted`` for repositories that exist only here. Components of a repository
name never begin with an underscore, so ours cannot collide with them. Names in a bucket spread by their first digest
characters.
"""

from __future__ import annotations

import functools

from cache.oci.digest import Digest
from cache.oci.reference import check_repository, check_tag

VERSION = "v1"
BLOBS = f"{VERSION}/blobs/"
TEMPORARY = f"{VERSION}/incoming/"
LOCKS = f"{VERSION}/locks/"
RECORDS = f"{VERSION}/records/"
PROBE = f"{VERSION}/probe"
QUARANTINE = f"{VERSION}/quarantine/"
HOSTED = "_hosted"
DAMAGED = "damaged/"
MAINTENANCE = "maintenance/"
LEASES = "leases/"
USAGE = "usage/"
GC_STATE = "gc/state"
GC_CONDEMNED = "gc/condemned/"
GC_USED = "gc/used/"
GC_MANIFESTS = "gc/manifests/"


def blob(digest: Digest) -> str:
    """The stored name of a blob."""
    return f"{BLOBS}{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def blob_digest(name: str) -> Digest | None:
    """The digest of a blob's stored name; None for other names. The inverse of ``blob``."""
    parts = name.removeprefix(BLOBS).split("/")
    if not name.startswith(BLOBS) or len(parts) != 3:
        return None
    try:
        digest = Digest(parts[0], parts[2])
    except ValueError:
        return None
    return digest if blob(digest) == name else None


def blobs_under(under: str) -> str:
    """What the stored names of all blobs begin with whose digests begin with ``under`` (``sha256:ab``, or less)."""
    algorithm, colon, hexadecimal = under.partition(":")
    if not colon:
        return BLOBS + algorithm
    shard = f"{hexadecimal[:2]}/{hexadecimal}" if len(hexadecimal) >= 2 else hexadecimal
    return f"{BLOBS}{algorithm}/{shard}"


def temporary(token: str) -> str:
    """The stored name of something on its way in; ``token`` is random."""
    return TEMPORARY + token


def quarantined(digest: Digest) -> str:
    """The stored name of a blob that was found damaged."""
    return f"{QUARANTINE}{digest.algorithm}/{digest.hex}"


def damaged(digest: Digest) -> str:
    """The record of what was wrong with a blob."""
    return f"{DAMAGED}{digest.algorithm}/{digest.hex}"


def record(name: str) -> str:
    """The stored name of a record."""
    return RECORDS + name


def is_lasting(name: str) -> bool:
    """True for a record that is written once and, but for maintenance, stays as it is.

    Those are the members of upstreams' repositories: content does not change under its digest, and who may read it is
    asked elsewhere. Tags move, and a DELETE takes members from hosted repositories, for every replica at once.
    """
    parts = name.split("/")
    return len(parts) > 5 and parts[0] == "repositories" and parts[1] != HOSTED and parts[-3] == "_members"


def check_record_name(name: str) -> str:
    """``name`` itself when it is a relative path that cannot leave its place. Raises ValueError."""
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"{name!r} is not a record's name: expected components joined by '/', none empty, '.' or '..'")
    return name


def check_record_prefix(prefix: str) -> str:
    """``prefix`` itself when records can be listed under it. Raises ValueError."""
    if not prefix.endswith("/"):
        raise ValueError(f"{prefix!r} is not a prefix of records: expected a '/' at its end")
    check_record_name(prefix[:-1])
    return prefix


def lock(shard: str) -> str:
    """The lock file of the records whose names hash to ``shard``, two hex digits."""
    return LOCKS + shard


@functools.lru_cache(4096)
def repository(namespace: str, name: str) -> str:
    """The prefix of all records of a repository. Raises ValueError when either is no name."""
    if not namespace or "/" in namespace:
        raise ValueError(f"{namespace!r} is not a namespace: expected one component of a path")
    check_repository(name)
    return f"repositories/{namespace}/{name}/"


def tags(namespace: str, name: str) -> str:
    """The prefix of the records of a repository's tags."""
    return f"{repository(namespace, name)}_tags/"


def tag(namespace: str, name: str, tag: str) -> str:
    """The record of a tag. Raises ValueError when it is none."""
    return tags(namespace, name) + check_tag(tag)


def member(namespace: str, name: str, digest: Digest) -> str:
    """The record that says that a repository has this manifest or blob."""
    return f"{repository(namespace, name)}_members/{digest.algorithm}/{digest.hex}"


def referrers(namespace: str, name: str, subject: Digest) -> str:
    """The record of what refers to a manifest of a repository; the manifest itself need not be there."""
    return f"{repository(namespace, name)}_referrers/{subject.algorithm}/{subject.hex}"


def names(namespace: str) -> str:
    """The prefix of the records that list a namespace's repositories: flat, so that listing them walks no tree."""
    return f"names/{namespace}/"


def name(namespace: str, name: str) -> str:
    """The record that lists a repository. Raises ValueError when it is no name."""
    return names(namespace) + check_repository(name).replace("/", "~")


def listed_name(namespace: str, record: str) -> str:
    """The repository that a record lists. The inverse of ``name``."""
    return record.removeprefix(names(namespace)).replace("~", "/")


def replica_key() -> str:
    """The record of the key that the replicas of one cluster share."""
    return "cluster/key"


def lease(name: str) -> str:
    """The record of a lease."""
    return LEASES + name


GC_LEASE = "gc"
"""The name of the lease of the replica that collects garbage."""


def fill_lease(digest: Digest) -> str:
    """The name of the lease of who fetches a blob."""
    return f"fill/{digest.algorithm}/{digest.hex}"


def layer(key_hex: str) -> str:
    """The record of a build step's layer in the builder's local cache."""
    return f"layers/{key_hex[:2]}/{key_hex}"


def usage(token: str) -> str:
    """The record of one flush of uses; ``token`` is random."""
    return USAGE + token


def condemned(run: str, number: int) -> str:
    """The record of some of the blobs that a run of gc has condemned."""
    return f"{GC_CONDEMNED}{run}/{number}"
