"""What the checks of a Dockerfile have found, told as it is found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from builder import events
from builder.errors import BuildError
from builder.planning.checks import Checks, Finding


@dataclass(frozen=True, slots=True)
class Findings:
    """Those of one build; each is told once, however many platforms it is found for. ``name`` is the Dockerfile's."""

    name: str
    checks: Checks
    listen: events.Listener
    _told: set[Finding] = field(default_factory=set)

    def tell(self, found: Iterable[Finding]) -> None:
        """Warns of those that count."""
        counted = filter(self.checks.counts, set(found) - self._told)
        for finding in sorted(counted, key=lambda finding: (finding.span.line, finding.rule, finding.message)):
            self._told.add(finding)
            self.listen(events.Warned(str(finding)))

    def refuse(self, *, check_only: bool) -> None:
        """Raises BuildError where something was found and that is fatal; it always is to a build that only checks."""
        if self._told and (self.checks.fatal or check_only):
            raise BuildError(f"the checks of {self.name} found {len(self._told)} things to mend")
        if check_only:
            self.listen(events.Note(f"the checks of {self.name} found nothing"))
