"""Becomes another program, which ends with its parent, even if the parent is killed.

Run as a script (`python child.py [--unprivileged | --user NAME] PARENT_PID SIGNAL COMMAND…`), by
path and only with the standard library, so that it costs 20 ms. The kernel sends SIGNAL to the
program as soon as the parent is gone. That needs Linux; elsewhere, remaining processes are found by
their pid files.

`--unprivileged` is for PostgreSQL, which refuses to run as root: the program runs as `nobody`. It
keeps one capability, to bypass file permissions, because its files may be under a directory that
only root may enter (an environment in /root). So no directory has to be opened for `nobody`.

`--user` is for programs that run other people's code: the program runs as that user, in the user's
home if there is one. Neither the program nor its children can regain rights.
"""

import ctypes
import os
import pwd
import signal
import struct
import sys

# From linux/prctl.h and linux/capability.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> None:
    """Prepare this process as the module's docstring says, then run the command in its place."""
    if arguments[0] == "--unprivileged":
        arguments = arguments[1:]
        if os.geteuid() == 0:
            _become_nobody()
    elif arguments[0] == "--user":
        _become(arguments[1])
        arguments = arguments[2:]
    parent, stop_signal, *command = arguments
    # This comes after the change of user, which would clear it.
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, int(stop_signal))
    if os.getppid() != int(parent):
        sys.exit("The parent process has ended.")
    os.execv(command[0], command)


def _become_nobody() -> None:
    nobody = pwd.getpwnam("nobody")
    if sys.platform == "linux":
        _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    if sys.platform == "linux":
        _keep_file_access()


def _become(name: str) -> None:
    user = pwd.getpwnam(name)
    if os.geteuid() == 0:
        os.initgroups(name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    # The user may not be allowed to enter the current directory.
    os.chdir(user.pw_dir if os.access(user.pw_dir, os.X_OK) else "/")
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _keep_file_access() -> None:
    mask = 1 << _CAP_DAC_OVERRIDE
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    effective_permitted_inheritable = struct.pack("6I", mask, mask, mask, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, effective_permitted_inheritable) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE)


def _prctl(option: int, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    if libc.prctl(option, *padded) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


if __name__ == "__main__":
    # Background jobs of a shell ignore SIGINT, and so would their children. But PostgreSQL and
    # Flower's processes are ended with SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main(sys.argv[1:])
