"""Counts of what homes and project folders hold."""

import sqlalchemy as sa
from alembic import op

revision = "vospace_0001"
down_revision = None
branch_labels = ("vospace",)
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "vospace_usage",
        sa.Column("top", sa.LargeBinary(512), primary_key=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", sa.Float(), nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("vospace_usage")
