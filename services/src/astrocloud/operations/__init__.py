"""What an operator does with a platform besides running it: tokens, status, backups."""
