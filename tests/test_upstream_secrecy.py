"""The key appears in no output, whatever goes wrong and however a server throws it back at us."""

import json
import logging
from urllib.parse import quote

import pytest

from tests import frames
from tests.upstream import owner, raw_server, read_frame, read_request, status, upgrade
from tradebal.config import CustomFeed, LoginStep
from tradebal.upstream.link import Phase

PLAIN = "PKTEST-c0ffee/42"
AWKWARD = 'Sé"cret\\key/42'


def say(client, text):
    client.sendall(frames.text(text.encode()))


def greeting(client):
    upgrade(client)
    say(client, status("connected", "hello"))
    return json.loads(read_frame(client)[1])["params"]


def escaped(key):
    """Return the key as JSON that escapes every character."""
    return "".join(f"\\u{ord(c):04x}" for c in key)


def http_answer(line):
    def script(client):
        read_request(client)
        client.sendall(line.replace("KEY", quote(PLAIN)).replace("RAW", AWKWARD).encode())

    return script


def refuse(client):
    key = greeting(client)
    say(client, status("auth_failed", f"unknown key {key}"))
    read_frame(client)


def refuse_escaped(client):
    key = greeting(client)
    say(client, f'[{{"ev":"status","status":"error","message":"authentication failed: {escaped(key)}"}}]')
    read_frame(client)


def close_with_key(client):
    key = greeting(client)
    client.sendall(frames.close(1008, f"bad key {key}".encode()))
    read_frame(client)


def warn_with_key(client):
    key = greeting(client)
    say(client, status("force_disconnect", f"{key} is used elsewhere"))
    client.sendall(frames.close(1008))


def chatter_with_key(client):
    key = greeting(client)
    say(client, status("hm", f"{key}?"))
    say(client, f"plain text with {key}")
    client.sendall(frames.frame(frames.BINARY, key.encode() + b"\xff"))
    client.sendall(frames.close(1000))


def garbage_after_key(client):
    greeting(client)
    client.sendall(b"\xff" * 100)


def end_after_key(client):
    greeting(client)


SCRIPTS = {
    "refused": refuse,
    "refused, escaped": refuse_escaped,
    "close reason": close_with_key,
    "warning": warn_with_key,
    "chatter": chatter_with_key,
    "garbage": garbage_after_key,
    "end": end_after_key,
    "status line": http_answer("HTTP/1.1 401 no KEY RAW\r\n\r\n"),
    "bad status line": http_answer("KEY RAW\r\n\r\n"),
    "fields": http_answer("HTTP/1.1 403 no\r\nX-Key: KEY RAW\r\n\r\n"),
    "bad field": http_answer("HTTP/1.1 101 ok\r\nKEY RAW\r\n\r\n"),
    "body": http_answer("HTTP/1.1 500 no\r\nContent-Length: 9\r\n\r\nKEY RAW KEY"),
    "redirect": http_answer("HTTP/1.1 302 no\r\nLocation: wss://KEY.test/KEY?RAW\r\n\r\n"),
    "redirect to nonsense": http_answer("HTTP/1.1 302 no\r\nLocation: wss://[KEY RAW\r\n\r\n"),
    "cookie": http_answer("HTTP/1.1 401 no\r\nSet-Cookie: key=KEY; domain=RAW\r\n\r\n"),
    "reset": lambda client: read_request(client),
}


@pytest.mark.parametrize("key", [PLAIN, AWKWARD])
@pytest.mark.parametrize("name", SCRIPTS)
def test_key_is_in_no_output(name, key, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with raw_server(SCRIPTS[name]) as url, owner(url, key=key) as it:
        it.run_until(lambda: any(it.link.disconnects.values()), "a failure")
        it.run_until(lambda: it.link.phase is Phase.WAITING, "the end of the connection")
    out, err = capfd.readouterr()
    said = caplog.text + out + err + "".join(repr(record.__dict__) for record in caplog.records)
    assert "trying again" in said
    for form in (key, json.dumps(key)[1:-1], quote(key, safe=""), quote(key), repr(key)[1:-1]):
        assert form not in said


def test_key_in_url_and_headers_is_in_no_output(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    custom = CustomFeed("k", ("t",), "s", login=(LoginStep(expect={"never": "sent"}),))
    options = {"custom": custom, "headers": {"Authorization": "Bearer {key}"}}

    def script(client):
        request = read_request(client).decode()
        assert f"GET /{quote(PLAIN, safe='')}/feed?token={quote(PLAIN, safe='')} " in request
        assert f"Bearer {PLAIN}\r\n" in request
        client.sendall(b"HTTP/1.1 401 no\r\n\r\n")

    with (
        raw_server(script, path="/{key}/feed?token={key}") as url,
        owner(url, "custom", key=PLAIN, **options) as it,
    ):
        it.run_until_lost("refused_key")
    out, err = capfd.readouterr()
    said = caplog.text + out + err
    assert "url=ws://127.0.0.1" in said
    assert PLAIN not in said
    assert quote(PLAIN, safe="") not in said
