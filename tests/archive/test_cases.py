"""Files in the shape of what users reported: what each is, told by its content and its path, and what is refused."""

import gzip
import os
import shutil
from decimal import Decimal
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.archive import open_trades, read_klines
from klagg.errors import FileFormatError, UsageError
from klagg.fixed import join
from klagg.interval import MINUTE_MS
from klagg.model import Flag, Market, Source

T0 = 1_700_006_400_000
COLUMNS = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


@pytest.fixture(scope="session")
def cases() -> Path:
    folder = Path(os.environ.get("KLAGG_TEST_CASES") or Path(__file__).parents[3] / "shared" / "cases")
    if not (folder / "README.md").is_file():
        reason = f"the cases are not at {folder}; set KLAGG_TEST_CASES to the folder that holds their README.md"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


def row(number: int, **told: object) -> dict[str, object]:
    open_ms = T0 + number * MINUTE_MS
    return {
        "open_time": open_ms,
        "open": "100.1",
        "high": "100.9",
        "low": "99.8",
        "close": "100.3",
        "volume": f"{10 + number}.5",
        "close_time": open_ms + MINUTE_MS - 1,
        "quote_volume": f"{(10 + number) * 100 + 53}.15",
        "count": 7 + number,
        "taker_buy_volume": "5.25",
        "taker_buy_quote_volume": "526.575",
        "ignore": 0,
    } | told


