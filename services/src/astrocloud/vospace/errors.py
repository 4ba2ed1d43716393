"""The faults of VOSpace 2.1, each with the standard's name.

::

    RequestError
    └── Fault              name (``NodeNotFound``), code (``vospace-node-not-found``), status, sentence in two languages

The name is the first word of a plain-text answer, because clients read it there; the sentence follows.
"""

from typing import Any, Final

from astrocloud.core.errors import RequestError

NAMES: Final = {
    "vospace-invalid-uri": "InvalidURI",
    "vospace-invalid-argument": "InvalidArgument",
    "vospace-type-not-supported": "TypeNotSupported",
    "vospace-link-found": "LinkFound",
    "vospace-permission-denied": "PermissionDenied",
    "vospace-not-yours-to-move": "PermissionDenied",
    "vospace-node-not-found": "NodeNotFound",
    "vospace-container-not-found": "ContainerNotFound",
    "vospace-duplicate-node": "DuplicateNode",
    "vospace-internal-fault": "InternalFault",
    "vospace-unexpected": "InternalFault",
    "vospace-view-not-supported": "ViewNotSupported",
    "vospace-protocol-not-supported": "ProtocolNotSupported",
    "vospace-node-busy": "NodeBusy",
    "vospace-node-locked": "NodeLocked",
    "vospace-operation-not-supported": "OperationNotSupported",
    "vospace-transfer-failed": "TransferFailed",
    "vospace-too-deep": "InvalidArgument",
    "vospace-too-large": "RequestEntityTooLarge",
    "vospace-quota": "QuotaExceeded",
    "vospace-disk-full": "QuotaExceeded",
    "vospace-checksum": "ChecksumMismatch",
    "vospace-precondition": "PreconditionFailed",
    "vospace-range": "RangeNotSatisfiable",
    "vospace-incomplete": "TransferFailed",
    "files-share-partly": "PermissionDenied",
    "files-view-gone": "InvalidArgument",
    "files-bad-name": "InvalidURI",
    "files-archive-gone": "NodeNotFound",
    "files-link-gone": "NodeNotFound",
    "files-trash-unusable": "PermissionDenied",
    "files-no-person": "InvalidArgument",
    "files-no-group": "InvalidArgument",
}
"""Error code -> the name of the fault: the standard's where it has one."""


class Fault(RequestError):  # noqa: N818 - the standard's word
    """A request that VOSpace refuses, with the standard's name for the reason."""

    @property
    def name(self) -> str:
        """The name of the fault, as clients compare it."""
        return NAMES[self.code]

    def text(self, language: str) -> str:
        """Return the plain text of the fault: its name, then what went wrong in `language`."""
        return f"{self.name} {self.sentence(language)}\n"


def invalid_argument(reason: str) -> Fault:
    """Return the fault for an argument that cannot be used; `reason` says which, its value and what is allowed."""
    return Fault("vospace-invalid-argument", reason=reason)


def not_found(uri: Any) -> Fault:
    """Return the fault for a node that is not there."""
    return Fault("vospace-node-not-found", uri=str(uri))
