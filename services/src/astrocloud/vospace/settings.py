"""What the service takes from the configuration, in the form its parts use."""

from dataclasses import dataclass

from astrocloud.vospace.models import Authority


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Addresses and limits."""

    base_url: str
    """The service's address as clients reach it, without a final slash."""
    bytes_url: str
    """Where pre-authorised addresses of bytes begin; the same unless bytes have a way of their own."""
    redirect_from_bytes: int
    """A file of so many bytes or more is sent for by a redirect to `bytes_url`, where that is another way."""
    authority: Authority
    preauth_lifetime_s: int
    """How long a pre-authorised address works, in seconds."""
    upload_limit_bytes: int
    """The largest file that is taken, in bytes; 0: no limit."""
    allowed_networks: tuple[str, ...] = ()
    """Networks inside which this service may fetch from and send to others' addresses."""

    @property
    def has_way_around(self) -> bool:
        """Whether bytes have a way around the platform's proxy."""
        return self.bytes_url != self.base_url
