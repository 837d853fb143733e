"""What is allowed in a Dockerfile and better not done: BuildKit's build checks, under its names (pure).

Here are those that the text alone answers; `builder.planning.lint_steps` has the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from builder.dockerfile import instructions as ins
from builder.dockerfile.closest import closest
from builder.dockerfile.directives import Directives, read_directives
from builder.dockerfile.expansion import expand
from builder.dockerfile.lines import LogicalLine, Text, logical_lines
from builder.dockerfile.statement import Statement, read_statement
from builder.errors import DockerfileError
from builder.planning.checks import Finding
from cache.oci.errors import InvalidReference
from cache.oci.reference import Reference

_NAME = re.compile(r"\$(?:\{)?([A-Za-z_][A-Za-z0-9_]*)")
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_PUBLIC = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_RESERVED = ("scratch", "context")
_ONCE = (ins.Cmd, ins.Entrypoint, ins.HealthCheck)


def lint(text: Text, dockerfile: ins.Dockerfile, predefined: Mapping[str, str]) -> list[Finding]:
    """All that there is to find, in the order of the file; ``predefined`` are the arguments that need no ARG."""
    lines = list(logical_lines(text, dockerfile.escape))
    statements = [read_statement(line, dockerfile.escape) for line in lines]
    found = [*_casing(statements), *(finding for line in lines for finding in _empty_continuations(line))]
    globals_ = {argument.name.text: argument.default for arg in dockerfile.global_args for argument in arg.arguments}
    found += _stage_names([stage.base for stage in dockerfile.stages])
    for stage in dockerfile.stages:
        found += _base(stage.base, globals_, predefined, dockerfile.escape)
        found += _stage(stage.instructions)
    for arg in dockerfile.global_args:
        found += _secrets(arg)
    directives = read_directives(text)
    for definition in (*dockerfile.global_args, *(i for s in dockerfile.stages for i in (s.base, *s.instructions))):
        found += _description(text, directives, definition)
    return sorted(found, key=lambda finding: (finding.span.line, finding.rule))


def _casing(statements: Sequence[Statement]) -> Iterator[Finding]:
    words = [(statement, statement.line.text.split(maxsplit=1)[0]) for statement in statements]
    lower = sum(word.islower() for _, word in words)
    upper = sum(word.isupper() for _, word in words)
    majority, is_right = ("lowercase", str.islower) if lower > upper else ("uppercase", str.isupper)
    for statement, word in words:
        if not is_right(word):
            message = f"Command '{word}' should match the case of the command majority ({majority})"
            yield Finding("ConsistentInstructionCasing", message, statement.line.span(0, len(word)))


def _empty_continuations(line: LogicalLine) -> Iterator[Finding]:
    for piece, following in zip(line.pieces, line.pieces[1:], strict=False):
        for index in range(piece.index + 1, following.index):
            if not line.source.lines[index].strip():
                yield Finding("NoEmptyContinuation", "Empty continuation line", line.source.span(index))
                break


def _stage_names(bases: Sequence[ins.From]) -> Iterator[Finding]:
    names: set[str] = set()
    for base in bases:
        if base.name in _RESERVED:
            message = f'Stage name should not use the same name as reserved stage "{base.name}"'
            yield Finding("ReservedStageName", message, base.span)
        if base.name in names:
            message = f'Duplicate stage name "{base.name}", stage names should be unique'
            yield Finding("DuplicateStageName", message, base.span)
        names |= {base.name} - {""}


def _description(text: Text, directives: Directives, definition: ins.From | ins.Instruction) -> Iterator[Finding]:
    """What a comment right above the definition of a stage or of arguments begins with is the name of one.

    Neither a directive nor an empty comment counts.
    """
    match definition:
        case ins.From(name=str(name)) if name:
            names = [name]
        case ins.Arg():
            names = [argument.name.text for argument in definition.arguments]
        case _:
            return
    line = definition.span.line - 1  # the one above, from 1
    above = text.lines[line - 1].strip() if line > directives.lines else ""
    comment = above[1:].strip() if above.startswith("#") else ""
    if comment and comment.split(" ")[0] not in names:
        keyword = "ARG" if isinstance(definition, ins.Arg) else "FROM"
        example = names[0] if len(names) == 1 else "<arg_key>"
        message = f"Comment for {keyword} should follow the format: `# {example} <description>`"
        yield Finding("InvalidDefinitionDescription", message, definition.span)


def _base(
    base: ins.From, globals_: Mapping[str, ins.Word | None], predefined: Mapping[str, str], escape: str
) -> Iterator[Finding]:
    words = base.source.split()
    if base.name and words[-1] != base.name:
        yield Finding("StageNameCasing", f"Stage name '{words[-1]}' should be lowercase", base.span)
    if base.name and words[-2].isupper() != words[0].isupper():
        message = f"'{words[-2]}' and '{words[0]}' keywords' casing do not match"
        yield Finding("FromAsCasing", message, base.span)
    yield from _platform(base)
    names = [name for word in (base.image, base.platform) if word for name in _NAME.findall(word.text)]
    for name in dict.fromkeys(names):
        if name not in globals_ and name not in predefined:
            near = closest(name, (*predefined, *globals_))
            hint = f" (did you mean {near}?)" if near else ""
            yield Finding("UndefinedArgInFrom", f"FROM argument '{name}' is not declared{hint}", base.span)
    if _NAME.search(base.image.text) and not _is_name(_with_defaults(base.image, globals_, predefined, escape)):
        message = f"Default value for ARG {base.image.text} results in empty or invalid base image name"
        yield Finding("InvalidDefaultArgInFrom", message, base.span)


def _platform(base: ins.From) -> Iterator[Finding]:
    if base.platform is None:
        return
    if base.platform.text.replace("{", "").replace("}", "") == "$TARGETPLATFORM":
        message = "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
        yield Finding("RedundantTargetPlatform", message, base.span)
    elif "$" not in base.platform.text and not _told_by_name(base.name, base.platform.text):
        message = f'FROM --platform flag should not use constant value "{base.platform.text}"'
        yield Finding("FromPlatformFlagConstDisallowed", message, base.span)


def _told_by_name(stage: str, platform: str) -> bool:
    """Whether the stage's name has the system or the architecture in it."""
    return any(part in stage for part in platform.split("/")[:2])


