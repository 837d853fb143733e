"""The Kubernetes manifests: valid by Kubernetes' own schemas, consistent with each other, and settings we accept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from builder import flags
from cache.flags import Effect
from proxy.options import parse_toml
from proxy.settings import make_config

DEPLOY = Path(__file__).parent.parent / "deploy"
KUBERNETES_VERSIONS = ("1.27", "1.31", kubernetes_validate.latest_version())
Document = dict[str, Any]


def documents(*names: str) -> list[Document]:
    """Every document of the named manifests, of all when none is named."""
    paths = [DEPLOY / "kubernetes" / name for name in names] or sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def one(kind: str, *names: str) -> Document:
    """The only document of this kind."""
    (found,) = (document for document in documents(*names) if document["kind"] == kind)
    return found


def pods() -> Iterator[Document]:
    """The pod template of everything that makes pods."""
    for document in documents():
        spec = document.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield spec["template"]


def container(pod: Document) -> Document:
    (found,) = pod["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("document", documents(), ids=lambda document: document["kind"])
def test_every_document_is_valid(document: Document, version: str):
    assert kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_would_be_found():
    service = one("Service", "proxy.yaml")
    service["spec"]["sesionAffinity"] = "ClientIP"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, KUBERNETES_VERSIONS[-1], strict=True)


def test_the_proxy_accepts_its_settings():
    settings = one("ConfigMap", "proxy.yaml")["data"]["crossdock.toml"]
    config = make_config(parse_toml(settings), default_store="unused")
    (port,) = container(one("Deployment", "proxy.yaml")["spec"]["template"])["ports"]
    assert config.port == port["containerPort"]
    assert config.store_url.startswith("s3://")
    assert config.default_upstream in config.upstreams


def test_the_service_finds_the_proxy():
    labels = one("Deployment", "proxy.yaml")["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "Deployment"):
        selector = one(kind, "proxy.yaml")["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        assert wanted.items() <= labels.items()


def test_everybody_reaches_the_proxy_by_its_service():
    service = one("Service", "proxy.yaml")
    address = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    warm = container(one("CronJob")["spec"]["jobTemplate"]["spec"]["template"])
    build = container(one("Job")["spec"]["template"])
    assert f"http://{address}" in warm["command"]
    assert f"--registry-mirror={address}" in build["args"]
    assert any(argument.startswith(f"--cache-repo={address}/") for argument in build["args"])


def test_the_proxy_knows_itself_by_its_services_name():
    settings = one("ConfigMap", "proxy.yaml")["data"]["crossdock.toml"]
    name = one("Service", "proxy.yaml")["metadata"]["name"]
    hosts = make_config(parse_toml(settings), default_store="unused").hosts
    assert name in hosts
    assert all(host == name or host.startswith(f"{name}.") for host in hosts)


def test_volumes_that_are_mounted_exist():
    for pod in pods():
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        mounts = {mount["name"] for mount in container(pod)["volumeMounts"]}
        assert mounts == volumes


def test_no_pod_is_privileged():
    for pod in pods():
        context = container(pod)["securityContext"]
        assert not context.get("privileged")
        assert "add" not in context.get("capabilities", {})


def test_the_builder_honours_the_jobs_flags():
    given = {argument.partition("=")[0] for argument in container(one("Job")["spec"]["template"])["args"]}
    assert given <= {
        spelling for flag in flags.BUILD if flag.effect is not Effect.IGNORED for spelling in flag.spellings
    }


def test_transfers_may_end_before_the_pod_does():
    config = make_config(parse_toml(one("ConfigMap", "proxy.yaml")["data"]["crossdock.toml"]), "memory:")
    spec = one("Deployment", "proxy.yaml")["spec"]["template"]["spec"]
    assert config.drain_s + 5 <= spec["terminationGracePeriodSeconds"]


def test_each_replica_says_where_the_others_reach_it():
    template = one("Deployment", "proxy.yaml")["spec"]["template"]
    proxy = container(template)
    (option, url) = proxy["args"]
    (port,) = proxy["ports"]
    names = {variable["name"]: variable.get("valueFrom", {}) for variable in proxy["env"]}
    assert names["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    config = make_config({option.removeprefix("--"): (url.replace("$(POD_IP)", "10.1.2.3"),)}, "memory:")
    assert config.replica_url == f"http://10.1.2.3:{port['containerPort']}"
    assert "sessionAffinity" not in one("Service", "proxy.yaml")["spec"]
