"""Which process does a job and that it lives, so that another one can take the job up when it does not."""

import sqlalchemy as sa
from alembic import op

revision = "uws_0002"
down_revision = "uws_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("uws_jobs", sa.Column("worker", sa.String(64), nullable=True))
    op.add_column("uws_jobs", sa.Column("beat", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("uws_jobs", sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("uws_jobs", sa.Column("mark", sa.Text(), nullable=True))
    op.add_column("uws_jobs", sa.Column("progress", sa.Text(), nullable=True))
    op.create_index("ix_uws_jobs_list_phase", "uws_jobs", ["list", "phase"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_uws_jobs_list_phase", "uws_jobs")
    with op.batch_alter_table("uws_jobs") as table:
        for name in ("progress", "mark", "attempts", "beat", "worker"):
            table.drop_column(name)
