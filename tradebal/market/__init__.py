"""A provider to test against: a simulated market or a recording, served as the real providers serve theirs."""
