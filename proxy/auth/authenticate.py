"""Who a request comes from: a user of this proxy, a guest whose credentials an upstream judges, or nobody known."""

from __future__ import annotations

from cache.oci.credentials import ANONYMOUS, Credential
from proxy.auth import identity
from proxy.auth.caller import NOBODY, Caller
from proxy.auth.rights import GUEST, Rules
from proxy.auth.users import Users
from proxy.errors import CredentialsNeeded


class Authentication:
    """Makes callers of credentials.

    What belongs to a local user is judged here and shown to no upstream, be it right or wrong. Credentials of all other
    names are a guest's: they are the upstreams' to judge. Where no rule lets guests in, an unknown name is refused as a
    wrong password is, in the same time, so that nobody learns who is known here.
    """

    def __init__(self, users: Users, rules: Rules) -> None:
        self.change(users, rules)

    def change(self, users: Users, rules: Rules) -> None:
        """Knows these users from now on."""
        self._users = users
        self._guests_welcome = rules.admit(GUEST)

    def credential(self, authorization: str | None) -> Credential:
        """The credential in an ``Authorization`` header; a static token comes as an identity token.

        Raises CredentialsNeeded for what cannot be read.
        """
        scheme, _, value = (authorization or "").strip().partition(" ")
        if scheme.lower() == "bearer" and self._users.holder(value.strip()) is not None:
            return Credential(identity_token=value.strip())
        return identity.read_authorization(authorization)

    async def caller(self, credential: Credential) -> Caller:
        """Who shows this credential. Raises CredentialsNeeded when a local user's is wrong."""
        if credential == ANONYMOUS:
            return NOBODY
        holder = self._users.holder(credential.identity_token) if credential.identity_token else None
        if holder is not None:
            return Caller(who=holder)
        if self._guests_welcome and credential.username not in self._users:
            return Caller(credential, GUEST)
        if await self._users.check(credential.username, credential.password):
            return Caller(who=credential.username)
        raise CredentialsNeeded("the user name or the password is wrong", who=credential.username)
