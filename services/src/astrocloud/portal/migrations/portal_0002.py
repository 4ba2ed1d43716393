"""Make the table of trial sessions."""

import sqlalchemy as sa
from alembic import op

revision = "portal_0002"
down_revision = "portal_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make it."""
    op.create_table(
        "portal_trials",
        sa.Column("turn", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("ended_at", sa.BigInteger, nullable=True),
        sa.Column("failed", sa.String(32), nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("seconds", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("turn", name="pk_portal_trials"),
    )


def downgrade() -> None:
    """Unmake it."""
    op.drop_table("portal_trials")
