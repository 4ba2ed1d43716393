"""What people are offered: the catalogue's environments, or on a cluster the images that the operator names."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from astrocloud.config import Config
from astrocloud.core.cluster import Cluster
from astrocloud.environments.catalogue import Catalogue, catalogue_of, load_catalogue, what_is_wrong
from astrocloud.environments.errors import CatalogueError
from astrocloud.environments.models import Environment, ImageMenu, MenuEntry


def offered(config: Config, cluster: Cluster | None) -> Catalogue:
    """Return the environments that people can pick.

    Parameters
    ----------
    config
        Where the catalogue is, and which environment comes first.
    cluster
        The cluster that people's servers run on, `None` on one machine. On a cluster there is what there are images
        of: those of the catalogue, and others that the operator describes.

    Raises
    ------
    CatalogueError
        ``environment-none`` when a cluster has no image of any, ``environment-image`` when one is described wrongly,
        and what `load_catalogue` raises.
    UnknownEnvironment
        ``environment-unknown`` when the one to offer first is not there.
    """
    settings = config.environments
    if cluster is None:
        return load_catalogue(settings.folder, default=settings.default)
    images = cluster.servers.environments
    if not images:
        raise CatalogueError("environment-none")
    catalogue = load_catalogue(settings.folder)
    known = {environment.id: environment for environment in catalogue}
    return catalogue_of(
        {name: _described(name, image.menu, known.get(name)) for name, image in images.items()},
        # Who has no image of the usual one has not said that another one comes first, either.
        default=settings.default if settings.default in images or "default" in settings.model_fields_set else None,
    )


def _described(name: str, menu: Mapping[str, Any], known: Environment | None) -> Environment:
    """Return an environment as `menu` describes it, and as it is `known` where `menu` says nothing."""
    try:
        given = ImageMenu.model_validate(menu).model_dump(exclude_unset=True, exclude_none=True)
        software = given.pop("software", known.software if known else {})
        before = known.menu.model_dump(include=set(MenuEntry.model_fields)) if known else {}
        described = MenuEntry.model_validate({**before, **given, "id": name})
    except ValidationError as err:
        key, value, allowed = what_is_wrong(err, ImageMenu)
        told = {"environment": name[:64], "key": key, "value": value, "allowed": allowed}
        raise CatalogueError("environment-image", **told) from None
    if known is None:
        return Environment(menu=described, software=software)
    return Environment(
        menu=described, software=software, python=known.python, folder=known.folder, lock_hash=known.lock_hash
    )
