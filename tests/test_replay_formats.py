"""Every form in which trades are recorded gives the same candles, and these are what plain decimals say."""

import gzip
import io
import json
import random
import zipfile
from dataclasses import dataclass
from decimal import Decimal

import pytest
import zstandard

from klagg import fixed
from klagg.interval import MINUTE, MINUTE_MS, parse_intervals
from klagg.model import Market, Origin
from klagg.replay import replay
from klagg.store import open_store

START_MS = 1_725_148_800_000 + 90_000  # 2024-09-01 00:01:30
SYMBOL = "AAAUSDT"


@dataclass(frozen=True)
class Made:
    """One aggregate of trades, as the exchange would tell it."""

    agg_id: int
    price: str
    qty: str
    first_id: int
    last_id: int
    time_ms: int
    maker: bool


def make_trades(seed, *, single, count=400):
    """Trades over some twenty minutes, in the order of their ids; some minutes have none."""
    chance = random.Random(seed)
    time_ms, trade_id, found = START_MS, 7_000, []
    for number in range(count):
        time_ms += chance.choice((0, 0, 1, 400, 3_000, 9_000))
        if chance.random() < 0.01:
            time_ms += 3 * MINUTE_MS
        held = 0 if single else chance.randint(0, 3)
        price = f"{chance.randint(90, 110)}.{chance.choice(('1', '25', '90', '0', '123'))}"
        qty = f"{chance.randint(0, 3)}.{chance.randint(1, 999):03d}"
        agg_id = trade_id if single else 500 + number
        found.append(Made(agg_id, price, qty, trade_id, trade_id + held, time_ms, chance.random() < 0.5))
        trade_id += held + 1
    return found


