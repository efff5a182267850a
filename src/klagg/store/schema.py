"""The database's tables and views, and how an older database becomes a current one.

A candle's key is (series, open_ms) with `series = instrument id * 16 + interval code`, so one series lies together on
disk. Tables hold integers as the engine does; people read the views `candles` (exact decimal text) and `candles_f64`.
"""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

from typing import Final

from klagg import rules
from klagg.interval import INTERVALS
from klagg.model import Origin, Source

APPLICATION_ID: Final = 0x6B6C6767
"""`PRAGMA application_id` of a klagg database: "klgg"."""
SERIES_INTERVALS: Final = 16
"""`series = instrument id * SERIES_INTERVALS + interval code`."""

KEY: Final = ("series", "open_ms")
VALUES: Final = (
    "open",
    "high",
    "low",
    "close",
    "volume_hi",
    "volume_lo",
    "quote_hi",
    "quote_lo",
    "taker_volume_hi",
    "taker_volume_lo",
    "taker_quote_hi",
    "taker_quote_lo",
    "trades",
    "first_id",
    "last_id",
    "price_scale",
    "qty_scale",
    "origin",
)
"""What a closed and an open candle both have, in the order of the tables; the names are `model.CANDLE`'s."""

URGENT_WHERE: Final = f"verified = 0 AND origin <= {rules.URGENT[-1].value}"
LEISURE_WHERE: Final = f"verified = 0 AND origin BETWEEN {rules.LEISURE[0].value} AND {rules.LEISURE[-1].value}"


def _columns(names: tuple[str, ...]) -> str:
    return ",\n  ".join(f"{name} INTEGER NOT NULL" for name in names)


_TABLES: Final = f"""
CREATE TABLE instrument (
  id INTEGER PRIMARY KEY,
  market TEXT NOT NULL,
  symbol TEXT NOT NULL,
  base TEXT NOT NULL,
  quote TEXT NOT NULL,
  status TEXT NOT NULL,
  native_status TEXT NOT NULL,
  price_scale INTEGER NOT NULL,
  qty_scale INTEGER NOT NULL,
  listed_ms INTEGER NOT NULL,
  retired_ms INTEGER,
  shard INTEGER NOT NULL,
  extra TEXT NOT NULL,
  UNIQUE (market, symbol)
) STRICT;

CREATE TABLE life (
  instrument INTEGER NOT NULL,
  number INTEGER NOT NULL,
  listed_ms INTEGER NOT NULL,
  retired_ms INTEGER,
  PRIMARY KEY (instrument, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE interval (code INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, step_ms INTEGER NOT NULL) STRICT;
CREATE TABLE origin (code INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE kept_interval (
  market TEXT NOT NULL,
  code INTEGER NOT NULL,
  PRIMARY KEY (market, code)
) STRICT, WITHOUT ROWID;

CREATE TABLE shard (
  market TEXT NOT NULL,
  id INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  owner TEXT NOT NULL,
  lease_until_ms INTEGER NOT NULL,
  closed_upto_ms INTEGER NOT NULL,
  PRIMARY KEY (market, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE candle (
  {_columns((*KEY, *VALUES, "verified", "revision"))},
  PRIMARY KEY (series, open_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX candle_urgent ON candle (open_ms, origin, verified) WHERE {URGENT_WHERE};
CREATE INDEX candle_leisure ON candle (open_ms, origin, verified) WHERE {LEISURE_WHERE};

CREATE TABLE open_candle (
  series INTEGER PRIMARY KEY,
  {_columns(("open_ms", *VALUES))}
) STRICT;

CREATE TABLE last_trade (
  instrument INTEGER PRIMARY KEY,
  price_scale INTEGER NOT NULL,
  agg_id INTEGER NOT NULL,
  time_ms INTEGER NOT NULL,
  price INTEGER NOT NULL
) STRICT;

CREATE TABLE gap (
  market TEXT NOT NULL,
  symbol TEXT NOT NULL,
  start_ms INTEGER NOT NULL,
  end_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (market, start_ms, end_ms, symbol, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE tally (
  market TEXT NOT NULL,
  origin INTEGER NOT NULL,
  verified INTEGER NOT NULL,
  candles INTEGER NOT NULL,
  PRIMARY KEY (market, origin, verified)
) STRICT, WITHOUT ROWID;
"""


