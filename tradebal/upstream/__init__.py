"""The door to the provider: profiles, login, the connection, and when to try again."""