def write(path: Path, rows: list[dict[str, object]], header: str = COLUMNS) -> Path:
    names = header.split(",")
    lines = [",".join(str(one[name]) for name in names) for one in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def closes(candles):
    return [Decimal(int(row["close"])).scaleb(-int(row["price_scale"])) for row in candles]


def verified(candles):
    return ((candles["flags"] & Flag.VERIFIED) != 0).tolist()


# What it is


def test_premiums_are_no_prices(cases, tmp_path):
    """binance-public-data 168, 248: in the archive only the folder tells them from klines of trades; prices are negative."""
    file = next(cases.glob("premiumIndexKlines-*"))
    with pytest.raises(FileFormatError, match="premium"):
        read_klines(file, symbol="BTCUSDT")
    with pytest.raises(FileFormatError, match="negative"):
        read_klines(shutil.copy(file, tmp_path / "BTCUSDT-1m-2023-11-15.csv"))


@pytest.mark.parametrize("kind", ["markPriceKlines", "indexPriceKlines", "premiumIndexKlines"])
def test_a_mirror_of_the_archive_tells_the_kind_by_its_folders(tmp_path, kind):
    path = write(tmp_path / "data/futures/um/daily" / kind / "BTCUSDT/1m/BTCUSDT-1m-2023-11-15.csv", [row(0), row(1)])
    with pytest.raises(FileFormatError, match="no candles of trades"):
        read_klines(path)


def test_mark_prices_have_a_count_and_no_volume(tmp_path):
    none = {"volume": 0, "quote_volume": 0, "taker_buy_volume": 0, "taker_buy_quote_volume": 0, "count": 60}
    path = write(tmp_path / "BTCUSDT-1m-2023-11-15.csv", [row(n, **none) for n in range(5)])
    with pytest.raises(FileFormatError, match="trades and no volume"):
        list(read_klines(path))


def test_a_quiet_month_is_one_of_trades(tmp_path):
    quiet = {"volume": 0, "quote_volume": 0, "taker_buy_volume": 0, "taker_buy_quote_volume": 0, "count": 0}
    flat = dict.fromkeys(("open", "high", "low", "close"), "100.1")
    path = write(tmp_path / "BTCUSDT-1m-2023-11-15.csv", [row(n, **quiet, **flat) for n in range(5)])
    assert len(read_klines(path).whole()) == 5


def test_coin_margined_files_are_not_usdm(cases, tmp_path):
    file = next(cases.glob("BTCUSD_PERP-*"))
    with pytest.raises(UsageError, match="coin-margined"):
        read_klines(file, market=Market.USDM)
    with pytest.raises(FileFormatError, match="quote volume"):
        list(read_klines(shutil.copy(file, tmp_path / "BTCUSDT-1h-2023-10-27.csv"), market=Market.USDM))
    trades = tmp_path / "data/futures/cm/daily/aggTrades/BTCUSD_PERP/BTCUSD_PERP-aggTrades-2023-10-27.csv"
    trades.parent.mkdir(parents=True)
    trades.write_text("7,34161.6,12,10,12,1698364800001,true\n")
    with pytest.raises(UsageError, match="coin-margined"):
        open_trades(trades, market=Market.USDM)


def test_times_in_microseconds_are_spots_unless_somebody_insists(cases):
    file = next(cases.glob("spot-BTCUSDT-1h-*"))
    with pytest.raises(UsageError, match="says spot"):
        read_klines(file, market=Market.USDM)
    assert len(read_klines(file, market=Market.SPOT).whole()) == 2


@pytest.mark.parametrize("insists", [False, True])
def test_microseconds_without_a_path_that_tells(tmp_path, insists):
    micro = [
        row(n, open_time=(T0 + n * MINUTE_MS) * 1000, close_time=(T0 + n * MINUTE_MS) * 1000 + 59_999_999)
        for n in (0, 1)
    ]
    path = write(tmp_path / "BTCUSDT-1m-2023-11-15.csv", micro)
    if insists:
        assert read_klines(path, market=Market.USDM, insists=True).whole()["open_ms"].tolist() == [T0, T0 + MINUTE_MS]
    else:
        with pytest.raises(UsageError, match="microseconds"):
            read_klines(path, market=Market.USDM, insists=False)


@pytest.mark.parametrize(
    ("folder", "market", "says"),
    [("data/spot/daily", Market.USDM, "spot"), ("data/futures/um/monthly", Market.SPOT, "usdm")],
)
def test_a_path_that_says_another_market_is_refused(tmp_path, folder, market, says):
    path = write(tmp_path / folder / "klines/BTCUSDT/1m/BTCUSDT-1m-2023-11-15.csv", [row(0), row(1)])
    with pytest.raises(UsageError, match=f"its path says {says}, the command {market}"):
        read_klines(path, market=market)


def test_a_symbol_is_written_as_everywhere(tmp_path):
    assert read_klines(write(tmp_path / "btcusdt-1m-2023-11-15.csv", [row(0)])).symbol == "BTCUSDT"


# How it is written


def test_columns_go_by_their_names(cases):
    candles = read_klines(next(cases.glob("columns-*")), symbol="BTCUSDT").whole()
    assert closes(candles) == [Decimal("100.3"), Decimal("100.2")]
    assert candles["high"].tolist() == [1009, 1006]
    assert candles["low"].tolist() == [998, 1000]


def test_what_data_frames_write_is_exact(cases):
    candles = read_klines(next(cases.glob("pandas-floats-*")), symbol="PEPEUSDT").whole()
    assert len(candles) == 30
    assert set(closes(candles)) == {Decimal("1.24e-06")}
    assert join(int(candles["volume_hi"][29]), int(candles["volume_lo"][29])) == 100_000_029 * 10 ** int(
        candles["qty_scale"][29]
    )


def test_marks_of_order_quotes_and_line_ends_are_no_news(cases, tmp_path):
    (chunk,) = list(open_trades(next(cases.glob("quoted-bom-crlf-*")), symbol="BTCUSDT"))
    assert chunk.trades["agg_id"][:2].tolist() == [2500, 2501]
    assert chunk.trades["price"][:2].tolist() == [292225, 292224]
    assert chunk.trades["buyer_is_maker"][:2].tolist() == [0, 1]
    quoted = write(tmp_path / "q.csv", [{name: f'"{value}"' for name, value in row(n).items()} for n in range(3)])
    plain = write(tmp_path / "p.csv", [row(n) for n in range(3)])
    for path in (quoted, plain):
        assert closes(read_klines(path, symbol="BTCUSDT").whole()) == [Decimal("100.3")] * 3


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (COLUMNS.replace("low,", ""), "low"),
        (COLUMNS.replace("volume,close_time", "volume,volume,close_time"), "two columns for volume"),
        (COLUMNS.replace(",quote_volume", ""), "quote_volume"),
    ],
)
def test_a_header_that_lacks_or_repeats_a_column_is_refused(tmp_path, header, reason):
    path = write(tmp_path / "BTCUSDT-1m-2023-11-15.csv", [row(0)], header)
    with pytest.raises(FileFormatError, match=reason):
        read_klines(path).whole()


def test_an_index_and_columns_of_ones_own_are_passed_over(tmp_path):
    rows = [row(n, index=n, mine="x", **{"Quote asset volume": row(n)["quote_volume"]}) for n in range(3)]
    header = "index,open_time,open,high,low,close,volume,Quote asset volume,count,taker_buy_volume,taker_buy_quote_volume,mine"
    candles = read_klines(write(tmp_path / "BTCUSDT-1m-2023-11-15.csv", rows, header)).whole()
    assert candles["open_ms"].tolist() == [T0, T0 + MINUTE_MS, T0 + 2 * MINUTE_MS]


