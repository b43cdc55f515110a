"""Finds out what on this system would stop a start, or hold it back later, and which command would put it right."""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import pwd
import resource
import shlex
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tradebal.balancer import fifos
from tradebal.config import Config, feed_key
from tradebal.config.kinds import write_size
from tradebal.errors import UserError
from tradebal.market.symbols import universe
from tradebal.router.symbols import shard_of
from tradebal.run.places import for_this_user, nearest_existing
from tradebal.stream import pipes
from tradebal.tls import kernel
from tradebal.upstream.encryption import Encryption

_PAGE = resource.getpagesize()
_TRIED_PIPES = 16
"""Pipes that are really enlarged: enough to meet a user's limit, and bounded in the kernel memory they take."""

_GOOD_BUFFER = 16 << 20
"""Receive buffer in bytes that holds 150 ms of a market open at 100 MB/s."""

_DESCRIPTORS_PER_SHARD = 4
"""The FIFO, its overflow's memory file, and the two files of marks."""
_DESCRIPTORS_BESIDE = 64

_CAP_SYS_RESOURCE = 24


class Level(enum.Enum):
    """How bad a finding is. Only FAIL stops a start."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """What one check found; `fix` is the command or the change that puts it right."""

    level: Level
    subject: str
    text: str
    fix: str = ""


def findings(config: Config, env: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Run all checks, one after the other. They change nothing and connect to nothing outside this machine."""
    yield from check_feed(config, env)
    shards, overflow = config.shards.directory, config.overflow.directory
    run = for_this_user(config, env)
    own = run.shards.directory if run.shards.directory != shards else None
    yield from check_directory("shards.directory", shards, fifos=True, own=own)
    yield from check_lock(run.shards.directory)
    own = run.overflow.directory if run.overflow.directory != overflow else None
    yield from check_directory("overflow.directory", overflow, own=own)
    yield from check_overflow_memory(config)
    yield from check_spread(config)
    yield from check_pipes(config.shards.count, config.shards.pipe_size)
    yield from check_descriptors(config.shards.count)
    yield from check_receive_buffers()
    yield from check_router()
    yield from check_handler(config)
    yield from check_address(config)


