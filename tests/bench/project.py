"""The project that is built: a base of 15,000 files, and an application that generates 5,000 more."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.debian import write_layout

SOURCE_FILES = 200


@dataclass(frozen=True)
class Size:
    """How many files the base has, and how many the build makes."""

    base_files: int
    generated_files: int


FULL = Size(15_000, 5_000)
QUICK = Size(20, 20)

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
    (root / "bin").mkdir(parents=True)
    for directory in ("etc", "proc", "sys", "dev", "tmp"):
        (root / directory).mkdir()
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin" / "busybox")
    for name in ("sh", "cat", "echo", "ls", "mkdir", "sha256sum", "wc"):
        (root / "bin" / name).symlink_to("busybox")
    chance = random.Random(15_000)
    for number in range(size.base_files):
        path = root / "usr" / "lib" / f"{number % 300}" / f"{number}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = chance.randbytes(chance.randint(256, 8192)).hex()
        path.write_text(words)
    write_layout(root, layout)
    shutil.rmtree(root)
    return layout


def write_context(tmp: Path, size: Size) -> Path:
    """Makes the build context."""
    context = tmp / "context"
    (context / "app").mkdir(parents=True)
    (context / "Dockerfile").write_text(DOCKERFILE.replace("{generated_files}", str(size.generated_files)))
    (context / "packages.txt").write_text("".join(f"package-{number}\n" for number in range(50)))
    for number in range(SOURCE_FILES):
        (context / "app" / f"{number}.txt").write_text(f"source {number}\n" * 100)
    return context


def change_one_source_file(context: Path, run: str) -> None:
    """Gives one source file a content that no earlier build has seen."""
    (context / "app" / "7.txt").write_text(f"changed for {run}\n")
