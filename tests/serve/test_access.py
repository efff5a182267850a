"""Who may read."""

import base64

import pytest

from klagg.errors import UsageError
from klagg.serve.access import Access, is_loopback
from klagg.serve.limits import Bucket, Weights

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_asks_for_nothing(host: str) -> None:
    assert is_loopback(host)
    access = Access.for_host(host, None, open_to_all=False)
    assert access.denied("/fapi/v1/time", {"host": "localhost:8420"}) is None
    assert access.denied("/fapi/v1/time", {"host": "[::1]:8420"}) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org"])
def test_others_need_a_token_or_a_leave(host: str) -> None:
    with pytest.raises(UsageError, match=r"others can reach this address: set a token \(KLAGG_SERVE_TOKEN\)"):
        Access.for_host(host, None, open_to_all=False)
    assert Access.for_host(host, None, open_to_all=True).denied("/x", {"host": "anything"}) is None
    with pytest.raises(UsageError, match="at least 16"):
        Access.for_host(host, "short", open_to_all=False)


def test_a_token_is_asked_for() -> None:
    access = Access.for_host("0.0.0.0", TOKEN, open_to_all=False)
    basic = base64.b64encode(f"klagg:{TOKEN}".encode()).decode()
    for good in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
        assert access.denied("/fapi/v1/time", {"authorization": good}) is None
    for bad in ("", TOKEN, "Bearer", f"Bearer {TOKEN}x", "Basic !!!", f"Digest {TOKEN}", "Basic " + "ÿ"):
        denied = access.denied("/fapi/v1/time", {"authorization": bad})
        assert denied is not None
        assert denied.status == 401
        assert TOKEN not in denied.message
    assert access.denied("/healthz", {}) is None
    assert access.denied("/metrics", {}) is not None


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost.evil:8420"])
def test_another_name_for_this_host_is_refused(host: str) -> None:
    denied = Access().denied("/fapi/v1/time", {"host": host})
    assert denied is not None
    assert denied.status == 403


def test_pages_of_other_addresses_open_no_socket() -> None:
    here = {"host": "127.0.0.1:8420"}
    assert Access().denied("/ws", here, websocket=True) is None
    assert Access().denied("/ws", {**here, "origin": "http://127.0.0.1:8420"}, websocket=True) is None
    for origin in ("http://evil.example", "http://127.0.0.1:9", "null", "http://["):
        assert Access(open_to_all=True).denied("/ws", {**here, "origin": origin}, websocket=True) is not None


def test_weights_are_counted_by_address_and_minute() -> None:
    weights = Weights(limit=10)
    assert weights.charge("a", 7, 60_000) == (7, False)
    assert weights.charge("a", 4, 60_001) == (11, True)
    assert weights.charge("b", 4, 60_002) == (4, False)
    assert weights.charge("a", 4, 120_000) == (4, False)


def test_a_bucket_allows_a_burst_and_then_its_rate() -> None:
    bucket = Bucket(10, 15)
    assert sum(bucket.take(100.0) for _ in range(40)) == 15
    assert not bucket.take(100.05)
    assert sum(bucket.take(101.0) for _ in range(40)) == 10
