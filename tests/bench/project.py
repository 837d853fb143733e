"""The projects that are built; the first has a base of 15,000 files and generates 5,000 more."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.debian import write_layout

SOURCE_FILES = 200


@dataclass(frozen=True)
class Size:
    """How many files the base has and a build makes, how many it copies, how large the large one is, and so on.

    ``projects`` is how many of the projects are built, from the first.
    """

    base_files: int
    generated_files: int
    copied_files: int
    large_file_mb: int
    builds_at_once: int
    stage_s: int
    projects: int


FULL = Size(15_000, 5_000, 2_000, 2_000, 20, 1, 5)
QUICK = Size(20, 20, 20, 2, 2, 0, 2)

DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS build
WORKDIR /src
COPY packages.txt ./
RUN mkdir -p lib && while read name; do mkdir -p lib/$name; done < packages.txt
RUN i=0; while [ $i -lt {generated_files} ]; do \\
      echo "module $i of $(($i % 50))" > lib/package-$(($i % 50))/$i.txt; i=$(($i + 1)); done
COPY app/ app/
RUN cat app/*.txt | sha256sum > app.sum

FROM ${BASE}
WORKDIR /app
COPY --from=build /src/lib lib/
COPY --from=build /src/app.sum ./
RUN echo "made of $(ls lib | wc -l) packages" > facts
CMD ["cat", "facts"]
"""


def write_base(tmp: Path, size: Size) -> Path:
    """Makes the base image, busybox and files of 0.5 to 16 kB of half random text, as an OCI layout."""
    root, layout = tmp / "base-root", tmp / "base"
    _put_busybox(root)
    chance = random.Random(15_000)
    for number in range(size.base_files):
        path = root / "usr" / "lib" / f"{number % 300}" / f"{number}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = chance.randbytes(chance.randint(256, 8192)).hex()
        path.write_text(words)
    write_layout(root, layout)
    shutil.rmtree(root)
    return layout


def _put_busybox(root: Path) -> None:
    (root / "bin").mkdir(parents=True)
    for directory in ("etc", "proc", "sys", "dev", "tmp"):
        (root / directory).mkdir()
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin" / "busybox")
    for name in ("sh", "cat", "echo", "ls", "mkdir", "sha256sum", "sleep", "wc"):
        (root / "bin" / name).symlink_to("busybox")


def write_small_base(tmp: Path) -> Path:
    """Makes a base image of busybox alone, as an OCI layout."""
    root = tmp / "small-root"
    _put_busybox(root)
    write_layout(root, tmp / "small")
    shutil.rmtree(root)
    return tmp / "small"


def write_app(context: Path, size: Size) -> None:
    """The application on the large base."""
    (context / "app").mkdir(parents=True)
    (context / "Dockerfile").write_text(DOCKERFILE.replace("{generated_files}", str(size.generated_files)))
    (context / "packages.txt").write_text("".join(f"package-{number}\n" for number in range(50)))
    for number in range(SOURCE_FILES):
        (context / "app" / f"{number}.txt").write_text(f"source {number}\n" * 100)


def change_one_source_file(context: Path, run: str) -> None:
    """Gives one source file a content that no earlier build has seen."""
    (context / "app" / "7.txt").write_text(f"changed for {run}\n")


def change_metadata(context: Path, run: str) -> None:
    """Gives the image a label that no earlier build has seen."""
    with (context / "Dockerfile").open("a") as dockerfile:
        dockerfile.write(f'LABEL run="{run}"\n')


def write_small(context: Path, _: Size) -> None:
    """Two steps on the small base."""
    context.mkdir(parents=True)
    (context / "file").write_text("content\n")
    (context / "Dockerfile").write_text("ARG SMALL\nFROM ${SMALL}\nCOPY file /\nRUN cat file > copy\n")


def write_many_files(context: Path, size: Size) -> None:
    """2,000 small files that are copied."""
    for number in range(size.copied_files):
        path = context / "files" / f"{number % 40}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {number}\n" * 200)
    (context / "Dockerfile").write_text("ARG SMALL\nFROM ${SMALL}\nCOPY files /files/\n")


def write_large_file(context: Path, size: Size) -> None:
    """One file of 2 GB, half of it random."""
    context.mkdir(parents=True)
    chance = random.Random(2_000)
    with (context / "large").open("wb") as file:
        for _ in range(size.large_file_mb // 2):
            file.write(chance.randbytes(1_000_000) + bytes(1_000_000))
    (context / "Dockerfile").write_text("ARG SMALL\nFROM ${SMALL}\nCOPY large /\n")


def write_stages(context: Path, size: Size) -> None:
    """Ten stages that do not wait for each other, each of which waits for something else for a second."""
    context.mkdir(parents=True)
    stages = "".join(f"FROM ${{SMALL}} AS s{n}\nRUN sleep {size.stage_s}; echo {n} > /made\n" for n in range(10))
    copies = "".join(f"COPY --from=s{n} /made /made{n}\n" for n in range(10))
    (context / "Dockerfile").write_text(f"ARG SMALL\n{stages}FROM scratch\n{copies}")
