"""Servers as processes of this machine."""

from tests.hub.seam import *  # noqa: F403 - the tests themselves
