"""A provider's messages kept in files with their times, read from files of others, and played again."""
