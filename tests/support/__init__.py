"""What the tests share: a running platform, and a person who uses it over HTTP."""
