"""The page of docs/ on Kaniko's flags, made of the tables: ``python -m builder.flag_page > docs/kaniko-flags.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from builder import flags, warm_flags
from builder.kaniko_environment import ON_GATES, OTHER_GATES, VARIABLES, Variable
from cache.flags import Effect, Flag, Kind

PATH = "docs/kaniko-flags.md"
START = """\
# Kaniko's flags and variables

<!-- Made by `python -m builder.flag_page > docs/kaniko-flags.md`: change the tables in the code, not this page. -->

Every flag and environment variable of Kaniko's executor and warmer is known here: those of the original, and those of
the forks of osscontainertools (mzihlmann) and Chainguard. `/kaniko/executor` is `crossdock build`, `/kaniko/warmer` is
`crossdock warm`; `executor push`, `login` and `version` are there too, `bake` is not: name its `--target` and
`--destination`.

- **same**: does what it does in Kaniko; **same, but**: apart from what stands behind *Unlike Kaniko*.
- **ignored**: accepted, and changes nothing; a build says so, and why.
- **refused**: an error that says what to do, because going on would give something else than was asked for.

A flag wins over its variable. Flags are written as with Kaniko: `--flag value` or `--flag=value`, `-d value` or
`-d=value`; a boolean alone is true, and has its value only behind `=`. What is marked … may be given several times.
A flag that is in no table is an error.

## One layer, paths left out, and the cache

`--single-snapshot` (also `--squash`) and `--ignore-path` change what is delivered and not how it is built. Steps have
the same keys, are looked up and saved one by one, and can be shared with builds that have neither flag; every later
step sees all that earlier ones made, be it new or from the cache. Only then are the layers over the base merged, or
written again without the paths. The result is cached as well, by the layers it is made of: a build that finds all its
steps finds it too, and fetches nothing. What `--ignore-path` leaves out stays in the layers of the cache, so it is
no way to keep a secret: that is `--secret`. In the history the entry of the last step that had a layer has the one
layer, and the others are empty.
"""


def page() -> str:
    """The whole text."""
    return "\n".join(
        [
            START,
            "## crossdock build (executor)\n",
            *_table(flags.BUILD),
            "\n## crossdock push (executor push)\n",
            *_table(flags.PUSH),
            "\n## crossdock warm (warmer)\n",
            "Unlike Kaniko's it ends with status 1 when one image could not be had, and not only when none could.\n",
            *_table(warm_flags.FLAGS),
            "\n## Environment variables\n",
            *_variables(),
            "\n## Feature gates\n",
            "Kaniko's gates (`FF_KANIKO_…`) are not read. Always as if on: "
            + ", ".join(f"`{name}`" for name in ON_GATES)
            + ".\n",
            *_rows(("Gate", "What is so here"), _gates()),
            "",
        ]
    )


def _table(table: Iterable[Flag]) -> list[str]:
    shown = sorted((flag for flag in table if flag.effect is not Effect.OWN), key=lambda flag: flag.name)
    rows = ((_spelled(flag), _and(flag.env), *_told(flag)) for flag in shown)
    return _rows(("Flag", "Variable", "Here", "What it does, or why not"), rows)


def _spelled(flag: Flag) -> str:
    several = " …" if flag.kind is Kind.LIST else ""
    default = f" ({flag.default})" if flag.default else ""
    return _and(flag.spellings) + several + default


def _told(item: Flag | Variable) -> tuple[str, str]:
    if item.unlike:
        return f"{item.effect.value}, but", f"{item.help} *Unlike Kaniko*: {item.unlike}"
    return item.effect.value, item.help


def _variables() -> list[str]:
    of_flags = {name: flag for flag in flags.BUILD for name in flag.env if name.startswith("KANIKO_")}
    rows = [
        (f"`{name}`", "ignored" if flag.effect is Effect.IGNORED else "same", f"As `--{flag.name}`.")
        for name, flag in sorted(of_flags.items())
    ]
    rows += [(_and(variable.names), *_told(variable)) for variable in VARIABLES]
    return _rows(("Variable", "Here", "What it does, or why not"), rows)


def _gates() -> Iterable[tuple[str, str]]:
    return ((f"`{name}`", text) for name, text in sorted(OTHER_GATES.items()))


def _and(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


if __name__ == "__main__":
    sys.stdout.write(page())