def _with_defaults(
    word: ins.Word, globals_: Mapping[str, ins.Word | None], predefined: Mapping[str, str], escape: str
) -> str:
    """The word when nobody gives a value on the command line; empty where that is a fault."""
    scope = dict(predefined)
    try:
        for name, default in globals_.items():
            if default is not None:
                scope[name] = expand(default, scope, escape)
        return expand(word, scope, escape)
    except DockerfileError:
        return ""


def _is_name(text: str) -> bool:
    try:
        Reference.parse(text)
    except InvalidReference:
        return False
    return True


def _stage(instructions: Sequence[ins.Instruction]) -> Iterator[Finding]:
    last = {type(instruction): instruction for instruction in instructions}
    has_shell = has_workdir = False
    for instruction in instructions:
        has_shell = has_shell or isinstance(instruction, ins.Shell)
        if isinstance(instruction, _ONCE) and last[type(instruction)] is not instruction:
            name = instruction.source.split(maxsplit=1)[0].upper()
            reason = "should not be used in the same stage because only the last one will be used"
            yield Finding("MultipleInstructionsDisallowed", f"Multiple {name} instructions {reason}", instruction.span)
        if isinstance(instruction, ins.Workdir):
            if not has_workdir and not instruction.path.text.startswith(("/", "$")):
                reason = "can have unexpected results if the base image changes"
                message = f'Relative workdir "{instruction.path.text}" {reason}'
                yield Finding("WorkdirRelativePath", message, instruction.span)
            has_workdir = True
        yield from _one(instruction, has_shell=has_shell)


def _one(instruction: ins.Instruction, *, has_shell: bool) -> Iterator[Finding]:
    """What a single instruction says of itself."""
    match instruction:
        case ins.Cmd(command=ins.ShellForm()) | ins.Entrypoint(command=ins.ShellForm()) if not has_shell:
            name = instruction.source.split(maxsplit=1)[0].upper()
            reason = "to prevent unintended behavior related to OS signals"
            yield Finding("JSONArgsRecommended", f"JSON arguments recommended for {name} {reason}", instruction.span)
        case ins.Maintainer():
            message = "Maintainer instruction is deprecated in favor of using label"
            yield Finding("MaintainerDeprecated", message, instruction.span)
        case ins.Env() | ins.Label() | ins.Arg():
            yield from _legacy(instruction)
            yield from _secrets(instruction)
        case ins.Expose():
            yield from _ports(instruction)
        case _:
            return


def _legacy(instruction: ins.Env | ins.Label | ins.Arg) -> Iterator[Finding]:
    if isinstance(instruction, ins.Arg):
        return
    keyword, arguments = instruction.source.split(maxsplit=1)
    if "=" not in arguments.split(maxsplit=1)[0]:
        message = f'"{keyword.upper()} key=value" should be used instead of legacy "{keyword.upper()} key value" format'
        yield Finding("LegacyKeyValueFormat", message, instruction.span)


def _secrets(instruction: ins.Env | ins.Label | ins.Arg) -> Iterator[Finding]:
    match instruction:
        case ins.Env():
            keyword, names = "ENV", [pair.key.text for pair in instruction.pairs]
        case ins.Arg():
            keyword, names = "ARG", [argument.name.text for argument in instruction.arguments]
        case ins.Label():
            return
    for name in names:
        if _SECRET.search(name) and not _PUBLIC.search(name):
            message = f'Do not use ARG or ENV instructions for sensitive data ({keyword} "{name}")'
            yield Finding("SecretsUsedInArgOrEnv", message, instruction.span)


def _ports(instruction: ins.Expose) -> Iterator[Finding]:
    for word in instruction.ports:
        host, _, port = word.text.rpartition(":")
        protocol = port.partition("/")[2]
        if protocol != protocol.lower():
            message = f"Defined protocol '{protocol}' in EXPOSE instruction should be lowercase"
            yield Finding("ExposeProtoCasing", message, word.span)
        if host and "$" not in word.text:
            message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{word.text}'"
            yield Finding("ExposeInvalidFormat", message, word.span)
