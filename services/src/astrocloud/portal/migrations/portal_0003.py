"""Make the tables of events."""

import sqlalchemy as sa
from alembic import op

revision = "portal_0003"
down_revision = "portal_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "portal_events",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(253), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_portal_events"),
    )
    op.create_index("ix_portal_events_ended_at", "portal_events", ["ended_at"])
    op.create_table(
        "portal_looks",
        sa.Column("turn", sa.BigInteger, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("turn", name="pk_portal_looks"),
    )


def downgrade() -> None:
    """Unmake them."""
    op.drop_table("portal_looks")
    op.drop_table("portal_events")
