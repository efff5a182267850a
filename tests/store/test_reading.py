import pytest

from klagg.interval import BY_NAME, MINUTE, MINUTE_MS
from klagg.model import Gap, Market, Origin
from store.samples import T0, candle, flat, minutes


@pytest.fixture
def ten(owned):
    owned.commit(minutes(0, 10, origin=Origin.TRADES), upto_ms=T0 + 10 * MINUTE_MS)
    return owned


def opens(candles):
    return [(int(at) - T0) // MINUTE_MS for at in candles["open_ms"]]


def test_ranges_are_half_open_and_limits_hold_from_either_end(ten):
    read = ten.store.read
    assert opens(read(ten.btc, MINUTE, T0 + 2 * MINUTE_MS, T0 + 5 * MINUTE_MS)) == [2, 3, 4]
    assert opens(read(ten.btc, MINUTE, T0, 2**60, 2)) == [0, 1]
    assert opens(read(ten.btc, MINUTE, 0, 2**60, 2, descending=True)) == [9, 8]
    assert len(read(ten.btc, BY_NAME["5m"], 0, 2**60)) == 0
    assert read(ten.btc, MINUTE, T0, T0 + 1).tolist() == candle().tolist()


@pytest.mark.parametrize("chunk", [1, 3, 5, 10, 11])
def test_pieces_are_the_whole(ten, chunk):
    pieces = list(ten.store.iter_read(ten.btc, MINUTE, 0, 2**60, chunk=chunk))
    assert max(len(piece) for piece in pieces) <= chunk
    assert [at for piece in pieces for at in opens(piece)] == list(range(10))


def test_the_repair_queue_is_newest_first_and_leaves_out_what_is_done(ten):
    done = [
        candle(T0 + 1 * MINUTE_MS, origin=Origin.EXCHANGE, verified=True, close=111),
        flat(T0 + 10 * MINUTE_MS, origin=Origin.UNMATCHED),
    ]
    urgent = [candle(T0 + n * MINUTE_MS, origin=Origin.PARTIAL, amended=True) for n in (3, 5)]
    ten.commit(*done, *urgent)
    queue = ten.store.unverified

    def found(**asked):
        return [
            (at - T0) // MINUTE_MS for at in queue(Market.USDM, **{"before_ms": 2**60, **asked})["open_ms"].tolist()
        ]

    assert found() == [9, 8, 7, 6, 5, 4, 3, 2, 0]
    assert found(urgent=True) == [5, 3]
    assert found(urgent=False) == [9, 8, 7, 6, 4, 2, 0]
    assert found(before_ms=T0 + 5 * MINUTE_MS, limit=2) == [4, 3]
    assert len(queue(Market.SPOT, before_ms=2**60)) == 0
    first = queue(Market.USDM, before_ms=2**60, urgent=True)[0]
    assert (first["instrument_id"], first["interval"], first["origin"]) == (ten.btc, MINUTE.code, Origin.PARTIAL)


def test_the_queue_walks_its_indexes(ten):
    seen = []
    ten.store._database.connection.set_trace_callback(seen.append)
    ten.store.unverified(Market.USDM, before_ms=2**60)
    ten.store._database.connection.set_trace_callback(None)
    plans = [ten.store._database.all(f"EXPLAIN QUERY PLAN {statement}") for statement in seen]
    assert len(plans) == 2
    for plan, index in zip(plans, ("candle_urgent", "candle_leisure"), strict=True):
        text = " ".join(row[3] for row in plan)
        assert f"USING COVERING INDEX {index} (open_ms<?)" in text
        assert "TEMP B-TREE" not in text


def test_counts_newest_minute_and_gaps(ten):
    ten.write(candle(T0, origin=Origin.EXCHANGE, verified=True))
    counts = [(c.origin, c.verified, c.candles) for c in ten.store.candle_counts(Market.USDM)]
    assert counts == [(Origin.TRADES, False, 9), (Origin.EXCHANGE, True, 1)]
    assert ten.store.newest_minute_ms(Market.USDM) == T0 + 9 * MINUTE_MS
    assert ten.store.newest_minute_ms(Market.SPOT) is None
    assert ten.store.series_count(Market.USDM) == 1
    gap = Gap(Market.USDM, "", T0, T0 + MINUTE_MS, "memory")
    ten.store.record_gap(gap)
    ten.commit(gaps=[gap, Gap(Market.USDM, "BTCUSDT", T0, T0 + MINUTE_MS, "memory")])
    assert [found.symbol for found in ten.store.gaps(Market.USDM)] == ["", "BTCUSDT"]
    assert ten.store.size_bytes() > 10_000


def test_a_transaction_is_all_or_nothing(ten):
    with pytest.raises(ZeroDivisionError), ten.store.transaction() as store:  # noqa: PT012  # what it rolls back
        assert ten.write(candle(T0, close=111)).changed[0]
        assert store.read(ten.btc, MINUTE, T0, T0 + 1)["close"].tolist() == [111]
        raise ZeroDivisionError
    assert ten.store.read(ten.btc, MINUTE, T0, T0 + 1)["close"].tolist() == [110]
