"""The programs that tell whether another platform's code runs here."""

import platform
import subprocess

import pytest

from builder.sandbox import foreign
from builder.sandbox.foreign import ForeignCode
from cache.oci.descriptor import Platform

MACHINE = Platform.parse(f"linux/{platform.machine()}")


def test_this_machine_s_program_runs_and_ends_well(tmp_path):
    program = tmp_path / "program"
    program.write_bytes(foreign._PROGRAMS[MACHINE.architecture].elf())
    program.chmod(0o700)
    assert subprocess.run([program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("architecture", "machine", "bits", "order"),
    [
        ("amd64", 62, 64, "little"),
        ("386", 3, 32, "little"),
        ("arm64", 183, 64, "little"),
        ("arm", 40, 32, "little"),
        ("riscv64", 243, 64, "little"),
        ("ppc64le", 21, 64, "little"),
        ("s390x", 22, 64, "big"),
    ],
)
def test_every_program_says_which_machine_it_is_for_and_starts_inside_itself(architecture, machine, bits, order):
    elf = foreign._PROGRAMS[architecture].elf()
    word = bits // 8
    assert elf[:6] == b"\x7fELF" + bytes([bits // 32, 1 if order == "little" else 2])
    assert int.from_bytes(elf[18:20], order) == machine
    entry = int.from_bytes(elf[24 : 24 + word], order)
    assert 0x400000 < entry < 0x400000 + len(elf)


def test_what_nobody_knows_does_not_run(tmp_path):
    code = ForeignCode(MACHINE, tmp_path)
    assert code.runs(MACHINE)
    assert not code.runs(Platform.parse("linux/mips64"))
    assert not code.runs(Platform.parse(f"windows/{MACHINE.architecture}"))
