"""A program of its own: runs one command of a build in its root, and leaves nothing of it alive.

Started by builder/sandbox/run.py (see isolation.sandbox_command), for the builder itself must never unshare, mount,
chroot or change its directory. Only the standard library, and little of it, for every RUN pays for the start.

Standard input brings the specification (a record, see builder/sandbox/records.py) and then stays open: when it ends,
the builder is gone or has lost interest, and everything is killed. What is to be told goes to the descriptor that the
first argument names:

    ("made", the fields of a builder.sandbox.stubs.Stub)            a stub in the root
    ("error", text)                                         the root or the command could not be set up
    ("exit", code)                                          how the command ended

The processes, each the child of the one before:

    supervisor    joins the user and PID namespaces, keeps the builder's view of files, watches standard input
    init          (with a PID namespace) process 1: reaps; the kernel kills all the others when it ends
    command       sets up the root when there is no init, takes on its ids, and becomes the image's program

With a list of specifications on standard input it tries one after the other up to the first that works, and writes a
list of what was wrong with those before to standard output: so the builder learns what this machine allows.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import sys

from builder.sandbox import records
from builder.sandbox.ids import NOT_MAPPED
from builder.sandbox.mounts import make_mounts, place_mounts, raise_loopback
from builder.sandbox.root import call, change_root, furnish_by_files, furnish_by_mounts, libc, mount_root
from builder.sandbox.user_namespace import enter_user_namespace, map_all_ids

TYPE_CHECKING = False  # typing and collections.abc would cost each step some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Spec = dict[str, Any]
    Report = Callable[..., int]

NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 23, 24, 36

# What Docker gives to a container: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
# NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP (numbers of linux/capability.h).
CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_FOUND, NOT_RUNNABLE = 127, 126


def main() -> None:
    """Reads what to do from standard input and does it."""
    with open(0, "rb", closefd=False) as file:
        order = records.read(file)
    if isinstance(order, list):
        sys.stdout.buffer.write(records.encode(try_in_turn(order)))
        sys.stdout.flush()
        return
    report_fd = int(sys.argv[1])
    os.set_inheritable(report_fd, False)
    report = report_to(report_fd)
    try:
        supervise(order, report)
    except OSError as error:
        report("error", describe(error))


def report_to(fd: int) -> Report:
    """A function that writes its arguments as one record, whole (it is shorter than a pipe's atomic size)."""
    return lambda *record: os.write(fd, records.encode(record))


def describe(error: Exception) -> str:
    """The error in words, without its number."""
    if not isinstance(error, OSError):
        return f"{type(error).__name__}: {error}"
    text = error.strerror or str(error)
    return f"{text}: {error.filename}" if error.filename else text


def try_in_turn(specs: list[Spec]) -> list[str]:
    """Why each of the specifications before the first that works does not."""
    lifeline, _ = os.pipe()
    os.dup2(lifeline, 0)  # the builder has closed its end, and shall not be taken for dead
    failures = []
    for spec in specs:
        failure = attempt(spec)
        if not failure:
            break
        failures.append(failure)
    return failures


def attempt(spec: Spec) -> str:
    """What is wrong with one specification; empty when it works."""
    reading, writing = os.pipe()
    report = report_to(writing)
    child = fork(lambda: supervise(spec, report), report)
    os.close(writing)
    with open(reading, "rb") as file:
        told = list(records.read_all(file))
    os.waitpid(child, 0)
    errors = [str(values[0]) for kind, *values in told if kind == "error"]
    return "" if ("exit", 0) in told else (errors or ["the attempt was killed"])[0]


def fork(task: Callable[[], int], report: Report) -> int:
    """Starts ``task`` in a child that ends with the exit code it returns; what it raises is reported."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = task()
    except Exception as error:  # whatever it is, it must not pass for the command's own failure
        report("error", describe(error))
    finally:
        os._exit(code)


# The supervisor


def supervise(spec: Spec, report: Report) -> int:
    """Runs one command from first to last; nothing of it is alive on return. Returns 0."""
    flags = 0 if spec["rung"] == "chroot" else NEWIPC | NEWUTS
    flags |= NEWPID if spec["pid_namespace"] else 0
    flags |= NEWNET if spec["network"] == "none" else 0
    if spec["user_namespace"]:
        enter_user_namespace(flags, map_all_ids)
    elif flags:
        call("unshare", "unshare", flags)
    call("become the reaper", "prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    first = fork(lambda: (init if spec["pid_namespace"] else prepare_and_become)(spec, report), report)
    status = watch(first)
    kill_descendants()
    report("exit", exit_code(status))
    return 0


def watch(child: int) -> int:
    """Waits for the child and reaps others; kills it at the end of standard input, and passes on TERM and INT."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    forward_signals(child)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(reading, select.POLLIN)
    while True:
        while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
            if reaped[0] == child:
                return reaped[1]
        ready = dict(poll.poll())
        if reading in ready:
            os.read(reading, 512)
        if 0 in ready:
            poll.unregister(0)
            os.kill(child, signal.SIGKILL)


def forward_signals(child: int) -> None:
    """TERM and INT to us go to the child."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: os.kill(child, received))


def kill_descendants() -> None:
    """Kills until nobody is left. As their reaper we get the children of each that we kill."""
    signal.set_wakeup_fd(-1)
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        os.waitpid(-1, 0)


def children() -> list[int]:
    """Our children, dead ones included."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = file.read().rpartition(b")")[2].split()[1]
        except (OSError, IndexError):
            continue
        if name.isdigit() and int(parent) == os.getpid():
            found.append(int(name))
    return found


