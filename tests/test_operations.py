"""What docs/operations.md shows is what happens: its commands run in order, in a booted Debian."""

import re
import shutil
import time

import pytest

from tests.bundle import SOURCE
from tests.packages import Debian, next_version, why_not_booted

pytestmark = [pytest.mark.skipif(bool(why_not_booted()), reason=why_not_booted()), pytest.mark.timeout(300)]

PAGE = (SOURCE / "docs/operations.md").read_text()

# Whose answer to dpkg's question about the configuration is: mine stays.
ENVIRONMENT = "HOME=/root TERM=dumb DPKG_FORCE=confold SYSTEMD_EDITOR='cp /root/typed'"


def steps():
    """Yield a command and the output that is shown, or a path and the file's text; and the block that follows."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
    for (kind, text), (_, following) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "console":
            for shown in re.split(r"^# ", text, flags=re.MULTILINE)[1:]:
                command, _, output = shown.partition("\n")
                yield command, output, following
        elif kind != "ini":
            yield text.splitlines()[0].removeprefix("# "), text, following


def run(machine, command, following, check):
    """Run the command as if typed: with a key, yes, and what goes into the editor where it asks."""
    command = re.sub(r'systemd-ask-password ".*?"', "echo a-key", command)
    if command.startswith("systemctl edit"):
        machine.path("/root/typed").write_text(following)
        command = f"script -qec '{command}' /dev/null"  # it wants a terminal
    if command.startswith(("apt remove", "apt purge")):
        command = f"echo y | {command}"
    return machine.run("sh", "-c", f"cd /root; export {ENVIRONMENT}; {command} 2>&1", check=check)


def masked(text):
    """Return the lines without what differs from run to run: figures and their units, times, symbols, bars, widths."""
    text = re.sub(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b", "Day", text)
    text = re.sub(r"\d[\d.,:]*( ?([KM]i)?B\b| m?s\b)?", "0", text)
    text = re.sub(r"\('\w+'", "('SYMBOL'", text)
    return [" ".join(line.split()) for line in re.sub("[▁-▏]", " ", text).splitlines()]


def missing(shown, said):
    """Return the lines that are shown and weren't said, in this order."""
    rest = iter(masked(said))
    return [line for line in masked(shown) if line not in ("", "…") and line not in rest]


def test_the_page_s_commands_say_what_it_shows(packages, tmp_path):
    with Debian(tmp_path) as machine:
        first, second = sorted(set(re.findall(r"tradebal_\S+\.deb", PAGE)))
        shutil.copy(packages["deb"], machine.path(f"/root/{first}"))
        shutil.copy(next_version(packages["deb"], tmp_path), machine.path(f"/root/{second}"))
        for what, text, following in steps():
            if what.startswith("/"):
                machine.path(what).parent.mkdir(exist_ok=True)
                machine.path(what).write_text(text)
                continue
            deadline = time.monotonic() + 20
            while left := missing(text, said := run(machine, what, following, check=not text)):
                assert time.monotonic() < deadline, f"{what}\nsaid:\n{said}\nbut not:\n" + "\n".join(left)
