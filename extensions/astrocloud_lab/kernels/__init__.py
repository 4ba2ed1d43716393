"""Kernels that are ready before they are asked for.

``parent``       the server's handle on a process that has imported what a kernel needs
``forkserver``   that process: forks one child for each kernel
``child``        what the child does to be a kernel like any other
``fingerprint``  tells when what was imported is stale
``blas``         gives numpy its threads back where it was imported ahead
``memory``       says what should end first when memory runs out
``network``      what is different where the server's network is shared
``undebugged``   the kernel that runs there
``provisioner``  the door: jupyter_client's kernel provisioner

Why one forking parent and not one prepared child for each kernel: the second
kernel and every restart are as quick as the first, pages of imported modules are
shared between a person's kernels, and it costs no more memory than a prepared
child, which would also wait all the time.  It lives in the person's own server,
holds no secret of the platform, and has one thread and no event loop.
"""
