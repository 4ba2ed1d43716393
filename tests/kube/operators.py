"""What an operator brings to an installation: an authority, a PostgreSQL, the platform's keys."""

import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.kube.installation import CHART
from tests.kube.kubectl import Kubectl

USER: Final = "astro.cloud-1"
"""A name that SQL and addresses have to quote."""
PASSWORD: Final = "cle:ar\\sk'ies %41 #?/@"
"""One that is something else in an address, in SQL and in libpq's file of passwords."""

_START: Final = """
umask 077
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username=postgres --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
fi
printf 'local all all trust\\nhostssl all all all scram-sha-256\\n' > /tmp/pg_hba.conf
exec postgres -c 'listen_addresses=*' -c unix_socket_directories=/tmp -c hba_file=/tmp/pg_hba.conf \
    -c ssl=on -c ssl_cert_file=/keys/tls.crt -c ssl_key_file=/keys/tls.key
"""


def openssl(*arguments: str | Path) -> None:
    """Run ``openssl``, which does not fail."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Authority:
    """An authority as an operator has one, made with ``openssl``.

    Parameters
    ----------
    folder
        Where its files are.
    name
        What it calls itself.
    kind
        The kind of its keys and of those it certifies, in openssl's words.
    """

    def __init__(self, folder: Path, name: str, *, kind: tuple[str, ...] = ("rsa:2048",)) -> None:
        self._file, self._kind = folder / name, kind
        usage = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
        added = [part for extension in usage for part in ("-addext", extension)]
        openssl("req", "-x509", "-days", "30", *self._new(self._file), "-subj", f"/CN={name}", *added)

    @property
    def certificate(self) -> str:
        """What its certificates are checked by."""
        return self._file.with_suffix(".crt").read_text()

    @property
    def key(self) -> str:
        """Its own key."""
        return self._file.with_suffix(".key").read_text()

    def issue(self, *names: str) -> tuple[str, str]:
        """Return a certificate for what is called by `names`, and its key."""
        made = self._file.with_name(f"made-{secrets.token_hex(4)}")
        openssl("req", *self._new(made), "-subj", "/O=Example Observatory")
        extensions = made.with_suffix(".ext")
        extensions.write_text(
            f"subjectAltName={','.join(f'DNS:{name}' for name in names)}\n"
            "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        by = ("-CA", self._file.with_suffix(".crt"), "-CAkey", self._file.with_suffix(".key"), "-CAcreateserial")
        request, certificate = made.with_suffix(".crt"), made.with_suffix(".pem")
        openssl("x509", "-req", "-days", "30", "-in", request, "-out", certificate, "-extfile", extensions, *by)
        return certificate.read_text(), made.with_suffix(".key").read_text()

    def _new(self, file: Path) -> list[str | Path]:
        """Return the arguments that make a key, and what is asked of it."""
        return ["-newkey", *self._kind, "-nodes", "-keyout", file.with_suffix(".key"), "-out", file.with_suffix(".crt")]


def secret(name: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(values)}


def own_keys(folder: Path, *, name: str, namespace: str) -> dict[str, str]:
    """Return what a Secret of the operator's has to hold, as docs/operator/kubernetes.md says: with TLS inside.

    Each ends with a newline, as one that was made from a file does.
    """
    listed = (CHART / "files" / "secrets.txt").read_text(encoding="utf-8").splitlines()
    # The password of the database is another Secret's.
    names = [line for line in listed if line and not line.startswith("#") and line != "database-password"]
    found = {each: secrets.token_hex(32) + "\n" for each in names}
    platform = Authority(folder, "platform")
    servers = Authority(folder, "servers", kind=("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"))
    found |= {"platform-ca": platform.certificate, "servers-ca": servers.certificate, "servers-ca-key": servers.key}
    called = {part: [f"{name}-{part}.{namespace}.svc"] for part in ("hub", "passport", "portal", "vospace")}
    called["vospace"].append(f"{name}-bytes.{namespace}.svc")
    called["proxy"] = [f"{name}-proxy-api.{namespace}.svc", f"{name}.{namespace}.svc"]
    for part, hosts in called.items():
        found[f"{part}-certificate"], found[f"{part}-key"] = platform.issue(*hosts)
    return found


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A PostgreSQL of the operator's, in a namespace of its own, with the platform's two databases."""

    kube: Kubectl
    namespace: str
    authority: str
    """What its certificate is checked by."""

    @property
    def host(self) -> str:
        """The name that it is certified for."""
        return f"postgresql.{self.namespace}.svc"

    @property
    def other_host(self) -> str:
        """A name by which it is reached, too, and that it is not certified for."""
        return f"other.{self.namespace}.svc"

    def kubectl(self, *arguments: str, given: Any = None) -> str:
        return self.kube.kubectl("-n", self.namespace, *arguments, given=given)

    def ask(self, question: str) -> list[str]:
        """Return the lines that it answers its administrator."""
        ask = ("psql", "--host=/tmp", "--username=postgres", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")
        pod = ("exec", "-n", self.namespace, "-i", "deployment/postgresql", "--")
        done = self.kube.run(*pod, *ask, given=question)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def restart(self) -> None:
        """Start it anew, as after its machine's maintenance."""
        self.kubectl("rollout", "restart", "deployment/postgresql")
        self.wait()

    def wait(self) -> None:
        self.kubectl("rollout", "status", "--timeout=180s", "deployment/postgresql")


@contextmanager
def postgres(kube: Kubectl, image: str) -> Iterator[Postgres]:
    """Run a PostgreSQL with the platform's two databases in a namespace of its own, and leave nothing of it.

    Parameters
    ----------
    image
        One with PostgreSQL in it; nothing else of the platform's own database is used.
    """
    namespace = f"operators-{secrets.token_hex(3)}"
    kube.kubectl("create", "namespace", namespace)
    try:
        with tempfile.TemporaryDirectory() as folder:
            authority = Authority(Path(folder), "observatory")
            made = Postgres(kube=kube, namespace=namespace, authority=authority.certificate)
            certificate, key = authority.issue(made.host)
        for each in _objects(image, {"tls.crt": certificate, "tls.key": key}):
            made.kubectl("create", "-f", "-", given=each)
        made.wait()
        quoted = PASSWORD.replace("'", "''")
        made.ask(
            f"SET standard_conforming_strings = on; CREATE ROLE \"{USER}\" LOGIN PASSWORD '{quoted}';\n"
            f'CREATE DATABASE astrocloud OWNER "{USER}";\nCREATE DATABASE jupyterhub OWNER "{USER}";\n'
        )
        yield made
    finally:
        kube.kubectl("delete", "namespace", namespace, "--timeout=180s")


def _objects(image: str, keys: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    labels = {"app": "postgresql"}
    yield secret("keys", keys)
    yield {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    for name in ("postgresql", "other"):
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"port": 5432}]},
        }
    container = {
        "name": "postgresql",
        "image": image,
        "command": ["bash", "-e", "-c", _START],
        "env": [{"name": "PGDATA", "value": "/data/pgdata"}],
        "readinessProbe": {"exec": {"command": ["pg_isready", "-q", "-h", "/tmp"]}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "keys", "mountPath": "/keys", "readOnly": True},
        ],
    }
    spec = {
        "securityContext": {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999},
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o440}},
        ],
    }
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "postgresql"},
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
