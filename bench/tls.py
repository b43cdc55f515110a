"""What TLS costs: trades per CPU-second of the balancer by ws, by wss with OpenSSL, and by wss with the kernel.

python bench/tls.py [--rounds N] [--blocks N]
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import block
from contenders import OURS, WSS_KERNEL, WSS_USER
from harness import Contender, compile_programs, measure, run_as_command

from tradebal.tls import kernel

PER_FRAME = (128, 15)
SHARDS = 8
_BLOCKS = 100


@dataclass(frozen=True)
class Tls:
    """One size of frames, which is that of the records."""

    per_frame: int
    record: int
    """Bytes of data in a record, on average."""
    rates: Mapping[Contender, float]
    """Trades per CPU-second: medians of the rounds."""
    bytes: float
    """On the way, without TLS, of a trade."""
    cipher_speed: float | None
    """Bytes per second that OpenSSL's AES-256-GCM does in pieces of `record`; None without the program openssl."""

    def cipher_share(self, contender: Contender) -> float | None:
        """Share of the contender's CPU time that is AES-256-GCM, by its speed alone."""
        return self.rates[contender] * self.bytes / self.cipher_speed if self.cipher_speed else None


def contenders() -> list[Contender]:
    """Those that this machine can run."""
    return [OURS, WSS_USER] if kernel.why_not() else [OURS, WSS_USER, WSS_KERNEL]


def run(directory: Path, rounds: int, blocks: int = _BLOCKS) -> list[Tls]:
    """Measure all, one after the other in each round."""
    made = block.trades()
    texts = [text for _, text in made]
    expected = block.write_expected(directory / "tls.expected", made, SHARDS)
    found = []
    for per_frame in PER_FRAME:
        frames = block.write_block(directory / f"tls-{per_frame}.block", texts, per_frame)
        rates: dict[Contender, list[float]] = {contender: [] for contender in contenders()}
        for number in range(rounds):
            for contender, values in rates.items():
                place = directory / f"tls-{per_frame}-{number}-{contender.name}"
                values.append(measure(contender, frames, expected, SHARDS, blocks, place).rate)
                print(f"tls  round {number + 1}/{rounds}  {per_frame} a frame  {contender.label}", file=sys.stderr)
        medians = {contender: statistics.median(values) for contender, values in rates.items()}
        record = frames.bytes // frames.frames
        found.append(Tls(per_frame, record, medians, frames.bytes / frames.trades, cipher_speed(record)))
    return found


def cipher_speed(size: int) -> float | None:
    """Measure AES-256-GCM, what OpenSSL's two sides choose, in pieces of `size` bytes."""
    program = shutil.which("openssl")
    if program is None:
        return None
    command = [program, "speed", "-mr", "-seconds", "1", "-bytes", str(size), "-evp", "aes-256-gcm"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    speed = re.search(r"^\+F:\d+:[^:]+:([\d.]+)$", said, re.MULTILINE)
    return float(speed[1]) if speed else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=_BLOCKS, help=f"of {block.TRADES} trades each")
    arguments = parser.parse_args()
    compile_programs("load")
    with tempfile.TemporaryDirectory() as directory:
        for found in run(Path(directory), arguments.rounds, arguments.blocks):
            for contender, rate in found.rates.items():
                share = found.cipher_share(contender) if contender is not OURS else None
                said = f", AES {share:.0%} of it" if share is not None else ""
                print(f"{found.per_frame:>3} a frame  {contender.label:<30} {rate / 1e6:6.2f} M per CPU-second{said}")
    return 0


if __name__ == "__main__":
    run_as_command(main)
