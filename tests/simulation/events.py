"""The published events against the database: each tells of what is there, and nothing that is there was kept from them."""

import sqlite3
import zlib

import numpy as np

CLOSED, REVISED, VERIFIED = 1, 2, 4
WIDTHS = {"candles": 4, "durable": 2, "verified": 2, "added": 1, "retired": 1, "gap": 3}
LIVE_ORIGINS = (3, 4)
"""`flat` and `trades`: what only the running service makes."""


def problems(database: sqlite3.Connection, market: str, *, whole: bool) -> list[str]:
    """What is wrong with the events of a market; `whole`: all has settled. The sequence is that of the whole database."""
    found: list[str] = []
    candles: dict[tuple[int, int], list[tuple[int, int]]] = {}
    next_seq: int | None = None
    durable_ms = verified_ms = 0
    for row in database.execute("SELECT * FROM event ORDER BY seq"):
        if next_seq is not None and row["seq"] != next_seq:
            found.append(f"event {next_seq} is missing")
        next_seq = row["seq"] + row["count"]
        if row["market"] != market:
            continue
        columns = np.frombuffer(zlib.decompress(row["body"]), "<i8").reshape(WIDTHS[row["kind"]], row["count"])
        values = columns.cumsum(axis=1).T.tolist()
        if row["kind"] == "candles":
            for series, open_ms, what, revision in values:
                candles.setdefault((series, open_ms), []).append((what, revision))
        elif row["kind"] == "durable":
            if values[0][0] <= durable_ms or row["at_ms"] < values[0][0]:
                found.append(f"durable {values[0][0]} after {durable_ms}, told at {row['at_ms']}")
            durable_ms = values[0][0]
        elif row["kind"] == "verified":
            if values[0][0] <= verified_ms or values[0][0] > durable_ms:
                found.append(f"verified {values[0][0]} after {verified_ms}, durable {durable_ms}")
            verified_ms = values[0][0]
    stored = {
        (row["series"], row["open_ms"]): row
        for row in database.execute(
            "SELECT series, open_ms, origin, verified, revision FROM candle c JOIN instrument i ON i.id = c.series / 16 "
            "WHERE i.market = ?",
            (market,),
        )
    }
    for key, told in candles.items():
        found += _of_candle(key, told, stored.get(key))
    for key, row in stored.items():
        if row["origin"] in LIVE_ORIGINS and key not in candles:
            found.append(f"series {key[0]} open {key[1]}: it is there, and no event tells of it")
    closed_upto_ms = (
        database.execute("SELECT min(closed_upto_ms) FROM shard WHERE market = ?", (market,)).fetchone()[0] or 0
    )
    if durable_ms != closed_upto_ms and stored:
        found.append(f"the last durable event is {durable_ms}, closed up to {closed_upto_ms}")
    if whole and stored and not verified_ms:
        found.append("no minute was ever told to be verified")
    return found


def _of_candle(key: tuple[int, int], told: list[tuple[int, int]], row: sqlite3.Row | None) -> list[str]:
    where = f"series {key[0]} open {key[1]}"
    if row is None:
        return [f"{where}: an event tells of it, and it is not there"]
    known, is_verified = -1, False
    for number, (what, revision) in enumerate(told):
        if what & CLOSED and number:
            return [f"{where}: closed twice"]
        if what & REVISED and revision <= known:
            return [f"{where}: revision {revision} after {known}"]
        if not what & (CLOSED | REVISED) and known >= 0 and revision != known:
            return [f"{where}: revision {revision} without an event"]
        known = revision
        is_verified = bool(what & VERIFIED) or (is_verified and not what & REVISED)
    if known != row["revision"]:
        return [f"{where}: the events end at revision {known}, it is {row['revision']}"]
    if is_verified != bool(row["verified"]):
        return [f"{where}: the events end {'' if is_verified else 'not '}verified, it is {row['verified']}"]
    return []
