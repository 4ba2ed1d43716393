"""Which thing a public link or a row of the trash is about, so that another one in its place is not taken for it."""

import sqlalchemy as sa
from alembic import op

revision = "vospace_0004"
down_revision = "vospace_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("vospace_trash", sa.Column("inode", sa.String(20), nullable=True))
    op.add_column("vospace_links", sa.Column("inode", sa.String(20), nullable=True))


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("vospace_links") as table:
        table.drop_column("inode")
    with op.batch_alter_table("vospace_trash") as table:
        table.drop_column("inode")
