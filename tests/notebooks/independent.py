"""What the tutorials' numbers should be, computed another way. Prints them as JSON: tutorial -> name -> value.

Run by the tests in the environment's Python, because the data lie in its packages. Files are read with astropy.io.fits
and the standard library; everything else is plain numpy, written from the formulas, so that it does not repeat the
tutorials' own calls. It is no test itself.
"""

import csv
import gzip
import json
import re
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from astropy.io import fits

ARCSEC = np.pi / 180 / 3600
KM_S_IN_AU_YEAR = 365.25 * 86400 / 149597870.7
LIGHT_KM_S = 299792.458


def packaged(package: str, relative: str) -> Path:
    """Return a file that is installed with a package."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / relative


def unit(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Return unit vectors, the last axis being x, y, z."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def angle_arcsec(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the angles between unit vectors, exact for small ones, too."""
    return 2 * np.arcsin(np.linalg.norm(one - other, axis=-1) / 2) / ARCSEC


def first_look() -> dict[str, float]:
    """Return the numbers of *First look*."""
    with fits.open(packaged("astropy", "io/fits/hdu/compressed/tests/data/m13.fits")) as hdus:
        image, header = hdus[0].data.astype(float), hdus[0].header
    found = {"pixel scale": header["CDELT2"] * 3600, "field": header["CDELT2"] * 60 * header["NAXIS1"]}

    # The background: the median of the outer rows, clipped by hand.
    edge = np.concatenate([image[:20].ravel(), image[-20:].ravel()])
    for _ in range(20):
        edge = edge[np.abs(edge - np.median(edge)) < 3 * edge.std()]
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = (image - np.median(edge)) * ((rows - 149.5) ** 2 + (columns - 149.5) ** 2 < 100**2)
    column, row = (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()
    # The gnomonic projection backwards (Calabretta & Greisen 2002, section 5.1.3): tangent point plus offsets.
    x = np.radians((column + 1 - header["CRPIX1"]) * header["CDELT1"])
    y = np.radians((row + 1 - header["CRPIX2"]) * header["CDELT2"])
    ra0, dec0 = np.radians([header["CRVAL1"], header["CRVAL2"]])
    east = np.array([-np.sin(ra0), np.cos(ra0), 0])
    north = np.array([-np.sin(dec0) * np.cos(ra0), -np.sin(dec0) * np.sin(ra0), np.cos(dec0)])
    pointing = unit(header["CRVAL1"], header["CRVAL2"]) + x * east + y * north
    pointing /= np.linalg.norm(pointing)
    found["centre ra"] = float(np.degrees(np.arctan2(pointing[1], pointing[0])) % 360)
    found["centre dec"] = float(np.degrees(np.arcsin(pointing[2])))
    published = unit((16 + 41 / 60 + 41.24 / 3600) * 15, 36 + 27 / 60 + 35.5 / 3600)
    found["from published"] = float(angle_arcsec(pointing, published))

    # Stars: peaks that stand 200 units above the ring around them.
    peaks = 0
    for i in range(4, 296):
        for j in range(4, 296):
            box = image[i - 4 : i + 5, j - 4 : j + 5]
            peaks += image[i, j] == box[2:7, 2:7].max() and image[i, j] - np.percentile(box, 20) > 200
    found["sources"] = float(peaks)
    return found | redshift() | cross_match()


def redshift() -> dict[str, float]:
    """Return the redshift by a grid of redshifts and widths, heights and continuum by linear least squares."""
    name = "io/default_loaders/tests/desi_test_data/coadd-sv3-dark-26065.fits"
    with fits.open(packaged("specutils", name)) as hdus:
        row = int(np.flatnonzero(hdus["FIBERMAP"].data["TARGETID"] == 39627866878514741)[0])
        red = [hdus[f"R_{part}"].data for part in ("WAVELENGTH", "FLUX", "IVAR")]
        far = [hdus[f"Z_{part}"].data for part in ("WAVELENGTH", "FLUX", "IVAR")]
    wave, flux, ivar = red[0], red[1][row].astype(float), red[2][row].astype(float)
    near = (wave > 7330) & (wave < 7440) & (ivar > 0)
    wave, flux, root = wave[near], flux[near], np.sqrt(ivar[near])

    def misfit(z: float, width: float) -> float:
        lines = [np.exp(-0.5 * ((wave - rest * (1 + z)) / width) ** 2) for rest in (3727.09, 3729.88)]
        design = np.stack([*lines, np.ones_like(wave)], axis=1) * root[:, None]
        solved, *_ = np.linalg.lstsq(design, flux * root, rcond=None)
        return float((((flux * root) - design @ solved) ** 2).sum())

    middle, reach, width, width_reach = 0.981, 0.004, 5.0, 3.0
    for _ in range(12):
        trials = [
            (misfit(z, w), z, w)
            for z in np.linspace(middle - reach, middle + reach, 15)
            for w in np.linspace(max(0.5, width - width_reach), width + width_reach, 15)
        ]
        _, middle, width = min(trials)
        reach, width_reach = reach / 2, width_reach / 2

    wave, flux, ivar = far[0], far[1][row].astype(float), far[2][row].astype(float)
    off = np.abs(wave - 4862.69 * (1 + middle))
    line, beside = off < 12, (off >= 12) & (off < 60)
    level = (flux[beside] * ivar[beside]).sum() / ivar[beside].sum()
    excess = (flux[line] * ivar[line]).sum() / ivar[line].sum() - level
    return {
        "redshift": float(middle),
        "velocity width": float(width / (3727.09 * (1 + middle)) * LIGHT_KM_S),
        "h-beta excess": float(excess * np.sqrt(ivar[line].sum())),
    }


def cross_match() -> dict[str, float]:
    """Return the cross-match by all pairs of unit vectors."""
    with packaged("astroquery", "alfalfa/tests/data/alfalfa_cat_small.txt").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    radio = unit(np.array([float(r["RAdeg_HI"]) for r in rows]), np.array([float(r["Decdeg_HI"]) for r in rows]))
    having = [r for r in rows if r["OCcode"] == "I"]
    optical = unit(np.array([float(r["RAdeg_OC"]) for r in having]), np.array([float(r["DECdeg_OC"]) for r in having]))
    distances = angle_arcsec(radio[:, None, :], optical[None, :, :])
    nearest, smallest = distances.argmin(axis=1), distances.min(axis=1)
    matched = smallest < 120
    right = [m and having[n]["AGCNr"] == r["AGCNr"] for m, n, r in zip(matched, nearest, rows, strict=True)]
    velocity = np.array([float(r["Vhelio"]) for r in rows])
    return {
        "h i sources": len(rows),
        "optical galaxies": len(having),
        "matched": float(matched.sum()),
        "as published": float(sum(right)),
        "median separation": float(np.median(smallest[matched])),
        "largest separation": float(smallest[matched].max()),
        "without a galaxy": float((~matched).sum()),
        "slowest without": float(velocity[~matched].min()),
        "slowest with": float(velocity[matched].min()),
    }


def files() -> dict[str, float]:
    """Return the numbers of *Files and where they live*."""
    name = "io/default_loaders/tests/desi_test_data/coadd-sv3-dark-26065.fits"
    with fits.open(packaged("specutils", name)) as hdus:
        flux = [hdus[f"{arm}_FLUX"].data.astype(float) for arm in "BRZ"]
    fifth = np.concatenate([each[4] for each in flux])
    return {
        "rows": sum(each.size for each in flux),
        "target 4": fifth.size,
        "mean flux": float(fifth.mean()),
        "bright": float(sum((each > 5).sum() for each in flux)),
    }


def tables_and_coordinates() -> dict[str, float]:
    """Return the numbers of *Tables and coordinates*."""
    with gzip.open(packaged("astroquery", "open_exoplanet_catalogue/tests/data/systems.xml.gz")) as file:
        root = ElementTree.parse(file).getroot()
    planets = [(star, planet) for star in root.iter("star") for planet in star.findall("planet")]
    ratios = []
    for star, planet in planets:
        texts = (star.findtext("mass"), planet.findtext("period"), planet.findtext("semimajoraxis"))
        if all(texts):
            mass, period, axis = (float(text or 0) for text in texts)
            # In Gaussian years, astronomical units and solar masses the constant of Kepler's law is 1.
            ratios.append((mass * (period / 365.2568983) ** 2) ** (1 / 3) / axis)
    ratio = np.array(ratios)

    systems = list(root.iter("system"))
    placed = [s for s in systems if s.findtext("rightascension")]
    places = []
    within_10_pc = 0
    for system in placed:
        hours, degrees = system.findtext("rightascension", "").split(), system.findtext("declination", "").split()
        if float(hours[2]) < 60 and float(degrees[2]) < 60:
            sign = -1 if degrees[0].startswith("-") else 1
            dec = sign * (abs(float(degrees[0])) + float(degrees[1]) / 60 + float(degrees[2]) / 3600)
            within_10_pc += float(system.findtext("distance") or "inf") < 10
            places.append((15 * (float(hours[0]) + float(hours[1]) / 60 + float(hours[2]) / 3600), dec))
    ra, dec = np.array(places).T
    field = unit(15 * (19 + 22 / 60 + 40 / 3600), 44.5)
    transit = [
        float(s.findtext("distance") or 0)
        for s in systems
        for star in s.iter("star")
        for p in star.findall("planet")
        if p.findtext("discoverymethod") == "transit" and s.findtext("distance")
    ]
    # Galactic coordinates: the galactic pole, and the longitude of the celestial one (J2000).
    pole, field_ra, field_dec = unit(192.85948, 27.12825), np.radians(15 * (19 + 22 / 60 + 40 / 3600)), np.radians(44.5)
    pole_ra, pole_dec = np.radians([192.85948, 27.12825])
    turn = np.arctan2(
        np.cos(field_dec) * np.sin(field_ra - pole_ra),
        np.cos(pole_dec) * np.sin(field_dec) - np.sin(pole_dec) * np.cos(field_dec) * np.cos(field_ra - pole_ra),
    )
    return {
        "kepler's field l": float((122.93192 - np.degrees(turn)) % 360),
        "kepler's field b": float(np.degrees(np.arcsin(pole @ field))),
        "within 10 pc": within_10_pc,
        "precession": 26 * 50.2879 / 60,
        "systems": len(systems),
        "with a position": len(placed),
        "planets of a star": len(planets),
        "planets": len(ratio),
        "median ratio": float(np.median(ratio)),
        "within 5 percent": float((np.abs(ratio - 1) < 0.05).mean()),
        "transit planets": len(transit),
        "transit distance": float(np.median(transit)),
        "in kepler's field": float((unit(ra, dec) @ field > np.cos(np.radians(8.5))).sum()),
        "usable places": len(places),
    } | barnard()


def barnard() -> dict[str, float]:
    """Return Barnard's Star by straight, uniform motion in space."""
    text = packaged("pyvo", "mivot/tests/data/simbad-cone-mivot.xml").read_text(encoding="utf-8")
    names = [match.group(1) for match in re.finditer(r'<FIELD[^>]*?\bname="([^"]+)"', text)]
    values = re.findall(r"<TD>(.*?)</TD>|<TD ?/>", text.split("<TABLEDATA>", 1)[1])
    row = dict(zip(names, values, strict=False))
    ra, dec, pmra, pmdec, parallax = (float(row[name]) for name in ("ra", "dec", "pmra", "pmdec", "plx_value"))

    def moved(ra_deg: float, dec_deg: float, years: float, radial_km_s: float) -> np.ndarray:
        a, d = np.radians([ra_deg, dec_deg])
        radial = unit(ra_deg, dec_deg)
        east = np.array([-np.sin(a), np.cos(a), 0])
        north = np.array([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
        distance_au = 1 / (parallax / 1000 * ARCSEC)
        motion = (pmra * east + pmdec * north) / 1000 * ARCSEC * distance_au + radial_km_s * KM_S_IN_AU_YEAR * radial
        place = radial * distance_au + motion * years
        return place / np.linalg.norm(place)

    gaia_place = (269.44850252543836, 4.739420051112412)
    gaia = unit(*gaia_place)
    total = float(np.hypot(pmra, pmdec)) / 1000
    found = {
        "distance": 1000 / parallax,
        "proper motion": total,
        "speed across": total * 1000 / parallax / KM_S_IN_AU_YEAR,
        "as it stands": float(angle_arcsec(unit(ra, dec), gaia)),
        "with its motion": float(angle_arcsec(moved(ra, dec, 16, 0), gaia)) * 1000,
    }
    for year in (1950, 2000, 2050):
        here, there = (moved(*gaia_place, year - 2016, speed) for speed in (-110.5, 0))
        found[f"ra {year}"] = float(np.degrees(np.arctan2(here[1], here[0])) % 360)
        found[f"dec {year}"] = float(np.degrees(np.arcsin(here[2])))
        found[f"perspective {year}"] = float(angle_arcsec(here, there))
    return found


if __name__ == "__main__":
    print(
        json.dumps(
            {"first-look": first_look(), "files": files(), "tables-and-coordinates": tables_and_coordinates()},
            default=float,
        )
    )
