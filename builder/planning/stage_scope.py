"""What an instruction sees of its stage: the configuration so far, and the variables for its words (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from builder.dockerfile.expansion import expand, expand_words
from builder.dockerfile.instructions import Pair, Word
from builder.planning import metadata
from cache.oci.config import ImageConfig


@dataclass(frozen=True, slots=True)
class Arguments:
    """Values for ARG: from the command line, from before the first FROM, and predefined for the platform."""

    given: Mapping[str, str]
    global_args: Mapping[str, str]
    predefined: Mapping[str, str]

    def value(self, name: str) -> str | None:
        """The value of an ARG without a default; None when nothing gives it one."""
        for values in (self.given, self.global_args, self.predefined):
            if name in values:
                return values[name]
        return None


@dataclass(slots=True)
class StageScope:
    """Changes as the stage goes on.

    ``declared`` are the build arguments of this stage and those below it, None for one that nothing gave a value;
    ``latest`` the names whose last definition was an ARG: of ARG and ENV the later one wins. ``cmd_set`` tells a CMD of
    this very stage.
    """

    config: ImageConfig
    escape: str
    declared: dict[str, str | None] = field(default_factory=dict)
    latest: set[str] = field(default_factory=set)
    cmd_set: bool = False

    def above(self) -> StageScope:
        """The scope of a stage that starts from this one, finished."""
        config = metadata.stage_config(self.config)
        return StageScope(config, self.escape, dict(self.declared), set(self.latest))

    @property
    def workdir(self) -> str:
        return self.config.config.working_dir or "/"

    def declare(self, name: str, value: str | None) -> None:
        """ARG; without a value it leaves an earlier one alone."""
        if value is None:
            self.declared.setdefault(name, None)
            return
        self.declared[name] = value
        self.latest.add(name)

    def set_environment(self, pairs: Iterable[tuple[str, str]]) -> None:
        """ENV."""
        listed = list(pairs)
        self.config = metadata.with_env(self.config, listed)
        self.latest -= {name for name, _ in listed}

    def variables(self) -> dict[str, str]:
        """What words are expanded with and commands see: ENV and the declared ARGs."""
        values = {name: value for name, value in self.declared.items() if value is not None}
        latest = {name: values[name] for name in self.latest}
        return {**values, **metadata.environment(self.config), **latest}

    def text(self, word: Word) -> str:
        """The word, expanded. Raises DockerfileError."""
        return expand(word, self.variables(), self.escape)

    def optional_text(self, word: Word | None) -> str:
        """The word, expanded; empty when there is none. Raises DockerfileError."""
        return self.text(word) if word else ""

    def texts(self, words: Iterable[Word]) -> tuple[str, ...]:
        """Each word, expanded. Raises DockerfileError."""
        variables = self.variables()
        return tuple(expand(word, variables, self.escape) for word in words)

    def words(self, word: Word) -> tuple[str, ...]:
        """The words that one word expands to. Raises DockerfileError."""
        return expand_words(word, self.variables(), self.escape)

    def pairs(self, pairs: Iterable[Pair]) -> list[tuple[str, str]]:
        """Keys and values, expanded, none of which sees the others. Raises DockerfileError."""
        variables = self.variables()
        return [(expand(p.key, variables, self.escape), expand(p.value, variables, self.escape)) for p in pairs]