def test_seconds_are_folded_to_the_minutes_they_fill(cases):
    """binance-public-data 386: spot publishes klines of a second, in microseconds since 2025."""
    reader = read_klines(next(cases.glob("DOGEUSDT-1s-*")), market=Market.SPOT)
    candles = reader.whole()
    import zipfile

    with zipfile.ZipFile(next(cases.glob("DOGEUSDT-1s-*"))) as pack:
        lines = pack.read(pack.namelist()[0]).decode().split()
    seconds = [line.split(",") for line in lines if line[0].isdigit()]
    minutes: dict[int, list[list[str]]] = {}
    for one in seconds:
        minutes.setdefault(int(one[0]) // 60_000_000 * 60_000, []).append(one)
    whole = {at: of for at, of in minutes.items() if len({one[0] for one in of}) == 60}
    assert candles["open_ms"].tolist() == sorted(whole)
    assert reader.broken_minutes == len(minutes) - len(whole)
    for candle in candles:
        of = [one for one in whole[int(candle["open_ms"])] if int(one[8])]
        price, qty = int(candle["price_scale"]), int(candle["qty_scale"])
        assert Decimal(int(candle["open"])).scaleb(-price) == Decimal(of[0][1])
        assert Decimal(int(candle["high"])).scaleb(-price) == max(Decimal(one[2]) for one in of)
        assert Decimal(int(candle["low"])).scaleb(-price) == min(Decimal(one[3]) for one in of)
        assert Decimal(int(candle["close"])).scaleb(-price) == Decimal(of[-1][4])
        for name, column, scale in (("volume", 5, qty), ("quote", 7, price + qty), ("taker_volume", 9, qty)):
            total = join(int(candle[f"{name}_hi"]), int(candle[f"{name}_lo"]))
            assert Decimal(total).scaleb(-scale) == sum(Decimal(one[column]) for one in of)
        assert candle["trades"] == sum(int(one[8]) for one in of)
        assert candle["source"] == Source.ARCHIVE


# What its rows prove


def test_two_rows_of_one_candle_verify_neither(cases):
    reader = read_klines(next(cases.glob("two-rows-*")), symbol="BTCUSDT")
    candles = reader.whole()
    assert len(candles) == 3
    assert len(reader.contradicting) == 1
    assert verified(candles)[:2] == [True, True]
    assert not verified(candles)[2]


def test_a_row_told_twice_is_one(tmp_path):
    reader = read_klines(write(tmp_path / "BTCUSDT-1m-2023-11-15.csv", [row(0), row(1), row(1), row(2)]))
    assert len(reader.whole()) == 3
    assert (reader.repeated, reader.contradicting) == (1, [])


def test_the_last_row_of_a_file_that_goes_on_may_have_been_running(tmp_path):
    reader = read_klines(write(tmp_path / "BTCUSDT-1m-2023-11-15.csv", [row(n) for n in range(4)]))
    assert verified(reader.whole()) == [True, True, True, False]
    assert reader.unproven_ms == T0 + 3 * MINUTE_MS


def test_a_day_that_ends_with_its_last_row_is_whole(tmp_path):
    day = [row(n) for n in range(1_440)]
    reader = read_klines(write(tmp_path / "BTCUSDT-1m-2023-11-15.csv", day))
    assert all(verified(reader.whole()))


# Any file


orders = st.permutations(COLUMNS.split(","))


@settings(max_examples=80, deadline=None)
@given(
    order=orders,
    numbers=st.lists(st.integers(0, 20), min_size=2, max_size=12),
    quoted=st.booleans(),
    crlf=st.booleans(),
    packed=st.booleans(),
    micro=st.booleans(),
)
def test_however_it_is_written_what_is_read_is_what_it_says(
    tmp_path_factory, order, numbers, quoted, crlf, packed, micro
):
    folder = tmp_path_factory.mktemp("any")
    unit = 1000 if micro else 1

    def told(number: int) -> dict[str, object]:
        one = row(number)
        one |= {
            "open_time": int(str(one["open_time"])) * unit,
            "close_time": (T0 + number * MINUTE_MS + MINUTE_MS) * unit - 1,
        }
        return {name: f'"{value}"' if quoted else value for name, value in one.items()}

    lines = [",".join(order), *(",".join(str(told(number)[name]) for name in order) for number in numbers)]
    data = ("\r\n" if crlf else "\n").join(lines).encode()
    path = folder / "BTCUSDT-1m-2023-11-15.csv"
    path.write_bytes(gzip.compress(data) if packed else data)
    reader = read_klines(path, symbol="BTCUSDT")
    candles = reader.whole()
    assert candles["open_ms"].tolist() == [T0 + number * MINUTE_MS for number in sorted(set(numbers))]
    assert candles["trades"].tolist() == [7 + number for number in sorted(set(numbers))]
    assert closes(candles) == [Decimal("100.3")] * len(candles)
    assert set(candles["high"].tolist()) == {1009}
    assert reader.repeated == len(numbers) - len(set(numbers))
    assert verified(candles) == [True] * (len(candles) - 1) + [False]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_files_of_any_order_of_rows_are_one(tmp_path, order):
    reader = read_klines(write(tmp_path / "BTCUSDT-1m-2023-11-15.csv", [row(n) for n in order]))
    assert np.diff(reader.whole()["open_ms"]).tolist() == [MINUTE_MS] * 2
