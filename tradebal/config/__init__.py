"""The configuration: what can be set, its defaults, and the strict way from a TOML file to it and back."""

from tradebal.config.errors import ConfigError
from tradebal.config.keys import KeyInfo, declared_keys
from tradebal.config.read import SYSTEM_FILE, load, load_config, override, parse
from tradebal.config.secret import Secret, feed_key
from tradebal.config.tables import (
    PROFILES,
    Config,
    CustomFeed,
    Feed,
    Log,
    LoginStep,
    Metrics,
    Overflow,
    Shards,
    Tls,
    Worker,
)
from tradebal.config.write import dump

__all__ = [
    "PROFILES",
    "SYSTEM_FILE",
    "Config",
    "ConfigError",
    "CustomFeed",
    "Feed",
    "KeyInfo",
    "Log",
    "LoginStep",
    "Metrics",
    "Overflow",
    "Secret",
    "Shards",
    "Tls",
    "Worker",
    "declared_keys",
    "dump",
    "feed_key",
    "load",
    "load_config",
    "override",
    "parse",
]
