"""The system call filter: its program by a small machine of ours, and the filter itself in a process of its own."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sandbox import ruleset, seccomp, syscalls
from harness.sandbox.seccomp import ALLOW, KILL, MACHINES, REFUSE, Rule, program, rules

LINUX = sys.platform.startswith("linux")
CALLS = st.sampled_from(("own", "shared"))


def decide(code: bytes, mark: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would answer: runs the program on a call."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, mark, 0, *padded)
    place, accumulator = 0, 0
    for _ in range(len(code)):
        operation, yes, no, value = struct.unpack_from("=HBBI", code, 8 * place)
        place += 1
        if operation == seccomp.RETURN:
            return int(value)
        if operation == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        else:
            holds = {
                seccomp.EQUAL: accumulator == value,
                seccomp.ANY_BIT: bool(accumulator & value),
                seccomp.GREATER: accumulator > value,
            }[operation]
            place += yes if holds else no
    raise AssertionError("the program does not end")


def answer(name: str, *arguments: int, calls: str = "own", scoped: bool = True, machine: str = "x86_64") -> int:
    """The error number of a call, or -1 when it is allowed."""
    mark, numbers, _ = MACHINES[machine]
    code = program(rules(calls, signals_scoped=scoped), machine)
    found = decide(code, mark, numbers[name], arguments)
    return -1 if found == ALLOW else found - REFUSE


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("calls", ["own", "shared"])
def test_ways_out_are_refused(machine: str, calls: str) -> None:
    for name in syscalls.group("escape"):
        if name in MACHINES[machine][1]:
            assert answer(name, 1, 2, 3, calls=calls, machine=machine) == errno.EPERM, name
    for name in syscalls.group("absent"):
        assert answer(name, calls=calls, machine=machine) == errno.ENOSYS, name


def test_ordinary_clone_is_allowed_and_namespaces_are_not() -> None:
    assert answer("clone", 0x3D0F00) == -1  # a thread
    assert answer("clone", 17) == -1  # a fork
    for flag in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer("clone", flag | 17) == errno.EPERM, hex(flag)


def test_sockets_by_family() -> None:
    assert [answer("socket", family) for family in (1, 2, 10, 16)] == [-1] * 4
    assert {answer("socket", family) for family in (17, 38, 40, 44)} == {errno.EAFNOSUPPORT}
    assert answer("socket", 2, calls="shared") == errno.EPERM


def test_calls_about_other_processes() -> None:
    assert answer("prlimit64", 0) == -1
    assert answer("prlimit64", 1) == errno.EPERM
    assert answer("setpriority", 0, 0) == -1
    assert answer("setpriority", 0, 77) == errno.EPERM


def test_terminals_cannot_be_typed_into() -> None:
    assert answer("ioctl", 0, 0x5412) == errno.EPERM
    assert answer("ioctl", 0, 0x1_0000_5412) == errno.EPERM  # the kernel looks at the low half only
    assert answer("ioctl", 0, 0x5401) == -1


def test_signals_without_scopes() -> None:
    assert answer("kill", 1, 9, calls="shared") == -1
    assert answer("kill", 1, 9, calls="shared", scoped=False) == errno.EPERM
    assert answer("kill", 2**32 - 1, 9, calls="shared", scoped=False) == errno.EPERM
    assert answer("kill", os.getpid(), 9, calls="shared", scoped=False) == -1
    assert answer("kill", 0, 9, calls="shared", scoped=False) == -1
    assert answer("fcntl", 3, 8, calls="shared", scoped=False) == errno.EPERM
    assert answer("fcntl", 3, 4, calls="shared", scoped=False) == -1
    assert answer("ioctl", 3, 0x8901, calls="shared", scoped=False) == errno.EPERM


def test_metadata_is_answered_as_done_where_landlock_does_not_cover_it() -> None:
    assert answer("fchmodat", calls="shared") == 0
    assert answer("utimensat", 0, 0, 0x7FFF0000, calls="shared") == 0
    assert answer("utimensat", 0, 0, 0, calls="shared") == errno.EPERM
    assert answer("setxattr", calls="shared") == errno.EOPNOTSUPP
    assert answer("fchmodat", calls="own") == -1


def test_other_machines_and_newer_calls() -> None:
    code = program(rules("own", signals_scoped=True), "x86_64")
    mark = MACHINES["x86_64"][0]
    assert decide(code, 0x40000003, 39) == KILL  # the 32-bit table has other numbers
    assert decide(code, mark, 39) == ALLOW
    assert decide(code, mark, 0x40000000 | 39) == REFUSE | errno.ENOSYS  # x32
    assert decide(code, mark, seccomp.NEWEST + 1) == REFUSE | errno.ENOSYS
    with pytest.raises(OSError, match="no system call filter for riscv64"):
        program([], "riscv64")


@given(
    CALLS, st.sampled_from(sorted(MACHINES)), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=6)
)
def test_program_always_ends_within_its_code(calls: str, machine: str, number: int, arguments: list[int]) -> None:
    code = program(rules(calls, signals_scoped=False), machine)
    found = decide(code, MACHINES[machine][0], number, tuple(arguments))
    assert found == ALLOW or REFUSE <= found < REFUSE + 4096
    assert len(code) // 8 < 4096


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40, unique=True), st.integers(0, 2**32 - 1), st.booleans()
)
def test_lists_of_values(values: list[int], value: int, allowed: bool) -> None:  # noqa: FBT001 - hypothesis draws it
    given_values = {"unless" if allowed else "when": tuple(values)}
    code = program([Rule("ioctl", argument=1, **given_values)], "x86_64")  # type: ignore[arg-type]
    for tried in (value, *values):
        refused = decide(code, MACHINES["x86_64"][0], 16, (0, tried)) != ALLOW
        assert refused == ((tried in values) != allowed)


def test_rules_about_the_same_call_add_up() -> None:
    code = program(
        [Rule("ioctl", argument=1, when=(1, 2)), Rule("ioctl", argument=1, bits=8), Rule("ioctl", 5, 0, (3,))], "x86_64"
    )
    mark = MACHINES["x86_64"][0]
    assert [decide(code, mark, 16, (3, value)) == ALLOW for value in (0, 1, 2, 4, 8)] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert decide(code, mark, 16, (4, 0)) == REFUSE | 5


def test_tables_name_each_call_once() -> None:
    names = [row[1] for row in syscalls._ROWS]
    assert len(names) == len(set(names))
    assert len(set(syscalls.X86_64.values())) == len(syscalls.X86_64)
    assert len(set(syscalls.GENERIC.values())) == len(syscalls.GENERIC)


@pytest.mark.skipif(not LINUX, reason="Linux only")
def test_numbers_are_those_of_this_machine() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.is_file():
        pytest.skip("no kernel headers here")
    lines = [
        line.split() for line in header.read_text(encoding="ascii").splitlines() if line.startswith("#define __NR_")
    ]
    known = {words[1].removeprefix("__NR_"): int(words[2]) for words in lines}
    assert {name: known[name] for name in syscalls.X86_64 if name in known} == {
        name: number for name, number in syscalls.X86_64.items() if name in known
    }


def restricted(script: str) -> str:
    """What a process prints that first does this to itself."""
    text = "import os, socket, errno\nfrom harness.sandbox import libc, seccomp, ruleset\n" + textwrap.dedent(script)
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", text], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not LINUX, reason="Linux only")
def test_filter_without_scopes_in_a_process() -> None:
    printed = restricted(
        """
        parent = os.getppid()
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.apply("shared", signals_scoped=False)
        os.kill(os.getpid(), 0)
        os.kill(0, 0)
        for act in (lambda: os.kill(parent, 0), lambda: socket.socket(), lambda: os.setns(0)
                    if hasattr(os, "setns") else os.kill(-1, 0)):
            try:
                act()
                print("through")
            except OSError as error:
                print(errno.errorcode[error.errno])
        print(socket.socketpair()[0].family.name)
        """
    )
    assert printed.split() == ["EPERM", "EPERM", "EPERM", "AF_UNIX"]


@pytest.mark.skipif(ruleset.version() < ruleset.LOWEST_ABI, reason="no Landlock of the third version")
def test_landlock_in_a_process(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open/file").write_text("in", encoding="ascii")
    (tmp_path / "closed").write_text("out", encoding="ascii")
    (tmp_path / "open/link").symlink_to(tmp_path / "closed")
    printed = restricted(
        f"""
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        os.chdir({str(tmp_path)!r})
        ruleset.restrict(["open", "not there"], [])
        for name in ("open/file", "closed", "open/link"):
            try:
                os.close(os.open(name, os.O_RDONLY))
                print("read")
            except PermissionError:
                print("closed")
        """
    )
    assert printed.split() == ["read", "closed", "closed"]


def test_old_landlock_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruleset, "version", lambda: 2)
    with pytest.raises(OSError, match="version 3 is needed"):
        ruleset.restrict([], [])
    monkeypatch.setattr(ruleset, "version", lambda: 1)
    with pytest.raises(OSError, match="version 2 is needed"):
        ruleset.confine()


def test_landlock_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert ruleset.version() == 0
