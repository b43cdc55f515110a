"""How processes publish metrics, and how these are read, served and drawn."""
