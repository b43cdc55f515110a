"""tradebal: one websocket connection with the whole market's trades in, N workers out."""

__version__ = "0.1.0"