def exit_code(status: int) -> int:
    """The exit code, or 128+N after signal N, as a shell has it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


# Init, and the setting up of the root


def init(spec: Spec, report: Report) -> int:
    """Process 1 of the PID namespace: returns how the command ended."""
    call("follow the supervisor", "prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    prepare(spec, report)
    command = fork(lambda: become(spec), report)
    forward_signals(command)
    while True:
        pid, status = os.wait()
        if pid == command:
            return exit_code(status)


def prepare_and_become(spec: Spec, report: Report) -> int:
    """The command's process, without an init."""
    prepare(spec, report)
    return become(spec)


def prepare(spec: Spec, report: Report) -> None:
    """Makes the root ready and goes into it."""
    os.umask(0)
    if spec["network"] == "none":
        raise_loopback()
    if spec["rung"] == "chroot":
        furnish_by_files(spec, report)
        place_mounts(spec, report)
        os.chroot(spec["root"])
    else:
        call("unshare mounts", "unshare", NEWNS)
        if spec["hostname"]:
            name = os.fsencode(spec["hostname"])
            call("set the host name", "sethostname", name, ctypes.c_size_t(len(name)))
        mount_root(spec)
        furnish_by_mounts(spec, report)
        make_mounts(spec, report)
        change_root(spec["root"])
    os.chdir("/")


# The command


def become(spec: Spec) -> int:
    """Turns this process into the image's program; returns the exit code where that cannot be."""
    if "argv" not in spec:
        return check_root(spec)
    os.setsid()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o022)
    try:
        os.chdir(spec["cwd"])
    except OSError as error:
        raise OSError(error.errno, f"working directory {spec['cwd']}: {os.strerror(error.errno or 0)}") from error
    attach_streams(spec["uid"])
    drop_capabilities()
    take_ids(spec)
    call("follow the supervisor", "prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return execute(spec["argv"], spec["env"])


def attach_streams(uid: int) -> None:
    """Empty input; the output belongs to the user, who may thus open /dev/stdout by name."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    try:
        os.fchown(1, uid, -1)
    except OSError:
        return  # only that convenience is lost


def drop_capabilities() -> None:
    """Keeps of what we have no more than a container has, now and for good."""
    number = 0
    while libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) != -1:
        if number not in CAPABILITIES:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
        number += 1
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of capabilities 0 to 31, then of the others
    call("read the capabilities", "capget", header, sets)
    kept = sum(1 << capability for capability in CAPABILITIES)
    sets[:] = [sets[0] & kept, sets[1] & kept, 0, 0, 0, 0]
    call("drop capabilities", "capset", header, sets)


def take_ids(spec: Spec) -> None:
    """Groups first, the user last, for it may not change them any more."""
    try:
        if spec["may_set_groups"]:
            os.setgroups(spec["groups"])
        os.setresgid(spec["gid"], spec["gid"], spec["gid"])
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    except OSError as error:
        ids = f"user {spec['uid']}, group {spec['gid']}, groups {spec['groups']}"
        reason = NOT_MAPPED if error.errno == errno.EINVAL else os.strerror(error.errno or 0)
        raise OSError(error.errno, f"take the ids of {ids}: {reason}") from error


def execute(argv: list[str], env: Mapping[str, str]) -> int:
    """execve(2), after a search on the image's PATH; returns 127 for what is not there and 126 for what cannot run."""
    name = argv[0]
    directories = env.get("PATH", DEFAULT_PATH).split(":")
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in directories]
    code, reason = NOT_FOUND, "not found in the image"
    for candidate in candidates:
        try:
            os.execve(candidate, argv, env)  # noqa: S606 - no shell unless the image asks for one
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isfile(candidate) and code == NOT_FOUND:
                reason = "its interpreter (#! or dynamic loader) is not in the image"
        except OSError as error:
            code, reason = NOT_RUNNABLE, f"cannot be run: {os.strerror(error.errno or 0)}"
    os.write(2, os.fsencode(f"{name}: {reason}\n"))
    return code


def check_root(spec: Spec) -> int:
    """Tries, in the place of a command, what steps do: change, own, delete, and read the devices."""
    os.close(os.open("/new", os.O_CREAT | os.O_WRONLY))
    try:
        os.chown("/new", 100, 65534)
        if spec["may_set_groups"]:
            os.setgroups([100])
    except OSError as error:
        if error.errno != errno.EINVAL:  # an id that the builder has not got, and thus no rung
            raise
    os.unlink("/file")
    os.close(os.open("/dev/null", os.O_RDWR))
    return 0
