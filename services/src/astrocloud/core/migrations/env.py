"""How Alembic reaches the database: by the connection that `upgrade_database` holds."""

from alembic import context

from astrocloud.core.database import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
