"""How the values people write are read."""

from datetime import UTC, datetime

import pytest

from klagg.config import SymbolFilter, parse_duration_ms, parse_endpoint, parse_range_ms, parse_symbol, parse_time_ms
from klagg.config.values import parse_margin, parse_urls, split_list
from klagg.errors import UsageError
from klagg.interval import DAY_MS, HOUR_MS, MINUTE_MS
from klagg.model import Market

NOW_MS = int(datetime(2025, 7, 30, 12, 34, 56, tzinfo=UTC).timestamp() * 1_000)
TODAY_MS = NOW_MS - NOW_MS % DAY_MS


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("2d", 2 * DAY_MS), ("90m", 90 * MINUTE_MS), ("1h30m", 90 * MINUTE_MS), ("1.5h", 90 * MINUTE_MS), ("0", 0),
     ("1w", 7 * DAY_MS), ("250ms", 250), (" 30S ", 30_000)],
)  # fmt: skip
def test_durations(text: str, expected_ms: int) -> None:
    assert parse_duration_ms(text) == expected_ms


@pytest.mark.parametrize("text", ["", "2", "d", "2x", "-2d", "1h garbage", "1e3s", "2 d", "٢d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration: write"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("2025-07-30", TODAY_MS),
        ("2025-07-30T12:00", TODAY_MS + 12 * HOUR_MS),
        ("2025-07-30T12:00:00.250Z", TODAY_MS + 12 * HOUR_MS + 250),
        ("2025-07-30 14:00+02:00", TODAY_MS + 12 * HOUR_MS),
        (str(NOW_MS), NOW_MS),
        ("-7d", NOW_MS - 7 * DAY_MS),
        ("now", NOW_MS),
        ("Today", TODAY_MS),
        ("yesterday", TODAY_MS - DAY_MS),
    ],
)
def test_times(text: str, expected_ms: int) -> None:
    assert parse_time_ms(text, NOW_MS) == expected_ms


@pytest.mark.parametrize("text", ["", "20250730", "1753900000", "99999999999999999", "soon", "2025-13-01", "-x"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is not a"):
        parse_time_ms(text, NOW_MS)


def test_an_empty_range_is_refused() -> None:
    assert parse_range_ms("-1d", None, NOW_MS) == (NOW_MS - DAY_MS, None)
    with pytest.raises(UsageError, match="range is empty: --start today is not before --end -1d"):
        parse_range_ms("today", "-1d", NOW_MS)


@pytest.mark.parametrize(
    ("text", "market", "expected"),
    [
        ("btcusdt", Market.USDM, "BTCUSDT"),
        ("BTC/USDT:USDT", Market.USDM, "BTCUSDT"),
        ("BTC/USDT", Market.USDM, "BTCUSDT"),
        ("BTC/USDT", Market.SPOT, "BTCUSDT"),
        ("BTC/USDT:USDT", Market.SPOT, None),
        ("BTC/USDT:USDT-251226", Market.USDM, "BTCUSDT_251226"),
        ("1000pepe/usdc:usdc", Market.USDM, "1000PEPEUSDC"),
        ("币安人生USDT", Market.USDM, "币安人生USDT"),
        ("*usdt", Market.USDM, "*USDT"),
        ("ALL", Market.SPOT, "all"),
    ],
)
def test_symbols(text: str, market: Market, expected: str | None) -> None:
    assert parse_symbol(text, market) == expected


@pytest.mark.parametrize("text", ["", "BTC USDT", "BTC/", "'BTCUSDT'", "BTC/USD:BTC", "A" * 50])
def test_what_is_no_symbol(text: str) -> None:
    with pytest.raises(UsageError):
        parse_symbol(text, Market.USDM)


def test_a_filter_resolves_names_and_globs_against_the_known_symbols() -> None:
    known = ("BTCUSDT", "ETHUSDT", "ETHBTC")
    wanted = SymbolFilter.parse(["ETH*,BTC/USDT:USDT"], Market.USDM)
    assert wanted.resolve(known) == known
    assert SymbolFilter.parse(["*USDT"], Market.USDM).resolve(known) == ("BTCUSDT", "ETHUSDT")
    assert SymbolFilter.parse(["all"], Market.USDM).resolve(known) == known
    assert not wanted.wants("SOLUSDT")


def test_a_filter_names_what_matches_nothing() -> None:
    known = ("BTCUSDT", "ETHUSDT")
    with pytest.raises(UsageError, match=r"glob 'SOL\*' matches none of the 2 symbols of usdm"):
        SymbolFilter.parse(["SOL*"], Market.USDM).resolve(known)
    with pytest.raises(UsageError, match="unknown symbol 'BTCUSD' on market usdm; did you mean BTCUSDT"):
        SymbolFilter.parse(["BTCUSD"], Market.USDM).resolve(known)
    with pytest.raises(UsageError, match="no symbol is wanted of market spot: BTC/USDT:USDT names perpetuals only"):
        SymbolFilter.parse(["BTC/USDT:USDT"], Market.SPOT)


def test_urls_plain_and_by_market() -> None:
    both = (Market.USDM, Market.SPOT)
    assert parse_urls(["http://127.0.0.1:8000/"], (Market.SPOT,), "rest_url", ("http", "https")) == {
        Market.SPOT: "http://127.0.0.1:8000"
    }
    assert parse_urls(["spot=http://a", "usdm=https://b"], both, "rest_url", ("http", "https")) == {
        Market.SPOT: "http://a",
        Market.USDM: "https://b",
    }
    with pytest.raises(UsageError, match="several markets run, so write spot=URL and usdm=URL"):
        parse_urls(["http://a"], both, "rest_url", ("http", "https"))


@pytest.mark.parametrize(
    "url", ["ws://a", "127.0.0.1:80", "http://", "http://a:99999", "http://[::1", "http://a?x=1", ""]
)
def test_what_is_no_base_url(url: str) -> None:
    with pytest.raises(UsageError, match="rest_url"):
        parse_urls([url], (Market.USDM,), "rest_url", ("http", "https"))


def test_lists_margins_and_endpoints() -> None:
    assert split_list(["a,b c", " b ", "d"]) == ("a", "b", "c", "d")
    assert parse_margin("auto") is None
    assert parse_margin("35") == parse_margin(35) == 35
    assert parse_endpoint("[::1]:8420") == ("::1", 8420)
    for bad in ("-1", "1.5", "10001", "soon"):
        with pytest.raises(UsageError, match="margin_ms"):
            parse_margin(bad)
    for bad in ("8420", "host", "host:http", "host:70000", "host:1/path"):
        with pytest.raises(UsageError, match="HOST:PORT"):
            parse_endpoint(bad)
