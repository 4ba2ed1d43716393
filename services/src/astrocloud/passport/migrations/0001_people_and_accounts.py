"""The directory of people, accounts, and the embedded provider."""

import sqlalchemy as sa
from alembic import op

revision = "passport_0001"
down_revision = None
branch_labels = ("passport",)
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "passport_codes",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("scope", sa.String(length=200), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("challenge", sa.String(length=128), nullable=False),
        sa.Column("auth_time", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.Column("used", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_passport_codes")),
    )
    with op.batch_alter_table("passport_codes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_passport_codes_username"), ["username"], unique=False)

    op.create_table(
        "passport_counters",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_passport_counters")),
    )
    op.create_table(
        "passport_failures",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_passport_failures")),
    )
    with op.batch_alter_table("passport_failures", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_passport_failures_last_at"), ["last_at"], unique=False)

    op.create_table(
        "passport_groups",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("gid", sa.Integer(), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_passport_groups")),
        sa.UniqueConstraint("gid", name=op.f("uq_passport_groups_gid")),
    )
    op.create_table(
        "passport_hub_tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.Column("work", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("requested_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passport_hub_tasks")),
    )
    op.create_table(
        "passport_keys",
        sa.Column("kid", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("signs_from", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_passport_keys")),
    )
    op.create_table(
        "passport_links",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=8), nullable=False),
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_passport_links")),
    )
    with op.batch_alter_table("passport_links", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_passport_links_username"), ["username"], unique=False)

    op.create_table(
        "passport_people",
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("gid", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("display_name", sa.String(length=200), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("language", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("sessions_valid_after", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("username", name=op.f("pk_passport_people")),
        sa.UniqueConstraint("uid", name=op.f("uq_passport_people_uid")),
    )
    op.create_table(
        "passport_tokens",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("scope", sa.String(length=200), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("auth_time", sa.Float(53), nullable=False),
        sa.Column("issued_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_passport_tokens")),
    )
    with op.batch_alter_table("passport_tokens", schema=None) as batch_op:
        batch_op.create_index("ix_passport_tokens_grant_id", ["grant_id"], unique=False)
        batch_op.create_index("ix_passport_tokens_session_id", ["session_id"], unique=False)
        batch_op.create_index("ix_passport_tokens_username", ["username"], unique=False)

    op.create_table(
        "passport_identities",
        sa.Column("issuer", sa.String(length=400), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["username"], ["passport_people.username"], name=op.f("fk_passport_identities_username_passport_people")
        ),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_passport_identities")),
    )
    with op.batch_alter_table("passport_identities", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_passport_identities_username"), ["username"], unique=False)

    op.create_table(
        "passport_members",
        sa.Column("group_name", sa.String(length=32), nullable=False),
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_name"], ["passport_groups.name"], name=op.f("fk_passport_members_group_name_passport_groups")
        ),
        sa.ForeignKeyConstraint(
            ["username"], ["passport_people.username"], name=op.f("fk_passport_members_username_passport_people")
        ),
        sa.PrimaryKeyConstraint("group_name", "username", name=op.f("pk_passport_members")),
    )
    with op.batch_alter_table("passport_members", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_passport_members_username"), ["username"], unique=False)

    op.create_table(
        "passport_passwords",
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.Column("hash", sa.String(length=255), nullable=False),
        sa.Column("changed_at", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(
            ["username"], ["passport_people.username"], name=op.f("fk_passport_passwords_username_passport_people")
        ),
        sa.PrimaryKeyConstraint("username", name=op.f("pk_passport_passwords")),
    )
    op.create_table(
        "passport_sessions",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("auth_time", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.Column("agent", sa.String(length=200), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["username"], ["passport_people.username"], name=op.f("fk_passport_sessions_username_passport_people")
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_passport_sessions")),
        sa.UniqueConstraint("public_id", name=op.f("uq_passport_sessions_public_id")),
    )
    with op.batch_alter_table("passport_sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_passport_sessions_username"), ["username"], unique=False)


def downgrade() -> None:
    """Refuse: an older version starts from its own backup."""
    raise NotImplementedError
