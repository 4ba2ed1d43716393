"""Keep modules out of the start that a single-user server never uses.

``jupyterhub.singleuser`` shares files with the hub, and through them a server
imports the hub's database layer (SQLAlchemy, Alembic), its pages and aiohttp:
about half of a second of which nothing is used afterwards.  While the curtain is
down, a short list of names resolves to placeholders.  When it goes up, no
placeholder is left in :data:`sys.modules`: whoever imports such a name then gets
the real module.

What stays behind are references inside JupyterHub's own modules, for instance
``jupyterhub.scopes.orm``.  They are :class:`OnDemand`, which reads the attribute
from the real module, imported at that moment.

To be removed when JupyterHub imports these lazily itself.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

ON_DEMAND = ("aiohttp", "sqlalchemy", "jupyterhub.orm", "jupyterhub.roles", "requests", "websocket")
"""Modules that are imported as a whole and used only inside functions of the hub's side."""

REFUSED = ("rfc3987_syntax", "isoduration")
"""Optional modules whose absence jsonschema handles: it leaves the check of the formats
``iri`` and ``duration`` out, which no schema of the server uses.  For the first it builds
a grammar at import, half of a stock server's start; the second brings arrow."""


class ShortcutError(ImportError):
    """A placeholder was used while importing: this version of a package needs the real one."""


class OnDemand(ModuleType):
    """Stands for a module inside the modules that imported it; reads from the real one.

    While importing, reading anything but the dunder names is an error, since it
    would mean that the module is needed after all.
    """

    _astrocloud_importing = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if type(self)._astrocloud_importing:
            raise ShortcutError(f"{self.__name__}.{name} is used while importing")
        return getattr(importlib.import_module(self.__name__), name)


class _Refuse(importlib.abc.MetaPathFinder):
    """A finder that says of some modules that they are not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in REFUSED:
            raise ModuleNotFoundError(f"{fullname} is left out of the start", name=fullname)
        return None


class _LatePackage(ModuleType):
    """A real package whose ``__init__`` runs when something of it is first asked for.

    ``jupyterhub.singleuser`` imports every flavour of server in its ``__init__``;
    ours needs one submodule.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(self)
        return getattr(self, name)


def _late_package(name: str) -> ModuleType:
    """Return the package ``name``, not executed yet."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ShortcutError(f"{name} is not installed")
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _LatePackage
    return module


def _pypi_manager(*args: Any, **kwargs: Any) -> Any:
    """Make the real manager, for whoever configures it."""
    real = importlib.import_module("jupyterlab.extensions.pypi")
    return real.PyPIExtensionManager(*args, **kwargs)


def _placeholders() -> dict[str, ModuleType]:
    """Return name -> placeholder for the time of the import."""
    from astrocloud_lab.lean import hubclient

    stubs: dict[str, ModuleType] = {name: OnDemand(name) for name in ON_DEMAND}
    # Named in an ``isinstance`` of the access log and in an ``except`` of the hub's
    # database code: no object of either class exists in a person's server.
    exceptions = ModuleType("sqlalchemy.exc")
    exceptions.SQLAlchemyError = type("SQLAlchemyError", (Exception,), {})  # type: ignore[attr-defined]
    handlers = ModuleType("jupyterhub.handlers")
    handlers.__path__ = []
    pages = ModuleType("jupyterhub.handlers.pages")
    pages.HealthCheckHandler = type("HealthCheckHandler", (), {})  # type: ignore[attr-defined]
    # The Lab's extension manager that installs from PyPI brings httpx and TLS.
    pypi = ModuleType("jupyterlab.extensions.pypi")
    pypi.PyPIExtensionManager = _pypi_manager  # type: ignore[attr-defined]
    # Only ``mock``, and only when a person has to sign in.
    unittest = ModuleType("unittest")
    unittest.mock = OnDemand("unittest.mock")  # type: ignore[attr-defined]
    stubs["unittest"] = unittest
    stubs["jupyterlab.extensions.pypi"] = pypi
    stubs["sqlalchemy"].__path__ = []
    stubs["sqlalchemy.exc"] = exceptions
    stubs["jupyterhub.handlers"] = handlers
    stubs["jupyterhub.handlers.pages"] = pages
    stubs["jupyterhub.httpclient"] = hubclient
    return stubs


@contextmanager
def lowered() -> Iterator[None]:
    """Import under the curtain; afterwards no placeholder is importable.

    Nothing of the user's may run inside: no configuration file, no extension.

    Raises
    ------
    ShortcutError
        If one of the names was imported before, or is needed while importing.
    """
    import jupyterhub

    stubs = _placeholders()
    early = [name for name in stubs if name in sys.modules]
    if early:
        raise ShortcutError(f"imported before the start: {', '.join(early)}")
    refuse = _Refuse()
    OnDemand._astrocloud_importing = True
    sys.modules.update(stubs)
    late = _late_package("jupyterhub.singleuser")
    sys.modules["jupyterhub.singleuser"] = late
    jupyterhub.singleuser = late
    sys.meta_path.insert(0, refuse)
    try:
        yield
    finally:
        sys.meta_path.remove(refuse)
        for name, stub in stubs.items():
            if sys.modules.get(name) is stub:
                del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules and sys.modules[parent].__dict__.get(child) is stub:
                delattr(sys.modules[parent], child)
        OnDemand._astrocloud_importing = False
