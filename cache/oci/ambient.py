"""Credentials that nobody has configured: those that CI systems set and that clouds give to their machines.

These are Kaniko's built-in credential helpers, by their names. Each knows by a registry's name whether it is asked.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cache.oci.credentials import ANONYMOUS, Credential
from cache.oci.errors import InvalidCredentials
from cache.oci.google_credentials import CLOUD_PLATFORM, google_token
from cache.oci.reference import DOCKER_HUB

_GOOGLE = re.compile(r"(.+\.)?gcr\.io|.+\.pkg\.dev")
_AMAZON = re.compile(r"\d{12}\.dkr[.-]ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.(amazonaws\.com(\.cn)?|on\.aws)")
_AZURE = re.compile(r".+\.azurecr\.(io|cn|us|de)")
_HUB = "index.docker.io"


@dataclass(frozen=True, slots=True)
class AmbientCredentials:
    """Those that the ``helpers`` find, asked in their order, once for each host."""

    helpers: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    _answers: dict[str, Credential] = field(default_factory=dict, init=False, repr=False)

    def credential_for(self, host: str, repository: str = "") -> Credential:
        """What to show the registry; ANONYMOUS where the surroundings give nothing for it.

        May ask a cloud's service and blocks until it answers. Raises InvalidCredentials when that fails.
        """
        if host not in self._answers:
            found = (_FINDERS[name](host, self.environ) for name in self.helpers)
            self._answers[host] = next((credential for credential in found if credential != ANONYMOUS), ANONYMOUS)
        return self._answers[host]


def _from_variables(host: str, environ: Mapping[str, str]) -> Credential:
    """``KANIKO_REGISTRY_EXAMPLE_COM_USER`` and ``_PASSWORD``; the host's first labels may be left out."""
    name = _HUB if host == DOCKER_HUB else host.partition(":")[0]
    labels = name.upper().replace("-", "_").split(".")
    for start in range(len(labels)):
        prefix = "KANIKO_" + "_".join(labels[start:])
        user, password = environ.get(f"{prefix}_USER"), environ.get(f"{prefix}_PASSWORD")
        if user is not None and password is not None:
            return Credential(user, password)
    return ANONYMOUS


def _of_gitlab(host: str, environ: Mapping[str, str]) -> Credential:
    """What a job has for the registry of its GitLab."""
    if host.partition(":")[0] != environ.get("CI_REGISTRY", "").partition(":")[0]:
        return ANONYMOUS
    return Credential(environ.get("CI_REGISTRY_USER", ""), environ.get("CI_REGISTRY_PASSWORD", ""))


def _of_google(host: str, environ: Mapping[str, str]) -> Credential:
    if not _GOOGLE.fullmatch(host):
        return ANONYMOUS
    with ThreadPoolExecutor(1) as thread:  # the loop that may be running here waits as for any helper
        token = thread.submit(asyncio.run, google_token(environ, CLOUD_PLATFORM)).result()
    return Credential("oauth2accesstoken", token) if token else ANONYMOUS


def _of_azure(host: str, environ: Mapping[str, str]) -> Credential:
    """A service principal: its registry takes it as user name and password."""
    if not _AZURE.fullmatch(host):
        return ANONYMOUS
    return Credential(environ.get("AZURE_CLIENT_ID", ""), environ.get("AZURE_CLIENT_SECRET", ""))


def _of_amazon(host: str, environ: Mapping[str, str]) -> Credential:
    """What boto3 finds as the AWS tools do: variables, files, roles of pods and machines."""
    found = _AMAZON.fullmatch(host)
    if found is None:
        return ANONYMOUS
    import boto3.session  # only who talks to such a registry pays for it
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = boto3.session.Session()
        if session.get_credentials() is None:
            return ANONYMOUS
        reply = session.client("ecr", region_name=found["region"]).get_authorization_token()
        given = base64.b64decode(reply["authorizationData"][0]["authorizationToken"]).decode()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an error")
        raise InvalidCredentials(f"AWS gives no token for {host}: it answered {code}") from error
    except (BotoCoreError, ValueError, LookupError) as error:
        raise InvalidCredentials(f"AWS gives no token for {host}: {type(error).__name__}") from error
    user, _, password = given.partition(":")
    return Credential(user, password)


_FINDERS = {
    "env": _from_variables,
    "google": _of_google,
    "ecr": _of_amazon,
    "acr": _of_azure,
    "gitlab": _of_gitlab,
}
