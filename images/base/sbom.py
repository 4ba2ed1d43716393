"""Print what an image holds, as an SPDX 2.3 document: Debian's packages, Python's and npm's.

It runs inside the build with nothing but Python's standard library.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

Package = dict[str, object]


def _package(name: str, version: str, url: str) -> Package:
    return {
        "SPDXID": f"SPDXRef-{re.sub('[^A-Za-z0-9.-]+', '-', url)}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url},
        ],
    }


def debian_packages(status: Path) -> Iterator[Package]:
    """Yield the packages that dpkg's status file says are installed."""
    for paragraph in status.read_text(encoding="utf-8").split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if str(fields["Status"]).endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            yield _package(name, version, f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}")


def python_packages(environment: Path) -> Iterator[Package]:
    """Yield the distributions in a virtual environment."""
    for metadata in sorted(environment.glob("lib/python3*/site-packages/*.dist-info/METADATA")):
        fields = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        name = re.sub("[-_.]+", "-", fields["Name"]).lower()
        yield _package(name, fields["Version"], f"pkg:pypi/{name}@{fields['Version']}")


def npm_packages(lock: Path) -> Iterator[Package]:
    """Yield the packages that an npm lock file names, those for development left out."""
    for place, entry in json.loads(lock.read_text(encoding="utf-8"))["packages"].items():
        name = place.rpartition("node_modules/")[2]
        if name and not entry.get("dev"):
            yield _package(name, entry["version"], f"pkg:npm/{name.replace('@', '%40')}@{entry['version']}")


def document(name: str, packages: list[Package]) -> dict[str, object]:
    """Return the document; the same packages give the same bytes."""
    digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"urn:sha256:{digest}",
        # Of the build, not of the hour: an image built twice from the same locks is the same.
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": ["Tool: astrocloud-sbom"]},
        "packages": packages,
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": package["SPDXID"],
            }
            for package in packages
        ],
    }


def main() -> None:
    """Print the document for what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--debian", type=Path)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--npm", type=Path)
    options = parser.parse_args()
    packages: list[Package] = []
    for place, read in (
        (options.debian, debian_packages),
        (options.python, python_packages),
        (options.npm, npm_packages),
    ):
        if place is not None:
            packages += read(place)
    json.dump(document(options.name, packages), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
