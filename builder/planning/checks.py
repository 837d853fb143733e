"""What BuildKit's build checks find, and which of them count (pure).

``# check=skip=RULE,RULE;error=true`` (or ``skip=all``) in the Dockerfile says which do not, and whether any that does
ends the build; ``experimental=RULE,RULE`` (or ``all``) which of those count that else do not. The build argument
`CHECK_ARGUMENT` says it instead.
"""

from __future__ import annotations

import msgspec

from builder.dockerfile.directives import read_directives
from builder.dockerfile.lines import Text
from builder.errors import DockerfileError, Span

CHECK_ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"
EXPERIMENTAL = frozenset({"InvalidDefinitionDescription"})


class Finding(msgspec.Struct, frozen=True):
    """One rule that the Dockerfile does not follow, and where."""

    rule: str
    message: str
    span: Span

    def __str__(self) -> str:
        return f"{self.rule}: {self.message} ({self.span.file}:{self.span.line})"


class Checks(msgspec.Struct, frozen=True):
    """Which rules count: all but those ``skipped``, and of the experimental ones only those ``asked`` for; ``fatal``
    where a finding ends the build."""

    skipped: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    fatal: bool = False

    @classmethod
    def parse(cls, text: str) -> Checks:
        """``skip=…;experimental=…;error=…``. Raises ValueError."""
        rules: dict[str, frozenset[str]] = {}
        fatal = False
        for part in filter(None, (part.strip() for part in text.split(";"))):
            name, _, value = part.partition("=")
            if name in ("skip", "experimental"):
                rules[name] = frozenset(rule.strip() for rule in value.split(","))
            elif name == "error" and value.lower() in ("true", "false"):
                fatal = value.lower() == "true"
            else:
                raise ValueError(f"check={text}: expected skip=RULE,…, experimental=RULE,… and error=true or false")
        return cls(rules.get("skip", frozenset()), rules.get("experimental", frozenset()), fatal)

    def counts(self, finding: Finding) -> bool:
        """Whether the finding's rule counts."""
        if finding.rule in EXPERIMENTAL and not self.asked & {finding.rule, "all"}:
            return False
        return not self.skipped & {finding.rule, "all"}


def checks_of(text: Text, given: str | None = None) -> Checks:
    """What is ``given``, else what the file's own directive says. Raises DockerfileError."""
    try:
        return Checks.parse(read_directives(text).check if given is None else given)
    except ValueError as error:
        raise DockerfileError(str(error), text.span(0) if given is None else None) from None
