"""Who may do what at the hub: every scope with its reason, and no more.

JupyterHub's own roles: ``user`` is redefined here; ``server`` (a server's own token) likewise; ``admin`` cannot be
redefined (JupyterHub refuses it), administrators hold ``platform-admin`` besides it.
"""

from typing import Any, Final

from jupyterhub import orm
from jupyterhub import roles as hub_roles
from sqlalchemy.orm import Session

ADMIN_ROLE: Final = "platform-admin"
"""What administrators hold besides the hub's own ``admin``, given and taken with it."""

USER_SCOPES: Final = (
    # One's own name, servers, tokens: what the hub's pages and the portal need on one's behalf.
    "self",
    # The portal, the passport's account page, My files; without these no sign-in at a service.
    "access:services!service=portal",
    "access:services!service=passport",
    "access:services!service=vospace",
    "custom:portal:use",
    # One's own files; the service decides by the file tree which those are.
    "custom:vospace:read",
    "custom:vospace:write",
)

SERVER_SCOPES: Final = (
    # Tell the hub that somebody works in it.
    "users:activity!user",
    # Check who comes in by a browser or a token: access to itself, nothing of its siblings.
    "access:servers!server",
    # Files of its owner by VOSpace, from notebooks.
    "custom:vospace:read!user",
    "custom:vospace:write!user",
)

ADMIN_SCOPES: Final = (
    "custom:people:admin",
    "custom:announcements:admin",
)

PORTAL_SCOPES: Final = (
    # Show somebody's servers and, on the administrators' page, everybody's.
    "list:users",
    "read:servers",
    # Why a server ended is in its state.
    "admin:server_state",
    # What is the matter with the nodes, on the administrators' page of events.
    "read:hub",
)

PORTAL_CLIENT_SCOPES: Final = (
    # What a person does on the portal's pages is done with the person's own token: start and stop their servers.
    "read:users!user",
    "servers!user",
    "custom:portal:use",
    # Granted only to those who hold them: administrators, on the administrators' page.
    "list:users",
    "admin:servers",
    "custom:announcements:admin",
    "access:services!service=portal",
)

PASSPORT_SCOPES: Final = (
    # Somebody was disabled or removed, or changed the password: end their servers, then their tokens.
    "read:users",
    "read:servers",
    "delete:servers",
    "tokens",
    # Somebody was removed.
    "delete:users",
)

PASSPORT_CLIENT_SCOPES: Final = (
    "read:users!user",
    # Administrators, on the page of people.
    "custom:people:admin",
    "access:services!service=passport",
)

VOSPACE_CLIENT_SCOPES: Final = (
    # Who somebody is; what they may do with files the file tree says.
    "read:users!user",
    "access:services!service=vospace",
)

OPERATOR_SCOPES: Final = (
    # `astrocloud token`: make a person known to the hub before their first sign-in, and a token of theirs. The hub
    # demands of whoever makes a token for somebody that they hold all of its scopes, hence `users` to
    # `access:services` and the custom ones.
    "admin:users",
    "tokens",
    "servers",
    "access:servers",
    "access:services",
    "shares",
    "custom:portal:use",
    "custom:people:admin",
    "custom:announcements:admin",
    "custom:vospace:read",
    "custom:vospace:write",
    # The supervisor: tell the hub of a proxy that was started anew.
    "proxy",
    # `astrocloud status`: what runs, and why something ended.
    "admin:server_state",
    "read:hub",
    "read:metrics",
    "list:services",
)


def roles() -> list[dict[str, Any]]:
    """Return what ``JupyterHub.load_roles`` is set to."""
    return [
        {"name": "user", "description": "A person", "scopes": list(USER_SCOPES)},
        {"name": "server", "description": "A person's server, by its own token", "scopes": list(SERVER_SCOPES)},
        {"name": ADMIN_ROLE, "description": "An administrator", "scopes": list(ADMIN_SCOPES)},
        {"name": "portal", "description": "The portal", "scopes": list(PORTAL_SCOPES), "services": ["portal"]},
        {"name": "passport", "description": "The passport", "scopes": list(PASSPORT_SCOPES), "services": ["passport"]},
        {
            "name": "operator",
            "description": "The astrocloud command and the supervisor",
            "scopes": list(OPERATOR_SCOPES),
            "services": ["operator"],
        },
        {"name": "monitoring", "description": "Prometheus", "scopes": ["read:metrics"], "services": ["monitoring"]},
    ]


def sync_admin_role(user: Any) -> bool:
    """Make `user` hold the administrators' role just when they are one; tell whether something changed."""
    held = any(role.name == ADMIN_ROLE for role in user.orm_user.roles)
    if held == bool(user.admin):
        return False
    change = hub_roles.strip_role if held else hub_roles.grant_role
    change(user.db, entity=user.orm_user, rolename=ADMIN_ROLE)
    return True


def restore_administrators(db: Session) -> None:
    """Give administrators their role again: as it names nobody, JupyterHub takes it from all when it starts."""
    role = orm.Role.find(db, ADMIN_ROLE)
    for user in db.query(orm.User).filter(orm.User.admin.is_(True), ~orm.User.roles.any(id=role.id)):
        hub_roles.grant_role(db, entity=user, rolename=ADMIN_ROLE)
