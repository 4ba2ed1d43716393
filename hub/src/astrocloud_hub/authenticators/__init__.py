"""Signing in at the hub: with the platform's own passport, CSTCloud's, or any OpenID Connect provider."""