def candles_of(trades):
    """The nine fields of each minute that traded, by open time, in plain decimals."""
    minutes = {}
    for trade in sorted(trades, key=lambda trade: trade.agg_id):
        minutes.setdefault(trade.time_ms // MINUTE_MS * MINUTE_MS, []).append(trade)
    candles = {}
    for open_ms, of_minute in minutes.items():
        prices = [Decimal(trade.price) for trade in of_minute]
        taken = [trade for trade in of_minute if not trade.maker]
        candles[open_ms] = (
            *(prices[0], max(prices), min(prices), prices[-1]),
            sum(Decimal(trade.qty) for trade in of_minute),
            sum(Decimal(trade.qty) * Decimal(trade.price) for trade in of_minute),
            sum(trade.last_id - trade.first_id + 1 for trade in of_minute),
            sum((Decimal(trade.qty) for trade in taken), Decimal()),
            sum((Decimal(trade.qty) * Decimal(trade.price) for trade in taken), Decimal()),
        )
    return candles


def numbers_of(candle):
    prices, qtys = int(candle["price_scale"]), int(candle["qty_scale"])

    def total(name, scale):
        return Decimal(fixed.to_text(fixed.join(int(candle[f"{name}_hi"]), int(candle[f"{name}_lo"])), scale))

    return (
        *(Decimal(fixed.to_text(int(candle[name]), prices)) for name in ("open", "high", "low", "close")),
        total("volume", qtys),
        total("quote", prices + qtys),
        int(candle["trades"]),
        total("taker_volume", qtys),
        total("taker_quote", prices + qtys),
    )


# --- the forms --------------------------------------------------------------------------------------------------------


def boolean(value, word="lower"):
    return str(value).lower() if word == "lower" else str(value)


def agg_csv(trades, *, header="", best=False, micro=False, word="lower"):
    rows = [
        f"{t.agg_id},{t.price},{t.qty},{t.first_id},{t.last_id},{t.time_ms * 1000 + 7 if micro else t.time_ms},"
        f"{boolean(t.maker, word)}{',True' if best else ''}"
        for t in trades
    ]
    return "\n".join([header] * bool(header) + rows) + "\n"


def trade_csv(trades, *, header="", best=False, micro=False):
    rows = [
        f"{t.agg_id},{t.price},{t.qty},{Decimal(t.price) * Decimal(t.qty)},"
        f"{t.time_ms * 1000 + 7 if micro else t.time_ms},{boolean(t.maker)}{',true' if best else ''}"
        for t in trades
    ]
    return "\n".join([header] * bool(header) + rows) + "\n"


def recorder_csv(trades):
    head = (
        "TimestampOfReceive,Stream,EventType,EventTime,TransactionTime,Symbol,TradeId,Price,Quantity,IsBuyerMarketMaker"
    )
    rows = [
        f"{t.time_ms + 5},aaausdt@trade,trade,{t.time_ms},{t.time_ms},{SYMBOL},{t.agg_id},{t.price},{t.qty},{int(t.maker)},MARKET"
        for t in trades
    ]
    return "\n".join([head + ",XUnknownParameter", *rows]) + "\n"


def trade_message(t):
    head = {"e": "trade", "E": t.time_ms + 3, "T": t.time_ms, "s": SYMBOL, "t": t.agg_id, "p": t.price, "q": t.qty}
    return head | {"X": "MARKET", "m": t.maker}


def agg_message(t):
    head = {"e": "aggTrade", "E": t.time_ms + 3, "s": SYMBOL, "a": t.agg_id, "p": t.price, "q": t.qty}
    return head | {"f": t.first_id, "l": t.last_id, "T": t.time_ms, "m": t.maker}


def rest_row(t):
    return {"a": t.agg_id, "p": t.price, "q": t.qty, "f": t.first_id, "l": t.last_id, "T": t.time_ms, "m": t.maker}


def lines(trades, message, *, received=lambda t: "", combined="", first=""):
    found = []
    for t in trades:
        body = {"stream": combined, "data": message(t)} if combined else message(t)
        found.append(received(t) + json.dumps(body, separators=(",", ":")))
    return "\n".join([first] * bool(first) + found) + "\n"


AGG_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
URL = "wss://fstream.binance.com/stream?streams=aaausdt@aggTrade <-> 1725148740.25"
SINGLE = {
    "usdm trades with header": lambda t: trade_csv(t, header="id,price,qty,quote_qty,time,is_buyer_maker"),
    "usdm trades": trade_csv,
    "coinm trades with header": lambda t: trade_csv(t, header="id,price,qty,base_qty,time,is_buyer_maker"),
    "spot trades": lambda t: trade_csv(t, best=True),
    "spot trades in µs": lambda t: trade_csv(t, best=True, micro=True),
    "recorder csv": recorder_csv,
    "trade messages": lambda t: lines(t, trade_message),
    "trade messages, ns before": lambda t: lines(t, trade_message, received=lambda t: f"{t.time_ms * 10**6} "),
    "combined trade messages, µs before": lambda t: lines(
        t, trade_message, received=lambda t: f"{t.time_ms * 1000} ", combined="aaausdt@trade"
    ),
}
AGGREGATE = {
    "usdm aggTrades with header": lambda t: agg_csv(t, header=AGG_HEADER),
    "usdm aggTrades": agg_csv,
    "spot aggTrades": lambda t: agg_csv(t, best=True, word="title"),
    "spot aggTrades in µs": lambda t: agg_csv(t, best=True, micro=True, word="title"),
    "aggTrades with \\r\\n and a byte-order mark": lambda t: (
        "\ufeff" + agg_csv(t, header=AGG_HEADER).replace("\n", "\r\n")
    ),
    "aggTrade messages": lambda t: lines(t, agg_message),
    "aggTrade messages, the address first, s before": lambda t: lines(
        t, agg_message, received=lambda t: f"{t.time_ms / 1000}: ", combined="aaausdt@aggTrade", first=URL
    ),
    "REST rows": lambda t: lines(t, rest_row),
    "an array of REST rows": lambda t: json.dumps([rest_row(row) for row in t], indent=1),
    "arrays of REST rows": lambda t: (
        f"{json.dumps([rest_row(r) for r in t[:50]])}\n{json.dumps([rest_row(r) for r in t[50:]])}\n"
    ),
}
FORMS = [(name, True) for name in SINGLE] + [(name, False) for name in AGGREGATE]


def replayed(tmp_path, files, market=Market.USDM):
    """The closed minutes of a replay, and its summary."""
    store = open_store(str(tmp_path / "klagg.db"), mode="create")
    try:
        summary = replay(files, market=market, intervals=parse_intervals(["5m"]), store=store, symbol=SYMBOL)
        ids = {stored.instrument.symbol: stored.id for stored in store.instruments(market)}
        return store.read(ids[SYMBOL], MINUTE, 0, 1 << 60), summary
    finally:
        store.close()


def assert_true(minutes, trades):
    """The candles are those of the trades, one for every minute, `partial` at the ends and proven inside."""
    expected = candles_of(trades)
    opens = [int(minute["open_ms"]) for minute in minutes]
    assert opens == list(range(min(expected), max(expected) + 1, MINUTE_MS))
    assert {int(c["open_ms"]): numbers_of(c) for c in minutes if c["trades"]} == expected
    assert minutes["origin"][0] == minutes["origin"][-1] == Origin.PARTIAL
    inside = [int(Origin.TRADES) if trades else int(Origin.FLAT) for trades in minutes["trades"][1:-1].tolist()]
    assert minutes["origin"][1:-1].tolist() == inside


@pytest.mark.parametrize(("name", "single"), FORMS)
def test_every_form_gives_the_candles_of_its_trades(name, single, tmp_path):
    trades = make_trades(3, single=single)
    path = tmp_path / "recording"
    path.write_text((SINGLE if single else AGGREGATE)[name](trades), "utf-8")
    market = Market.SPOT if "spot" in name else Market.USDM
    minutes, summary = replayed(tmp_path, [path], market)
    assert_true(minutes, trades)
    assert summary.trades == len(trades)
    assert summary.tally["applied"] == len(trades)


def packed(kind, text):
    data = text.encode()
    if kind == "gz":
        half = data.index(b"\n", len(data) // 2) + 1
        return gzip.compress(data[:half]) + gzip.compress(data[half:])  # as recorders that append write them
    if kind == "zst":
        return zstandard.ZstdCompressor().compress(data)
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("trades.csv", data)
    return memory.getvalue()


@pytest.mark.parametrize("kind", ["gz", "zip", "zst"])
def test_packed_files_are_known_by_their_content(kind, tmp_path):
    trades = make_trades(5, single=False)
    path = tmp_path / "recording"
    path.write_bytes(packed(kind, agg_csv(trades)))
    assert_true(replayed(tmp_path, [path])[0], trades)


# --- order, duplicates, other trades ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_trades_recorded_late_and_twice_find_their_candles(seed, tmp_path):
    """Up to eight minutes late, in any order: only the ids tell which trade was first."""
    chance = random.Random(seed)
    trades = make_trades(seed, single=False)
    recorded = sorted(trades, key=lambda t: t.time_ms + chance.choice((0, 0, 0, 900, 70_000, 8 * MINUTE_MS)))
    for _ in range(30):
        recorded.insert(chance.randrange(len(recorded)), chance.choice(trades))
    path = tmp_path / "recording"
    path.write_text(agg_csv(recorded))
    minutes, summary = replayed(tmp_path, [path])
    assert_true(minutes, trades)
    assert summary.tally["duplicate"] == 30
    assert summary.tally["too_old"] == summary.tally["holes"] == 0


def test_what_is_no_market_trade_keeps_the_ids_whole_and_is_in_no_candle(tmp_path):
    trades = make_trades(8, single=True)
    others = {trades[i].agg_id: kind for i, kind in ((20, "INSURANCE_FUND"), (120, ""), (121, "ADL"), (300, "NA"))}
    messages = []
    for t in trades:
        message = trade_message(t)
        if t.agg_id in others:
            message |= {"X": others[t.agg_id], "p": "0" if others[t.agg_id] == "NA" else "9999"}
        messages.append(json.dumps(message))
    path = tmp_path / "recording"
    path.write_text("\n".join(messages) + "\n")
    minutes, summary = replayed(tmp_path, [path])
    assert_true(minutes, [t for t in trades if t.agg_id not in others])
    assert summary.tally["not_market"] == 4


def test_several_symbols_in_one_recording_keep_apart(tmp_path):
    """Each has its own ids: after its last one nothing is proven of the thin one, though the recording goes on."""
    trades = make_trades(11, single=False)
    thin = [t for t in make_trades(12, single=False, count=3) if t.time_ms < trades[-1].time_ms]
    messages = [(t.time_ms, json.dumps(agg_message(t))) for t in trades]
    messages += [(t.time_ms, json.dumps(agg_message(t) | {"s": "BBBUSDT"})) for t in thin]
    path = tmp_path / "recording"
    path.write_text("\n".join(text for _, text in sorted(messages)) + "\n")
    store = open_store(str(tmp_path / "klagg.db"), mode="create")
    replay([path], market=Market.USDM, intervals=parse_intervals([]), store=store)
    ids = {stored.instrument.symbol: stored.id for stored in store.instruments(Market.USDM)}
    minutes, thins = (store.read(ids[symbol], MINUTE, 0, 1 << 60) for symbol in (SYMBOL, "BBBUSDT"))
    store.close()
    assert_true(minutes, trades)
    assert {int(c["open_ms"]): numbers_of(c) for c in thins if c["trades"]} == candles_of(thin)
    assert thins["open_ms"][-1] == MINUTE.open_at(thin[-1].time_ms)
    assert thins["origin"][[0, -1]].tolist() == [Origin.PARTIAL] * 2
    assert set(thins["origin"][1:-1].tolist()) <= {int(Origin.FLAT), int(Origin.TRADES)}


def test_neighbouring_files_in_any_order_and_overlapping_are_one_recording(tmp_path):
    trades = make_trades(21, single=False)
    pieces = {"c": trades[:150], "a": trades[140:260], "b": trades[260:]}
    for name, piece in pieces.items():
        (tmp_path / name).write_text(lines(piece, agg_message))
    minutes, summary = replayed(tmp_path, [tmp_path / name for name in ("a", "b", "c")])
    assert_true(minutes, trades)
    assert summary.tally["duplicate"] == 10