def _digits(hi: str, lo: str, scale: str) -> str:
    """SQL: the digits of a two-word sum, at least one more than its scale."""
    return (
        f"CASE {hi} WHEN 0 THEN printf('%0*d', {scale} + 1, {lo}) "
        f"ELSE printf('%0*d%018d', max(1, {scale} - 17), {hi}, {lo}) END"
    )


def _decimal(digits: str, scale: str) -> str:
    """SQL: digits with the decimal point put where the scale says."""
    return (
        f"CASE {scale} WHEN 0 THEN {digits} "
        f"ELSE substr({digits}, 1, length({digits}) - {scale}) || '.' || substr({digits}, -{scale}) END"
    )


_PRICES: Final = ("open", "high", "low", "close")
_SUMS: Final = {  # column of the view -> words, and whether its scale is the quote's
    "volume": ("volume", "qty_scale"),
    "quote_volume": ("quote", "price_scale + {t}.qty_scale"),
    "taker_buy_volume": ("taker_volume", "qty_scale"),
    "taker_buy_quote_volume": ("taker_quote", "price_scale + {t}.qty_scale"),
}


def _view_arm(table: str, closed: bool, more: str = "") -> str:
    """One arm of the view `candles`: instrument, then interval, then the candle's key, in this order whatever is asked."""
    t = table
    prices = ",\n    ".join(
        f"{_decimal(f'printf({chr(39)}%0*d{chr(39)}, {t}.price_scale + 1, {t}.{name})', f'{t}.price_scale')} AS {name}"
        for name in _PRICES
    )
    sums = {}
    for name, (words, scale) in _SUMS.items():
        at = f"({t}.{scale.format(t=t)})"
        sums[name] = f"{_decimal(_digits(f'{t}.{words}_hi', f'{t}.{words}_lo', at), at)} AS {name}"
    marks = f"1 AS closed, o.name AS origin, {t}.verified AS verified, {t}.revision AS revision"
    only = ""
    if not closed:
        marks = "0 AS closed, o.name AS origin, 0 AS verified, 0 AS revision"
        only = f"\n  WHERE NOT EXISTS (SELECT 1 FROM candle c WHERE c.series = {t}.series AND c.open_ms = {t}.open_ms)"
    return f"""
  SELECT
    i.market AS market, i.symbol AS symbol, n.name AS interval,
    strftime('%Y-%m-%dT%H:%M:%SZ', {t}.open_ms / 1000, 'unixepoch') AS open_time,
    {t}.open_ms AS open_time_ms,
    CASE n.step_ms
      WHEN 0 THEN CAST(strftime('%s', {t}.open_ms / 1000, 'unixepoch', '+1 month') AS INTEGER) * 1000
      ELSE {t}.open_ms + n.step_ms
    END - 1 AS close_time_ms,
    {prices},
    {sums["volume"]},
    {sums["quote_volume"]},
    {t}.trades AS trades,
    {sums["taker_buy_volume"]},
    {sums["taker_buy_quote_volume"]},
    {t}.first_id AS first_trade_id, {t}.last_id AS last_trade_id,
    {marks}{more}
  FROM instrument i CROSS JOIN interval n CROSS JOIN {t} ON {t}.series = i.id * {SERIES_INTERVALS} + n.code
    LEFT JOIN origin o ON o.code = {t}.origin{only}"""


_VIEW_COLUMNS: Final = (
    *("market", "symbol", "interval", "open_time", "open_time_ms", "close_time_ms", "open", "high", "low", "close"),
    *(
        "volume",
        "quote_volume",
        "trades",
        "taker_buy_volume",
        "taker_buy_quote_volume",
        "first_trade_id",
        "last_trade_id",
    ),
    *("closed", "origin", "verified", "revision"),
)


def _f64_columns(names: tuple[str, ...]) -> str:
    decimal = {*_PRICES, *_SUMS}
    return ", ".join(f"CAST({name} AS REAL) AS {name}" if name in decimal else name for name in names)


