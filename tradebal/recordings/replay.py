"""Turns a recording into the playback that a provider plays: which frames, and when each is due."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from urllib.parse import urlsplit

from tradebal.config import Feed
from tradebal.errors import UserError
from tradebal.market.dialogue import DIALOGUES, AlpacaDialogue, Dialogue, MassiveDialogue
from tradebal.market.playback import Block, Chunk, Prepared
from tradebal.recordings.format import DEFAULT_MAX_PAYLOAD
from tradebal.recordings.importers import Message, Source, new_york, open_source
from tradebal.recordings.sift import Sift
from tradebal.router.frames import server_frame
from tradebal.router.interface import Rule
from tradebal.upstream.profiles import PROFILES, resolve

log = logging.getLogger(__name__)

WINDOW = 0.001
"""Seconds of playing time whose messages fall due together: a clock that sleeps is no finer."""

BLOCK_SIZE = 64 << 10
"""Bytes at which a chunk ends even if more is due at the same moment."""

BUNDLE = 512
"""Messages at which it ends; where trades are bundled into frames, the next lower multiple of a frame's trades."""

MASSIVE_MARKETS = ("stocks", "options", "crypto", "forex", "indices", "futures")

_SECOND_NS = 1_000_000_000
_HOUR_NS = 3600 * _SECOND_NS
_DAY_NS = 24 * _HOUR_NS


@dataclass(frozen=True)
class Between:
    """A part of the first day that has it, by New York's clocks; `until` isn't in it. None: the day's start or end."""

    since: time | None = None
    until: time | None = None


@dataclass
class RecordingPlayback:
    """A recording as a `Playback`: opened anew for each client that it is played to.

    `speed` is a factor on the recording's own pace; None sends as fast as the client reads. Where the recording holds
    single trades instead of messages, those that fall due together share frames of up to `trades_per_frame`.
    """

    path: Path
    rule: Rule
    speed: float | None = 1.0
    trades_per_frame: int = 128
    day: date | None = None
    between: Between = Between()
    max_message: int = DEFAULT_MAX_PAYLOAD
    """Bytes; a longer message ends the playback."""
    damage: UserError | None = None
    """What ended the playback early, once it has been played."""

    @property
    def paced(self) -> bool:
        """See `Playback.paced`."""
        return self.speed is not None

    def chunks(self) -> Iterator[Chunk]:
        """See `Playback.chunks`. What can't be read ends the playback, and is logged and kept in `damage`."""
        try:
            source = open_source(self.path, self.day, self.max_message)
        except UserError as error:
            self._give_up(error)
            return
        with source:
            yield from self._chunks(source)

    def _messages(self, source: Source) -> Iterator[Message]:
        try:
            yield from source.messages()
        except UserError as error:
            self._give_up(error)

    def _give_up(self, error: UserError) -> None:
        log.error("playback ended early: %s", error.message)
        self.damage = error

    def _chunks(self, source: Source) -> Iterator[Chunk]:
        sift = Sift(self.rule)
        trades = frames = 0
        most, most_bytes = BUNDLE, BLOCK_SIZE
        if source.bundled:
            most, most_bytes = max(1, BUNDLE // self.trades_per_frame) * self.trades_per_frame, sys.maxsize
        selected = _selected(self._messages(source), self.between)
        for at, messages in _due_together(selected, self.speed, most, most_bytes):
            if source.bundled:
                block = _bundled(messages, self.trades_per_frame)
            else:
                data = b"".join(server_frame(message.data, message.opcode) for message in messages)
                before = sift.trades
                sift.feed(data)
                block = Block(data, len(messages), sift.trades - before)
            trades += block.trades
            frames += block.frames
            yield Prepared(at, block)
        log.info(
            "playback ended: file=%s trades=%d frames=%d left_out=%d skipped=%d suspicious=%d",
            self.path,
            trades,
            frames,
            source.left_out,
            source.skipped,
            source.suspicious,
        )


def dialogue_of(profile: str, url: str, rule: Rule) -> Callable[[], Dialogue]:
    """Return the provider's part for a recording of `profile` from `url`; one without a part plays at once."""
    path = urlsplit(url).path
    if profile == "massive":
        segments = path.strip("/").split("/")
        place = next((place for place, segment in enumerate(segments) if segment in MASSIVE_MARKETS), None)
        if place is None:
            return lambda: MassiveDialogue("stocks", rule.marker_values[0].decode())
        served = "/" + "/".join(segments[place:])
        return lambda: MassiveDialogue(segments[place], rule.marker_values[0].decode(), path=served)
    if profile == "alpaca" and path.strip("/"):
        return lambda: AlpacaDialogue(path)
    return DIALOGUES.get(profile, Dialogue)


def rule_of(source: Source) -> Rule:
    """Return what counts as a trade in the recording: what it says itself, else its profile; UserError if neither."""
    if source.rule is not None:
        return source.rule
    if source.profile not in PROFILES:
        raise UserError(
            f"{source.path}: neither it nor its profile {source.profile!r} says what its trades are", code=2
        )
    return resolve(Feed(profile=source.profile, url=source.url)).rule


def _selected(messages: Iterator[Message], between: Between) -> Iterator[Message]:
    if between.since is None and between.until is None:
        yield from messages
        return
    since = _nanoseconds(between.since) if between.since else 0
    until = _nanoseconds(between.until) if between.until else _DAY_NS
    zone = new_york()
    offsets: dict[int, int] = {}
    playing: int | None = None
    for message in messages:
        hour = message.time_ns // _HOUR_NS
        if hour not in offsets:
            offset = datetime.fromtimestamp(hour * 3600, UTC).astimezone(zone).utcoffset()
            offsets[hour] = int(offset.total_seconds()) * _SECOND_NS if offset else 0
        day, clock = divmod(message.time_ns + offsets[hour], _DAY_NS)
        if playing is None and since <= clock < until:
            playing = day
        if playing is not None:
            if clock >= until or day != playing:
                return
            yield message


def _nanoseconds(clock: time) -> int:
    return (clock.hour * 3600 + clock.minute * 60 + clock.second) * _SECOND_NS


def _due_together(
    messages: Iterator[Message], speed: float | None, most: int, most_bytes: int
) -> Iterator[tuple[float, list[Message]]]:
    """Group messages, at most so many and so many bytes, by the second of playing time at which they fall due.

    The first message starts the clock. One that is dated before its forerunner falls due with it: order counts.
    """
    group: list[Message] = []
    size = 0
    start: int | None = None
    window = 0
    for message in messages:
        if start is None:
            start = message.time_ns
        due = 0 if speed is None else max(window, int((message.time_ns - start) / (speed * WINDOW * _SECOND_NS)))
        if group and (due != window or len(group) == most or size >= most_bytes):
            yield window * WINDOW, group
            group, size = [], 0
        window = due
        group.append(message)
        size += len(message.data)
    if group:
        yield window * WINDOW, group


def _bundled(messages: list[Message], trades_per_frame: int) -> Block:
    frames = [
        server_frame(b"[" + b",".join(message.data for message in messages[at : at + trades_per_frame]) + b"]")
        for at in range(0, len(messages), trades_per_frame)
    ]
    return Block(b"".join(frames), len(frames), len(messages))
