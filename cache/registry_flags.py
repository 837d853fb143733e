"""The flags by which every command that talks to registries is told how: as data, and as what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import click

from cache.command_line import Values, texts_of
from cache.flags import Flag, Kind
from cache.oci.mirrors import Mirrors, parse_mirrors
from cache.oci.reference import DOCKER_HUB, HUB_HOST, canonical_host
from cache.oci.registry_options import HELPERS, HostCertificates, RegistryOptions

BOOL, LIST = Kind.BOOL, Kind.LIST
T = TypeVar("T")

FLAGS = (
    Flag("insecure", BOOL, "Push over plain HTTP."),
    Flag("insecure-pull", BOOL, "Pull over plain HTTP."),
    Flag("insecure-registry", LIST, "A registry HOST[:PORT] that is reached over plain HTTP."),
    Flag("skip-tls-verify", BOOL, "Accept any certificate of a registry."),
    Flag("skip-tls-verify-pull", BOOL, "Accept any certificate of a registry when pulling."),
    Flag("skip-tls-verify-registry", LIST, "A registry HOST[:PORT] whose certificate is not checked."),
    Flag(
        "registry-certificate",
        LIST,
        "HOST[:PORT]=FILE: a certificate authority to trust for this registry, beside the usual ones.",
        unlike="Kaniko trusts it for every host.",
    ),
    Flag("registry-client-cert", LIST, "HOST[:PORT]=CERTIFICATE,KEY: the files to show this registry (mutual TLS)."),
    Flag(
        "registry-mirror",
        LIST,
        "HOST[:PORT][/PREFIX] that is asked for Docker Hub's images first.",
        env=("KANIKO_REGISTRY_MIRROR",),
    ),
    Flag(
        "registry-map",
        LIST,
        "HOST=MIRROR[:PORT][/PREFIX][;...] that is asked for the images of HOST first.",
        env=("KANIKO_REGISTRY_MAP",),
    ),
    Flag(
        "credential-helpers",
        LIST,
        "Who is asked for credentials that no configuration has: env, google, ecr, acr, gitlab. All if not given; an"
        " empty name for nobody.",
        unlike="acr knows service principals (AZURE_CLIENT_ID, AZURE_CLIENT_SECRET); for managed identities name"
        " docker-credential-acr-env in config.json.",
    ),
    Flag("skip-default-registry-fallback", BOOL, "Do not ask a registry itself for images when it has mirrors."),
)


def registry_options(values: Values) -> RegistryOptions:
    """What these flags say. Raises click.UsageError."""
    return RegistryOptions(
        insecure_push=bool(values["insecure"]),
        insecure_pull=bool(values["insecure_pull"]),
        insecure_hosts=frozenset(texts_of(values, "insecure_registry")),
        skip_tls_verify=bool(values["skip_tls_verify"] or values["skip_tls_verify_pull"]),
        skip_tls_verify_hosts=frozenset(map(_host, texts_of(values, "skip_tls_verify_registry"))),
        certificates=_certificates(values),
        mirrors=_mirrors(values),
        helpers=_helpers(texts_of(values, "credential_helpers")),
        fallback=not values["skip_default_registry_fallback"],
    )


def _helpers(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := set(names) - {*HELPERS, ""}:
        raise click.UsageError(f"--credential-helpers {min(unknown)}: expected one of {', '.join(HELPERS)}")
    return tuple(name for name in names if name) if names else HELPERS


def _mirrors(values: Values) -> Mirrors:
    try:
        return parse_mirrors(texts_of(values, "registry_mirror"), texts_of(values, "registry_map"))
    except ValueError as error:
        raise click.UsageError(f"--registry-mirror, --registry-map: {error}") from error


def _certificates(values: Values) -> dict[str, HostCertificates]:
    authorities = dict(_by_host("--registry-certificate", texts_of(values, "registry_certificate"), Path, "FILE"))
    clients = dict(
        _by_host("--registry-client-cert", texts_of(values, "registry_client_cert"), _pair, "CERTIFICATE,KEY")
    )
    return {host: HostCertificates(authorities.get(host), clients.get(host)) for host in {**authorities, **clients}}


def _by_host(flag: str, given: Iterable[str], parse: Callable[[str], T], what: str) -> Iterable[tuple[str, T]]:
    for text in given:
        host, _, rest = text.partition("=")
        try:
            if not host or not rest:
                raise ValueError(text)
            yield _host(host), parse(rest)
        except ValueError as error:
            raise click.UsageError(f"{flag} {text!r}: expected HOST[:PORT]={what}") from error


def _pair(text: str) -> tuple[Path, Path]:
    certificate, key = text.split(",")
    return Path(certificate), Path(key)


def _host(name: str) -> str:
    """The host that a registry of this name is reached at."""
    return HUB_HOST if canonical_host(name) == DOCKER_HUB else name