VIEWS: Final = f"""
CREATE VIEW candles AS {_view_arm("candle", closed=True)}
  UNION ALL {_view_arm("open_candle", closed=False)};
CREATE VIEW candles_f64 AS SELECT {_f64_columns(_VIEW_COLUMNS)} FROM candles;
"""

_INTERVAL_ROWS: Final = ", ".join(f"({i.code}, '{i.name}', {i.step_ms})" for i in INTERVALS)
_ORIGIN_ROWS: Final = ", ".join(f"({origin.value}, '{origin.label}')" for origin in Origin)
_NAMES: Final = f"""
INSERT INTO interval (code, name, step_ms) VALUES {_INTERVAL_ROWS};
INSERT INTO origin (code, name) VALUES {_ORIGIN_ROWS};
"""

_THROUGH_TIME: Final = """
CREATE TABLE instrument_change (
  instrument INTEGER NOT NULL,
  number INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  effective_ms INTEGER NOT NULL,
  status TEXT NOT NULL,
  native_status TEXT NOT NULL,
  price_scale INTEGER NOT NULL,
  qty_scale INTEGER NOT NULL,
  listed_ms INTEGER NOT NULL,
  extra TEXT NOT NULL,
  PRIMARY KEY (instrument, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE rename (
  instrument INTEGER PRIMARY KEY,
  successor INTEGER NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT;

INSERT INTO instrument_change
  SELECT l.instrument, 2 * l.number, l.listed_ms, l.listed_ms,
    CASE WHEN l.retired_ms IS NULL THEN i.status ELSE 'trading' END,
    CASE WHEN l.retired_ms IS NULL THEN i.native_status ELSE '' END,
    i.price_scale, i.qty_scale, l.listed_ms, i.extra
  FROM life l JOIN instrument i ON i.id = l.instrument;
INSERT INTO instrument_change
  SELECT l.instrument, 2 * l.number + 1, l.retired_ms, l.retired_ms, 'retired', i.native_status,
    i.price_scale, i.qty_scale, l.listed_ms, i.extra
  FROM life l JOIN instrument i ON i.id = l.instrument WHERE l.retired_ms IS NOT NULL;

ALTER TABLE gap ADD COLUMN at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE gap ADD COLUMN closed_ms INTEGER;
ALTER TABLE gap ADD COLUMN final INTEGER NOT NULL DEFAULT 0;
ALTER TABLE gap ADD COLUMN checked_ms INTEGER NOT NULL DEFAULT 0;

CREATE TABLE request_weight (
  market TEXT NOT NULL,
  address TEXT NOT NULL,
  process TEXT NOT NULL,
  minute INTEGER NOT NULL,
  claimed INTEGER NOT NULL,
  carried INTEGER NOT NULL,
  PRIMARY KEY (market, address, process, minute)
) STRICT, WITHOUT ROWID;

CREATE TABLE request_ban (
  market TEXT NOT NULL,
  address TEXT NOT NULL,
  until_ms INTEGER NOT NULL,
  wait_ms INTEGER NOT NULL,
  PRIMARY KEY (market, address)
) STRICT, WITHOUT ROWID;
"""
"""What was known of an instrument and when, the life of a gap, and the request weight that processes share. Of an older
database the lives are known, and the scales and the status of now."""

_END_OF_CANDLE: Final = f"""(SELECT CASE step_ms
    WHEN 0 THEN CAST(strftime('%s', candle.open_ms / 1000, 'unixepoch', '+1 month') AS INTEGER) * 1000
    ELSE candle.open_ms + step_ms
  END FROM interval WHERE code = candle.series % {SERIES_INTERVALS})"""
