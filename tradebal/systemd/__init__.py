"""How a process talks to the service manager and its journal; elsewhere, to a terminal."""
