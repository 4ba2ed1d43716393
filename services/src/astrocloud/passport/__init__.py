"""The directory of people, and the platform's own OpenID Connect provider."""
