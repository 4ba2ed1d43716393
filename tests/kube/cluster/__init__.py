"""A real Kubernetes cluster of three nodes on one Debian machine, without Docker or a public image registry.

Each node is a process tree of its own in its own network, mount, process and host-name namespaces, joined to the
others by a bridge: when the first process of a node ends, the kernel ends everything in it, mounts and interfaces
included. The control plane is a fourth such tree.

``python -m tests.kube.cluster up | down | status | build`` is what ``make cluster`` and ``make cluster-down`` call.
"""
