"""VOSI documents (VOSI 1.1): where each of the service's interfaces is, and that it is up."""

from typing import Final

from astrocloud.vospace.settings import Settings
from astrocloud.vospace.writing import DECLARATION, XSI, escape

_VOSI: Final = "http://www.ivoa.net/xml/VOSICapabilities/v1.0"
_AVAILABILITY: Final = "http://www.ivoa.net/xml/VOSIAvailability/v1.0"
_VODATASERVICE: Final = "http://www.ivoa.net/xml/VODataService/v1.1"

_METHODS: Final = ("ivo://ivoa.net/sso#BasicAA", "vos://cadc.nrc.ca~vospace/CADC/std/Auth#token-1.0")
_BEARER: Final = ("ivo://ivoa.net/sso#OAuth", "ivo://ivoa.net/sso#cookie")

_INTERFACES: Final = (
    ("ivo://ivoa.net/std/VOSI#capabilities", "capabilities"),
    ("ivo://ivoa.net/std/VOSI#availability", "availability"),
    ("ivo://ivoa.net/std/VOSpace/v2.0#nodes", "nodes"),
    ("ivo://ivoa.net/std/VOSpace/v2.0#transfers", "transfers"),
    ("ivo://ivoa.net/std/VOSpace/v2.0#sync", "synctrans"),
    ("ivo://ivoa.net/std/VOSpace#sync-2.1", "synctrans"),
    ("ivo://ivoa.net/std/VOSpace/v2.0#properties", "properties"),
    ("ivo://ivoa.net/std/VOSpace/v2.0#views", "views"),
    ("ivo://ivoa.net/std/VOSpace/v2.0#protocols", "protocols"),
    ("ivo://ivoa.net/std/VOSpace#files-proto", "files"),
    ("ivo://ivoa.net/std/VOSpace#recursive-delete-proto", "async-delete"),
    ("ivo://ivoa.net/std/VOSpace#recursive-nodeprops-proto", "async-setprops"),
)


def capabilities(settings: Settings) -> str:
    """Return the capabilities document.

    Children of its root have no prefix, ``xsi`` is declared on the root, and the interface for those who are not signed
    in comes first: the client ``vos`` depends on each of these.
    """
    parts = [f'{DECLARATION}<vosi:capabilities xmlns:vosi="{_VOSI}" xmlns:vs="{_VODATASERVICE}" xmlns:xsi="{XSI}">\n']
    for standard, name in _INTERFACES:
        use = "full" if name in {"capabilities", "availability"} else "base"
        url = f'<accessURL use="{use}">{escape(f"{settings.base_url}/{name}")}</accessURL>'
        methods = "<securityMethod/>" + "".join(
            f'<securityMethod standardID="{method}"/>' for method in (*_METHODS, *_BEARER)
        )
        parts.append(
            f'<capability standardID="{standard}">'
            f'<interface xsi:type="vs:ParamHTTP" role="std" version="2.1">{url}{methods}</interface>'
            "</capability>\n"
        )
    parts.append("</vosi:capabilities>\n")
    return "".join(parts)


def availability(*, up: bool) -> str:
    """Return the availability document."""
    return (
        f'{DECLARATION}<vosi:availability xmlns:vosi="{_AVAILABILITY}">'
        f"<vosi:available>{str(up).lower()}</vosi:available></vosi:availability>\n"
    )


def resource_caps(settings: Settings) -> str:
    """Return the registry's list as the client ``vos`` reads it: which service has which capabilities document."""
    authority = settings.authority
    names = (f"{authority.name}~{authority.service}", *authority.aliases)
    url = f"{settings.base_url}/capabilities"
    return "".join(f"ivo://{name.replace('~', '/')} = {url}\n" for name in names)
