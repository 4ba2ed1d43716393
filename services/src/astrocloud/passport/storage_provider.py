"""The embedded provider in the database: signing keys, codes, tokens."""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from astrocloud.passport.models import Code, StoredKey, Token
from astrocloud.passport.tables import codes, keys, tokens


class ProviderTransaction:
    """The part of a transaction that is about the embedded provider."""

    _connection: Connection

    # signing keys

    def keys(self) -> list[StoredKey]:
        """Return all signing keys, the one that signs from earliest first."""
        rows = self._connection.execute(select(keys).order_by(keys.c.signs_from, keys.c.kid))
        return [StoredKey(**row._mapping) for row in rows]

    def add_key(self, key: StoredKey) -> None:
        """Keep a signing key."""
        self._connection.execute(insert(keys).values(**asdict(key)))

    def drop_key(self, kid: str) -> None:
        """Drop a signing key."""
        self._connection.execute(delete(keys).where(keys.c.kid == kid))

    # codes

    def add_code(self, code: Code, *, code_hash: str) -> None:
        """Keep a code by the hash of its secret."""
        self._connection.execute(insert(codes).values(hash=code_hash, used=False, **asdict(code)))

    def code_by_hash(self, code_hash: str) -> tuple[Code, bool] | None:
        """Return a code and whether it was used already, or `None`."""
        row = self._connection.execute(select(codes).where(codes.c.hash == code_hash)).one_or_none()
        if row is None:
            return None
        return Code(**{name: row._mapping[name] for name in Code.__dataclass_fields__}), bool(row.used)

    def use_code(self, code_hash: str) -> bool:
        """Use a code up. Returns whether it was unused: of two that try, one succeeds."""
        changed = self._connection.execute(
            update(codes).where(codes.c.hash == code_hash, codes.c.used.is_(False)).values(used=True)
        )
        return changed.rowcount == 1

    def drop_code(self, code_hash: str) -> None:
        """Drop a code."""
        self._connection.execute(delete(codes).where(codes.c.hash == code_hash))

    def code_is_kept(self, grant_id: str) -> bool:
        """Whether the code of a grant is still known: dropped when it was replayed."""
        return self._connection.execute(select(codes.c.hash).where(codes.c.grant_id == grant_id)).first() is not None

    # tokens

    def add_token(self, token: Token, *, token_hash: str) -> None:
        """Keep a token by its hash."""
        self._connection.execute(insert(tokens).values(hash=token_hash, **asdict(token)))

    def token_by_hash(self, token_hash: str) -> Token | None:
        """Return a token, a revoked or expired one too, or `None`."""
        row = self._connection.execute(select(tokens).where(tokens.c.hash == token_hash)).one_or_none()
        if row is None:
            return None
        return Token(**{name: row._mapping[name] for name in Token.__dataclass_fields__})

    def revoke_token(self, token_hash: str) -> bool:
        """Revoke a token, or use a refresh token up. Returns whether it was good before."""
        changed = self._connection.execute(
            update(tokens).where(tokens.c.hash == token_hash, tokens.c.revoked.is_(False)).values(revoked=True)
        )
        return changed.rowcount == 1

    def revoke_grant(self, grant_id: str) -> None:
        """Revoke all that came of one code."""
        self._connection.execute(update(tokens).where(tokens.c.grant_id == grant_id).values(revoked=True))

    def revoke_session_tokens(self, session_id: str) -> None:
        """Revoke all codes and tokens of one session."""
        self._connection.execute(update(tokens).where(tokens.c.session_id == session_id).values(revoked=True))
        self._connection.execute(update(codes).where(codes.c.session_id == session_id).values(used=True))

    def revoke_person_tokens(self, username: str, *, but_session: str = "") -> None:
        """Revoke all codes and tokens of somebody, except those of one session."""
        self._connection.execute(
            update(tokens).where(tokens.c.username == username, tokens.c.session_id != but_session).values(revoked=True)
        )
        self._connection.execute(
            update(codes).where(codes.c.username == username, codes.c.session_id != but_session).values(used=True)
        )

    def drop_old_provider_rows(self, *, before: datetime) -> None:
        """Drop codes and tokens that expired before `before`; kept till then, a replay is still noticed."""
        self._connection.execute(delete(codes).where(codes.c.expires_at < before))
        self._connection.execute(delete(tokens).where(tokens.c.expires_at < before))
