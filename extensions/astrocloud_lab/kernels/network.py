"""What is different in a server that shares its network with those of other people.

A debugger listens on the loopback address and asks nobody who they are: whoever
connects runs code as the person.  Where the loopback address is the machine's, and
not the server's own as in a pod, kernels are started without one.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping, Sequence

VARIABLE = "ASTROCLOUD_SHARED_NETWORK"
"""Set to ``1`` by a spawner whose servers share a network."""

OPTION = "--IPKernelApp.kernel_class"
KERNEL_CLASS = "astrocloud_lab.kernels.undebugged.UndebuggedKernel"


def is_shared(environ: Mapping[str, str]) -> bool:
    """Return whether other people's programs reach the loopback address of this server."""
    return environ.get(VARIABLE) == "1"


def is_interpreter(command: Sequence[str], executable: str) -> bool:
    """Return whether a kernel's command runs the interpreter ``executable``, by any of its names."""
    program = os.path.abspath(shutil.which(command[0]) or command[0])
    # Not realpath: the interpreters of two environments may be links to one file.
    same_folder = os.path.dirname(program) == os.path.dirname(executable)
    return program == os.path.abspath(executable) or (same_folder and os.path.basename(program).startswith("python"))


def kernel_command(command: Sequence[str], executable: str) -> list[str]:
    """Return the command of a kernel for a shared network.

    Another interpreter's kernel, or one with a class of its own, stays as it is: a
    person may start what they like, and JupyterLab has no debugger to connect to it.
    """
    words = list(command)
    if any(word.startswith(OPTION) for word in words) or not is_interpreter(words, executable):
        return words
    launched = any(pair == ("-m", "ipykernel_launcher") for pair in itertools.pairwise(words))
    return [*words, f"{OPTION}={KERNEL_CLASS}"] if launched else words
