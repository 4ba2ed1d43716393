"""What JupyterHub loads: authenticators, spawners and the hub's pages."""
