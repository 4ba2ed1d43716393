"""Uploads that can be resumed."""

import sqlalchemy as sa
from alembic import op

revision = "vospace_0002"
down_revision = "vospace_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "vospace_uploads",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("path", sa.LargeBinary(8192), nullable=False),
        sa.Column("hidden", sa.LargeBinary(255), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("new_files", sa.Integer(), nullable=False),
        sa.Column("replaces", sa.Boolean(), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("vospace_uploads")
