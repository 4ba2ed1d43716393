"""Processes in the test cluster's pods, as this machine sees them: its nodes are namespaces here."""

from pathlib import Path


def first_process(uid: str) -> int | None:
    """Return the first process of the container of a pod, as this machine numbers it."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            # The cgroup is the pod's; of its processes, the sandbox's own runs `/pause`.
            if uid not in (status.parent / "cgroup").read_text(encoding="ascii"):
                continue
            inside = status.read_text(encoding="ascii", errors="replace").partition("NSpid:")[2].splitlines()[0].split()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if inside[-1] == "1" and command and not command.startswith(b"/pause"):
            return int(status.parent.name)
    return None
