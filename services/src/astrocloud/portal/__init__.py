"""The front page of the platform, and what people do from there: servers, tutorials, announcements, health."""