WAS: Final = (*KEY, "revision", *VALUES, "verified", "known_ms", "verified_ms")
"""What `candle_was` keeps of a candle, as `candle` had it."""
_SPAN: Final = ", {t}.known_ms AS known_ms, {until} AS until_ms, {t}.verified_ms AS verified_ms"
# Triggers, so that whoever writes a candle keeps what it was.
_HISTORY: Final = f"""
ALTER TABLE candle ADD COLUMN known_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE candle ADD COLUMN verified_ms INTEGER NOT NULL DEFAULT 0;
UPDATE candle SET known_ms = coalesce({_END_OF_CANDLE}, open_ms);
UPDATE candle SET verified_ms = known_ms WHERE verified <> 0;

CREATE TABLE candle_was (
  {_columns((*WAS, "until_ms"))},
  PRIMARY KEY (series, open_ms, revision)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER candle_revised AFTER UPDATE ON candle WHEN NEW.revision > OLD.revision BEGIN
  DELETE FROM candle_was WHERE (series, open_ms, revision) = (OLD.series, OLD.open_ms, OLD.revision); INSERT INTO candle_was
  ({", ".join(WAS)}, until_ms)
  VALUES ({", ".join(f"OLD.{name}" for name in WAS)}, NEW.known_ms); END;
CREATE TRIGGER candle_removed AFTER DELETE ON candle BEGIN
  DELETE FROM candle_was WHERE series = OLD.series AND open_ms = OLD.open_ms; END;

CREATE VIEW candle_states AS {_view_arm("candle", True, _SPAN.format(t="candle", until="NULL"))}
  UNION ALL {_view_arm("candle_was", True, _SPAN.format(t="candle_was", until="candle_was.until_ms"))};

CREATE TABLE event (
  seq INTEGER PRIMARY KEY,
  market TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  count INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE TABLE barrier (
  market TEXT PRIMARY KEY,
  verified_ms INTEGER NOT NULL,
  caught_up_ms INTEGER NOT NULL,
  caught_up_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

_KEPT: Final = (*WAS, "source")
_SOURCE_NAME: Final = ", " + " ".join(
    (
        "CASE {t}.source",
        *(f"WHEN {source.value} THEN '{source.label}'" for source in Source if source),
        "ELSE '' END AS source",
    )
)
_STATE: Final = _SOURCE_NAME + _SPAN
_WITH_SOURCE: Final = f"""
CREATE VIEW candles AS {_view_arm("candle", True, _SOURCE_NAME.format(t="candle"))}
  UNION ALL {_view_arm("open_candle", False, ", '' AS source")};
CREATE VIEW candles_f64 AS SELECT {_f64_columns((*_VIEW_COLUMNS, "source"))} FROM candles;
CREATE VIEW candle_states AS {_view_arm("candle", True, _STATE.format(t="candle", until="NULL"))}
  UNION ALL {_view_arm("candle_was", True, _STATE.format(t="candle_was", until="candle_was.until_ms"))};
"""
_EVIDENCE: Final = f"""
ALTER TABLE candle ADD COLUMN source INTEGER NOT NULL DEFAULT 0;
ALTER TABLE candle_was ADD COLUMN source INTEGER NOT NULL DEFAULT 0;
DROP TRIGGER candle_revised;
CREATE TRIGGER candle_revised AFTER UPDATE ON candle WHEN NEW.revision > OLD.revision BEGIN
  DELETE FROM candle_was WHERE (series, open_ms, revision) = (OLD.series, OLD.open_ms, OLD.revision); INSERT INTO candle_was
  ({", ".join(_KEPT)}, until_ms)
  VALUES ({", ".join(f"OLD.{name}" for name in _KEPT)}, NEW.known_ms); END;
DROP VIEW candles_f64;
DROP VIEW candles;
DROP VIEW candle_states;
{_WITH_SOURCE}
CREATE TABLE quarantine (
  id INTEGER PRIMARY KEY,
  market TEXT NOT NULL,
  symbol TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  door TEXT NOT NULL,
  interval TEXT NOT NULL,
  open_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  content TEXT NOT NULL,
  UNIQUE (market, symbol, door, interval, open_ms, reason, content)
) STRICT;
"""
"""Which of the exchange's words a candle has, and what was not believed. Of an older database nobody can say whose word it was."""

MIGRATIONS: tuple[str, ...] = (_TABLES + _NAMES + VIEWS, _THROUGH_TIME, _HISTORY, _EVIDENCE)
"""`MIGRATIONS[v]` makes a database of version v one of version v + 1 (`PRAGMA user_version`); the first makes it from
nothing. Statements end with `;` at the end of a line. Never change one that was released: append."""
