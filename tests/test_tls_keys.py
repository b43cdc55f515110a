"""Keys are what the standards' own test vectors, and another library, say they are."""

import re

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from hypothesis import given
from hypothesis import strategies as st

from tests.tls_peers import expand_label
from tradebal.tls import keys
from tradebal.tls.keylog import parse
from tradebal.tls.keys import AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, SUITES
from tradebal.tls.memory import own, wipe

HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}


def test_key_and_iv_of_rfc_8448():
    # RFC 8448, section 3: "{server} derive write traffic keys for application data".
    secret = bytearray.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
    key = keys.traffic_key(secret, AES_128_GCM)
    assert key.key.hex() == "9f02283b6c9c07efc26bb9f2ac92e356"
    assert key.iv.hex() == "cf782b88dd83549aadf1e984"


def test_prf_of_the_vector_that_the_ietf_list_agreed_on():
    # Mailing list of the TLS working group, msg03416: 100 bytes of TLS 1.2's PRF with SHA-256.
    secret = bytearray.fromhex("9bbe436ba940f017b17652849a71db35")
    seed = bytes.fromhex("a0ba9f936cda311827a6f796ffd5198c")
    assert keys.prf(secret, b"test label", seed, 100, "sha256").hex() == (
        "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a"
        "6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab"
        "4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701"
        "87347b66"
    )


@given(st.binary(min_size=1, max_size=64), st.sampled_from(["key", "iv", "traffic upd"]), st.sampled_from(SUITES))
def test_labels_expand_as_by_another_library(secret, label, suite):
    size = min(32, HASHES[suite.hash].digest_size)
    expected = expand_label(secret, label, size, HASHES[suite.hash])
    assert keys.expand_label(bytearray(secret), label, size, suite.hash) == expected


@given(st.binary(min_size=1, max_size=64), st.binary(max_size=80), st.integers(1, 200), st.sampled_from([*HASHES]))
def test_prf_is_p_hash_of_rfc_5246(secret, seed, size, name):
    def mac(data):
        it = hmac.HMAC(secret, HASHES[name])
        it.update(data)
        return it.finalize()

    a, expected = b"label" + seed, b""
    while len(expected) < size:
        a = mac(a)
        expected += mac(a + b"label" + seed)
    assert keys.prf(bytearray(secret), b"label", seed, size, name) == expected[:size]


def test_next_secret_takes_the_place_of_the_one_before():
    secret = bytearray(b"s" * 48)
    keys.update(secret, AES_256_GCM)
    assert secret == expand_label(b"s" * 48, "traffic upd", 48, hashes.SHA384())


@pytest.mark.parametrize(
    ("cipher", "suite"),
    [
        ("TLS_AES_128_GCM_SHA256", AES_128_GCM),
        ("TLS_AES_256_GCM_SHA384", AES_256_GCM),
        ("TLS_CHACHA20_POLY1305_SHA256", CHACHA20_POLY1305),
        ("ECDHE-RSA-AES128-GCM-SHA256", AES_128_GCM),
        ("DHE-RSA-AES256-GCM-SHA384", AES_256_GCM),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", CHACHA20_POLY1305),
        ("ECDHE-RSA-AES256-SHA384", None),
        ("ECDHE-ECDSA-AES128-CCM", None),
        ("ECDHE-ARIA128-GCM-SHA256", None),
        ("TLS_AES_128_CCM_SHA256", None),
    ],
)
def test_suite_is_found_by_openssl_s_name(cipher, suite):
    assert keys.find_suite(cipher) is suite


def test_key_log_is_read_by_label():
    text = b"# a comment\nCLIENT_RANDOM 0102 a1b2c3\nEXPORTER_SECRET 0102 ff00\n\nhalf a li"
    assert parse(bytearray(text)) == {
        "CLIENT_RANDOM": (b"\1\2", bytearray(b"\xa1\xb2\xc3")),
        "EXPORTER_SECRET": (b"\1\2", bytearray(b"\xff\0")),
    }


@given(st.binary(min_size=2))
def test_secret_that_was_taken_over_stands_nowhere_else(data):
    fresh = bytes(bytearray(data))
    taken = own(fresh)
    assert taken == data
    assert fresh == bytes(len(data))
    wipe(taken)
    assert taken == bytes(len(data))


def test_key_shows_itself_to_nobody():
    key = keys.traffic_key(bytearray(32), AES_128_GCM)
    assert not re.search("bytearray|key=", repr(key))
