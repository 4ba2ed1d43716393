"""Jobs of the Universal Worker Service."""

import sqlalchemy as sa
from alembic import op

revision = "uws_0001"
down_revision = None
branch_labels = ("uws",)
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "uws_jobs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("list", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64)),
        sa.Column("run_id", sa.String(length=64)),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("destruction_at", sa.Float(53), nullable=False),
        sa.Column("started_at", sa.Float(53)),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("duration_s", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("info", sa.Text()),
        sa.Column("results", sa.Text(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uws_jobs")),
    )
    op.create_index("ix_uws_jobs_list_owner", "uws_jobs", ["list", "owner", "created_at"])
    op.create_index("ix_uws_jobs_destruction", "uws_jobs", ["destruction_at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("uws_jobs")
