"""BuildKit's build checks that need more than the text: what base images set and are, what ``.dockerignore`` leaves out
(pure)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence

from builder.contexts.ignore import IgnoreRules
from builder.dockerfile import instructions as ins
from builder.dockerfile.closest import closest
from builder.dockerfile.expansion import variable_names
from builder.errors import Span
from builder.planning.checks import Finding
from builder.planning.history import quoted
from builder.planning.metadata import environment
from builder.planning.plan import ImageBase, Plan, StageBase
from builder.planning.sources import ContextSource
from builder.planning.stage_scope import Arguments
from builder.planning.steps import CopyFiles, StageSteps
from cache.oci.config import ImageConfig
from cache.oci.descriptor import Platform

_EVERYTHING = ("*", "**", "**/*")


def undefined_variables(stages: Sequence[StageSteps], arguments: Arguments, escape: str) -> Iterator[Finding]:
    """UndefinedVar: what words ask for that neither ENV, ARG nor the base image has at that place.

    A command's variables are its shell's business. Raises DockerfileError.
    """
    declared: dict[int, dict[str, bool]] = {}  # by stage, the names of its arguments, and whether each has a value
    for stage in stages:
        below = stage.plan.base
        args = declared[stage.plan.index] = dict(declared[below.index]) if isinstance(below, StageBase) else {}
        config = stage.base_config
        for instruction, step in zip(stage.plan.instructions, stage.steps, strict=True):
            if isinstance(instruction, ins.Arg):
                yield from _of_arguments(instruction, args, environment(config), (arguments, escape))
            else:
                names = (name for word in _words(instruction) for name in variable_names(word, escape))
                asked = (*names, *_document_names(instruction))
                yield from _undefined(asked, args, environment(config), instruction.span)
            config = step.config


def _of_arguments(
    instruction: ins.Arg, args: dict[str, bool], env: Mapping[str, str], known: tuple[Arguments, str]
) -> Iterator[Finding]:
    """The same of the defaults of an ARG that nobody overrides; adds its names to ``args``."""
    arguments, escape = known
    for argument in instruction.arguments:
        name, default = argument.name.text, argument.default
        if default is not None and name not in arguments.given:
            yield from _undefined(variable_names(default, escape), args, env, instruction.span)
        args[name] = default is not None or arguments.value(name) is not None


def _undefined(names: Iterable[str], args: Mapping[str, bool], env: Mapping[str, str], span: Span) -> Iterator[Finding]:
    for name in dict.fromkeys(names):
        if name in env or name in args:
            continue
        near = closest(name, (*env, *(arg for arg, has_value in args.items() if has_value)))
        hint = f" (did you mean ${near}?)" if near else ""
        yield Finding("UndefinedVar", f"Usage of undefined variable '${name}'{hint}", span)


def _words(instruction: ins.Instruction) -> Iterator[ins.Word]:
    """What is expanded when the image is built."""
    match instruction:
        case ins.Env(pairs=pairs) | ins.Label(pairs=pairs):
            for pair in pairs:
                yield pair.key
                yield pair.value
        case ins.Copy() | ins.Add():
            yield from (*instruction.sources, instruction.destination, *instruction.excludes)
            checksum = instruction.checksum if isinstance(instruction, ins.Add) else None
            yield from (word for word in (instruction.chown, instruction.chmod, checksum) if word is not None)
        case ins.Run(mounts=words) | ins.Expose(ports=words) | ins.Volume(paths=words):
            yield from words
        case ins.Workdir(path=word) | ins.User(user=word) | ins.StopSignal(signal=word):
            yield word
        case _:
            return


def _document_names(instruction: ins.Instruction) -> Iterator[str]:
    if isinstance(instruction, ins.Copy | ins.Add):
        for document in instruction.documents:
            if document.expand:
                yield from variable_names(ins.Word(document.content, instruction.span), quotes=False)


def ignored_sources(stages: Sequence[StageSteps], rules: IgnoreRules) -> Iterator[Finding]:
    """CopyIgnoredFile: what COPY and ADD name and the ``rules`` of the build context leave out.

    Where a rule takes paths in again nothing is found, as in BuildKit: a directory that is left out may then hold
    files that are not.
    """
    if any(rule.exception for rule in rules.rules):
        return
    for stage in stages:
        for instruction, step in zip(stage.plan.instructions, stage.steps, strict=True):
            if not isinstance(step, CopyFiles) or step.origin != ContextSource():
                continue
            keyword = "Add" if isinstance(instruction, ins.Add) else "Copy"
            for source in step.selection.patterns:
                path = posixpath.normpath(source)
                if _is_ignored(path.lstrip("/"), rules):
                    message = f"Attempting to {keyword} file {quoted(path)} that is excluded by .dockerignore"
                    yield Finding("CopyIgnoredFile", message, step.span)


def _is_ignored(path: str, rules: IgnoreRules) -> bool:
    if path in ("", "."):
        return any(rule.pattern in _EVERYTHING for rule in rules.rules)
    return rules.excludes(path)


def foreign_bases(plan: Plan, configs: Mapping[int, ImageConfig], platform: Platform) -> Iterator[Finding]:
    """InvalidBaseImagePlatform: the image that a stage takes, of the ``configs`` of all, is for another platform."""
    for stage in plan.stages:
        if not isinstance(stage.base, ImageBase):
            continue
        config, expected = configs[stage.index], stage.base.platform or platform
        if (config.os, config.architecture) != (expected.os, expected.architecture):
            pulled = f'Base image {stage.base.name} was pulled with platform "{config.platform}"'
            message = f'{pulled}, expected "{expected}" for current build'
            yield Finding("InvalidBaseImagePlatform", message, stage.base.span)