def check_feed(config: Config, env: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Whether profile, URL and certificates can be used, and the key is there; the key itself is never shown."""
    from tradebal.upstream.credentials import Credentials, placeholders
    from tradebal.upstream.profiles import resolve
    from tradebal.upstream.target import target

    try:
        profile = resolve(config.feed)
        texts = (profile.url, *config.feed.headers.values(), *(step.send for step in profile.steps))
        Credentials(feed_key(env), texts, profile.subscribe, profile.name)
    except UserError as error:
        yield Finding(Level.FAIL, "feed key", error.message, error.hint)
        return
    if placeholders(*texts) & {"key", "secret"}:
        place = "the credential feed-key or TRADEBAL_FEED_KEY"
        yield Finding(Level.OK, "feed key", f"there, from {place} (the provider alone knows whether it is right)")
    else:
        yield Finding(Level.OK, "feed key", f"none needed: profile={profile.name}")
    try:
        # The URL as configured, in which {key} isn't filled in, so that nothing shown can hold the key.
        found = target(profile.url, {}, config.feed)
    except UserError as error:
        yield Finding(Level.FAIL, "feed", error.message, error.hint)
        return
    topics = ",".join(profile.subscribe)
    yield Finding(Level.OK, "feed", f"profile={profile.name} url={found.shown} subscribe={topics}")
    yield check_tls(found.tls)


def check_directory(key: str, directory: Path, *, fifos: bool = False, own: Path | None = None) -> Iterator[Finding]:
    """Whether this user can use the directory, or make it where it is missing; tried, and left as it was.

    `own`: the directory that `tradebal run` would take instead; then only a warning is due.
    """
    existing = nearest_existing(directory)
    if not existing.is_dir():
        yield Finding(
            Level.FAIL, key, f"{existing} is in the way: not a directory", f"set {key} to another path, or move it away"
        )
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".tradebal-check-", dir=existing) as trial:
            if fifos:
                os.mkfifo(Path(trial) / "fifo")
    except OSError as error:
        text = f"{_user()} can't write to {existing}: {error.strerror}"
        make = f"{_sudo()}install -d -o {shlex.quote(_user())} -m 0750 {shlex.quote(str(directory))}"
        if own is not None:
            text += f"; `tradebal run` would take {own}, the services get theirs from systemd"
            yield Finding(Level.WARN, key, text, f"{make}   (or set {key})")
        else:
            yield Finding(Level.FAIL, key, text, f"{make}   (or set {key} to another)")
        return
    if existing == directory:
        yield Finding(Level.OK, key, f"{directory} can be written")
    else:
        yield Finding(Level.OK, key, f"{directory} doesn't exist yet, and can be made in {existing}")


def check_lock(directory: Path) -> Iterator[Finding]:
    """Whether a balancer holds the directory (it keeps balancer.lock locked by flock(2))."""
    path = directory / fifos.LOCK_NAME
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield Finding(Level.OK, "other balancer", f"none on {directory}")
        return
    try:
        # Shared, so that a balancer which starts at this very moment is the only one that could lose.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        yield Finding(
            Level.FAIL,
            "other balancer",
            f"pid {pid} runs on {directory}; a second would refuse to start",
            f"kill {pid}   (systemctl stop tradebal.target, if systemd started it; or set shards.directory)",
        )
    else:
        yield Finding(Level.OK, "other balancer", f"none on {directory}")
    finally:
        os.close(fd)


def check_overflow_memory(config: Config) -> Iterator[Finding]:
    """Whether this machine has the memory that all shards' overflow together may take."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Balancer, workers and everything else on the machine need memory as well.
    bearable = machine // 2
    wanted = config.overflow.limit * config.shards.count
    if wanted > bearable:
        yield Finding(
            Level.WARN,
            "overflow memory",
            f"{write_size(wanted)} may wait in memory (overflow.limit × shards.count); this machine has "
            f"{_about(machine)}",
            f"set overflow.limit to at most {_about(bearable // config.shards.count)}",
        )
    else:
        yield Finding(Level.OK, "overflow memory", f"{write_size(wanted)} allowed, of {_about(machine)}")


def check_pipes(count: int, wanted: int) -> Iterator[Finding]:
    """Whether `count` pipes of `wanted` bytes are to be had: by trial for this user, by the limits for any other."""
    size = _ring_size(wanted)
    largest = _sysctl("fs/pipe-max-size")
    soft = _sysctl("fs/pipe-user-pages-soft")
    pages = size // _PAGE * count
    granted = _try_pipes(min(count, _TRIED_PIPES), size)
    what = f"{count} FIFOs of {write_size(wanted)}"
    fixes = []
    if largest is not None and largest < size:
        fixes.append(f"fs.pipe-max-size={size}")
    if soft and soft < pages:
        fixes.append(f"fs.pipe-user-pages-soft={pages + soft}")
    fix = f"{_sudo()}sysctl -w {' '.join(fixes)}" if fixes else ""
    limits = f"fs.pipe-max-size={largest} fs.pipe-user-pages-soft={soft}"
    if granted < size:
        text = f"{what}: this user gets {write_size(granted)} each ({limits}); a slow worker overflows sooner"
        yield Finding(Level.WARN, "pipes", text, fix)
    elif fixes and _has_capability(_CAP_SYS_RESOURCE):
        text = f"{what}: granted to this privileged user, but the limits are lower for others ({limits})"
        yield Finding(Level.WARN, "pipes", text, fix)
    elif fixes:
        text = f"{what}: granted now, but together they are above this user's limit ({limits})"
        yield Finding(Level.WARN, "pipes", text, fix)
    else:
        yield Finding(Level.OK, "pipes", f"{what}: granted")


def check_spread(config: Config) -> Iterator[Finding]:
    """Whether the hash gives every shard about its fair share of a market like the simulated one."""
    count = config.shards.count
    busiest = busiest_share(count, config.shards.pin)
    text = f"the busiest of {count} gets {busiest:.1f} times its fair share of the market"
    if count % 2 or count < 2:
        yield Finding(Level.OK, "spread over shards", text)
        return
    near = {odd: busiest_share(odd, {}) for odd in (count - 1, count + 1)}
    better = " or ".join(f"{odd} ({share:.1f} times)" for odd, share in near.items())
    yield Finding(
        Level.WARN, "spread over shards", f"{text}: even counts suit the hash badly", f"set shards.count to {better}"
    )


def busiest_share(count: int, pins: Mapping[str, int]) -> float:
    """Return the busiest shard's share of the simulated market's trades, as a multiple of 1 / `count`."""
    shares = [0.0] * count
    by_hand = {symbol.encode(): shard for symbol, shard in pins.items()}
    for symbol in universe():
        shares[shard_of(symbol.ticker.encode(), count, by_hand)] += symbol.share
    return max(shares) * count


def check_descriptors(count: int) -> Iterator[Finding]:
    """Whether the limit on open files lets the balancer hold all FIFOs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count * _DESCRIPTORS_PER_SHARD + _DESCRIPTORS_BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        text = f"limit {soft}, and {count} shards may need {needed}"
        yield Finding(Level.FAIL, "open files", text, f"ulimit -n {needed}   (LimitNOFILE={needed} in a unit)")
    else:
        yield Finding(Level.OK, "open files", f"limit {soft}, needed {needed}")


def check_receive_buffers() -> Iterator[Finding]:
    """Whether the kernel may keep enough received data while the balancer is off the processor for a moment."""
    fixes = []
    largest = _sysctl("net/core/rmem_max")
    if largest is not None and largest < _GOOD_BUFFER:
        fixes.append(f"net.core.rmem_max={_GOOD_BUFFER}")
    try:
        tcp = Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()
    except OSError:
        tcp = []
    if len(tcp) == 3 and int(tcp[2]) < _GOOD_BUFFER:
        fixes.append(f"net.ipv4.tcp_rmem='{tcp[0]} {tcp[1]} {_GOOD_BUFFER}'")
    limits = f"net.core.rmem_max={largest if largest is not None else 'unreadable'} tcp_rmem={','.join(tcp)}"
    if fixes:
        text = f"{limits}; {write_size(_GOOD_BUFFER)} ride out a burst better"
        yield Finding(Level.WARN, "socket buffers", text, f"{_sudo()}sysctl -w {' '.join(fixes)}")
    else:
        yield Finding(Level.OK, "socket buffers", limits)


def check_tls(encryption: Encryption | None) -> Finding:
    """Who would decrypt, and whether that is allowed."""
    if encryption is None:
        return Finding(Level.OK, "TLS", "none: feed.url is ws://")
    try:
        encryption.require()
    except UserError as error:
        return Finding(Level.FAIL, "TLS", error.message, error.hint)
    if why := encryption.why_user():
        fix = "" if encryption.mode == "user" else kernel.HOW_TO_GET
        return Finding(Level.OK, "TLS", f"OpenSSL in the balancer decrypts: {why}", fix)
    return Finding(Level.OK, "TLS", "the kernel decrypts, if it has the cipher that the provider chooses")


def check_router() -> Iterator[Finding]:
    """Whether the C core is in use."""
    from tradebal.router import HOW_TO_GET_NATIVE, make_router

    try:
        kind = make_router(1, None).kind
    except UserError as error:
        yield Finding(Level.FAIL, "router", error.message, error.hint)
        return
    if kind == "native":
        yield Finding(Level.OK, "router", "kind=native")
    else:
        text = f"kind={kind}: works, but is far too slow for the market's open"
        yield Finding(Level.WARN, "router", text, HOW_TO_GET_NATIVE)


def check_handler(config: Config) -> Iterator[Finding]:
    """Whether the workers' handler can be imported, which runs its module, and takes its options; none is made."""
    from tradebal.worker.loading import find_handler

    try:
        find_handler(config.worker.handler, config.worker.options)
    except UserError as error:
        yield Finding(Level.FAIL, "handler", error.message, error.hint)
    else:
        yield Finding(Level.OK, "handler", f"{config.worker.handler} can be imported")


def check_address(config: Config) -> Iterator[Finding]:
    """Whether the exporter could listen on its address."""
    address = config.metrics.address
    key = "metrics.address"
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            config.metrics.host, config.metrics.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(where)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"{address} is taken: by an exporter that runs already, or by another program"
            yield Finding(Level.WARN, key, text, f"ss -ltnp 'sport = {config.metrics.port}'   (or set {key})")
        else:
            yield Finding(Level.FAIL, key, f"can't listen on {address}: {error.strerror}", f"set {key} to another")
    else:
        yield Finding(Level.OK, key, f"{address} is free")


def _try_pipes(count: int, size: int) -> int:
    """Return the size in bytes that each of `count` pipes can have at the same time, at most `size`."""
    descriptors: list[int] = []
    try:
        for _ in range(count):
            descriptors += os.pipe()
        return min(size, pipes.enlarge(descriptors[::2], size))
    except OSError:  # too many open files, which is another check's finding
        return size
    finally:
        for fd in descriptors:
            os.close(fd)


def _ring_size(wanted: int) -> int:
    """Return the size that the kernel makes of it: pages, by a power of two (pipe(7))."""
    return max(_PAGE, 1 << (wanted - 1).bit_length())


def _sysctl(name: str) -> int | None:
    try:
        return int((Path("/proc/sys") / name).read_text())
    except (OSError, ValueError):
        return None


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _sudo() -> str:
    return "" if os.geteuid() == 0 else "sudo "


def _about(size: int) -> str:
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
