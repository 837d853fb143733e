"""Whether this machine runs another platform's programs: natively, or by an emulator that binfmt_misc starts.

What ``/proc/sys/fs/binfmt_misc`` lists is often not to be seen in a container, although it holds there too. So a
program that does nothing but end is started, of some hundred bytes, for the architecture in question.
"""

from __future__ import annotations

import errno
import struct
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cache.oci.descriptor import Platform

_BASE = 0x400000
_TIMEOUT_S = 10.0
_CANNOT = (errno.ENOEXEC, errno.ENOENT)  # no handler, or one whose emulator is missing


@dataclass(frozen=True, slots=True)
class _Program:
    """A program that calls exit(0): ELF's number of the machine (System V ABI), flags, and the instructions."""

    machine: int
    code: bytes
    bits: int = 64
    order: str = "<"
    flags: int = 0

    def elf(self) -> bytes:
        """The executable file: a header, one segment and the code."""
        word = "Q" if self.bits == 64 else "I"
        header = struct.calcsize(f"{self.order}HHI{word * 3}IHHHHHH") + 16
        segment = 56 if self.bits == 64 else 32
        ident = b"\x7fELF" + bytes([self.bits // 32, 1 if self.order == "<" else 2, 1]) + bytes(9)
        entry = _BASE + header + segment
        fields = (2, self.machine, 1, entry, header, 0, self.flags, header, segment, 1, 0, 0, 0)
        head = struct.pack(f"{self.order}HHI{word * 3}IHHHHHH", *fields)
        size = header + segment + len(self.code)
        if self.bits == 64:
            load = struct.pack(f"{self.order}II6Q", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
        else:
            load = struct.pack(f"{self.order}8I", 1, 0, _BASE, _BASE, size, size, 5, 0x1000)
        return ident + head + load + self.code


_PROGRAMS = {
    "amd64": _Program(62, bytes.fromhex("31ffb83c0000000f05")),
    "386": _Program(3, bytes.fromhex("31db31c040cd80"), bits=32),
    "arm64": _Program(183, struct.pack("<3I", 0xD2800000, 0xD2800BA8, 0xD4000001)),
    "arm": _Program(40, struct.pack("<3I", 0xE3A00000, 0xE3A07001, 0xEF000000), bits=32, flags=0x05000000),
    "riscv64": _Program(243, struct.pack("<3I", 0x00000513, 0x05D00893, 0x00000073)),
    "ppc64le": _Program(21, struct.pack("<3I", 0x38000001, 0x38600000, 0x44000002), flags=2),
    "s390x": _Program(22, bytes.fromhex("a7290000") + bytes.fromhex("0a01"), order=">"),
}


@dataclass(frozen=True, slots=True)
class ForeignCode:
    """What runs on ``machine``; programs to try are written below ``scratch``."""

    machine: Platform
    scratch: Path
    _known: dict[str, bool] = field(default_factory=dict)

    def runs(self, platform: Platform) -> bool:
        """Whether commands of an image for ``platform`` can be started here. Blocks for some milliseconds."""
        if platform.os != self.machine.os:
            return False
        architecture = platform.architecture
        if architecture == self.machine.architecture:
            return True
        if architecture not in self._known:
            program = _PROGRAMS.get(architecture)
            self._known[architecture] = program is not None and _starts(program.elf(), self.scratch)
        return self._known[architecture]


def _starts(elf: bytes, scratch: Path) -> bool:
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="foreign-", dir=scratch) as directory:
        program = Path(directory, "program")
        program.write_bytes(elf)
        program.chmod(0o700)
        try:
            subprocess.run([program], env={}, capture_output=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return False
        except OSError as error:
            return error.errno not in _CANNOT  # a directory without leave to execute says nothing of the machine
    return True
