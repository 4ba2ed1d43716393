"""What My files remembers: where things in the trash came from, public links, and who was given shares."""

import sqlalchemy as sa
from alembic import op

revision = "vospace_0003"
down_revision = "vospace_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "vospace_trash",
        sa.Column("place", sa.LargeBinary(8192), primary_key=True),
        sa.Column("origin", sa.LargeBinary(8192), nullable=False),
        sa.Column("deleted_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "vospace_links",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False, index=True),
        sa.Column("path", sa.LargeBinary(8192), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "vospace_shares",
        sa.Column("path", sa.LargeBinary(8192), primary_key=True),
        sa.Column("kind", sa.String(1), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("vospace_shares")
    op.drop_table("vospace_links")
    op.drop_table("vospace_trash")
