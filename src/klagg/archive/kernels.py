# ruff: noqa: ANN401, C901, PLR0912, PLR0915, PLR1714, SIM109, SIM110  # plain loops over bytes are what Numba compiles best
"""Numba kernels over the bytes of CSV rows and of decimals.

Each takes only what is plain (digits, one point, ASCII booleans) and stops before anything else; the caller reads that
row with the plain parser (`rows`), which takes it or names what is wrong with it.
"""

from typing import Any, Final

import numba

from klagg.archive.layout import Role

# All kernels stand in this one file: Numba's cache notices a change of the file, not of functions called from others.
_compiled: Any = numba.njit(cache=True, nogil=True)


_COMMA: Final = 44
_NEWLINE: Final = 10
_RETURN: Final = 13
_POINT: Final = 46
_ZERO: Final = 48
_QUOTE: Final = 34
_MAX_DIGITS: Final = 18

_ID: Final = int(Role.ID)
_PRICE: Final = int(Role.PRICE)
_QTY: Final = int(Role.QTY)
_FIRST_ID: Final = int(Role.FIRST_ID)
_LAST_ID: Final = int(Role.LAST_ID)
_TIME: Final = int(Role.TIME)
_MAKER: Final = int(Role.MAKER)
_ORDER_TYPE: Final = int(Role.ORDER_TYPE)
_SYMBOL: Final = int(Role.SYMBOL)
_EVENT: Final = int(Role.EVENT)
_RECEIVE: Final = int(Role.RECEIVE)

POSITION: Final = 0
ROWS: Final = 1
LINES: Final = 2
STATE_WORDS: Final = 3
"""`state` of the kernels: the byte to go on from, the rows written so far, the lines passed so far."""

WORDS = ("MARKET", "trade", "aggTrade")


@_compiled
def _integer(buf: Any, pos: Any) -> Any:
    """The digits from `pos` on: (value, position after them); position -1 where there are none, or more than 18."""
    value = 0
    start = pos
    while True:
        digit = buf[pos] - _ZERO
        if digit > 9 or digit < 0:
            break
        value = value * 10 + digit
        pos += 1
    if pos == start or pos - start > _MAX_DIGITS:
        return 0, -1
    return value, pos


@_compiled
def _decimal(buf: Any, pos: Any) -> Any:
    """A plain decimal from `pos` on: (mantissa, scale, position after it), trailing zeros stripped; -1 as `_integer`."""
    start = pos
    mantissa = 0
    while True:
        digit = buf[pos] - _ZERO
        if digit > 9 or digit < 0:
            break
        mantissa = mantissa * 10 + digit
        pos += 1
    if pos == start:
        return 0, 0, -1
    digits = pos - start
    scale = 0
    if buf[pos] == _POINT:
        pos += 1
        first = pos
        zeros = 0
        while True:
            digit = buf[pos] - _ZERO
            if digit > 9 or digit < 0:
                break
            pos += 1
            if digit == 0:
                zeros += 1
                continue
            while zeros:
                mantissa *= 10
                zeros -= 1
            mantissa = mantissa * 10 + digit
            scale = pos - first
        digits += pos - first
    if digits > _MAX_DIGITS:
        return 0, 0, -1
    return mantissa, scale, pos


@_compiled
def _time_ms(value: Any) -> Any:
    """Milliseconds of a time of 13 digits (ms) or 16 (µs), floored; -1 for any other."""
    if 10**12 <= value < 10**13:
        return value
    if 10**15 <= value < 10**16:
        return value // 1000
    return -1


@_compiled
def _boolean(buf: Any, pos: Any) -> Any:
    """`true`/`True`/`1` or `false`/`False`/`0` at `pos`: (value, position after it), position -1 for anything else."""
    first = buf[pos]
    if first == 48 or first == 49:
        return first - 48, pos + 1
    if (first == 116 or first == 84) and buf[pos + 1] == 114 and buf[pos + 2] == 117 and buf[pos + 3] == 101:
        return 1, pos + 4
    if (
        (first == 102 or first == 70)
        and buf[pos + 1] == 97
        and buf[pos + 2] == 108
        and buf[pos + 3] == 115
        and buf[pos + 4] == 101
    ):
        return 0, pos + 5
    return 0, -1


@_compiled
def _skip(buf: Any, pos: Any) -> Any:
    """The position of the cell's end from `pos` on; -1 where a quote begins."""
    while True:
        byte = buf[pos]
        if byte == _COMMA or byte == _NEWLINE or byte == _RETURN:
            return pos
        if byte == _QUOTE:
            return -1
        pos += 1


@_compiled
def _matches(buf: Any, pos: Any, end: Any, names: Any, lengths: Any, index: Any) -> bool:
    """Whether the cell `[pos, end)` is name `index` of the table."""
    if lengths[index] != end - pos:
        return False
    for i in range(end - pos):
        if buf[pos + i] != names[index, i]:
            return False
    return True


@_compiled
def parse_rows(
    out: Any,
    receive_ms: Any,
    lines: Any,
    state: Any,
    buf: Any,
    roles: Any,
    names: Any,
    lengths: Any,
    known: Any,
    slot: Any,
) -> bool:
    """Read plain rows of trades until `out` is full, the bytes end, or a row is not plain.

    Args:
        out: `TRADE[rows]`, filled from `state[ROWS]` on.
        receive_ms: int64[rows] beside it, -1 where the rows do not say.
        lines: int64[rows] beside it, the line of each row.
        state: int64[STATE_WORDS], moved on; at an odd row `POSITION` is its first byte.
        buf: uint8[bytes], whole lines, the last byte a newline.
        roles: uint8[columns], a `Role` each.
        names: uint8[n, width]: first the `WORDS`, then the known symbols, in UTF-8.
        lengths: int64[n] beside it.
        known: how many rows of `names` are filled.
        slot: the slot of the last row's symbol: tried first, and the slot of all where rows do not name it.

    Returns:
        True where it stopped before a row it does not take.

    """
    pos = state[POSITION]
    row = state[ROWS]
    size = buf.shape[0]
    capacity = out.shape[0]
    columns = roles.shape[0]
    while pos < size and row < capacity:
        start = pos
        if buf[pos] == _NEWLINE:
            pos += 1
            state[LINES] += 1
            state[POSITION] = pos
            continue
        kind = 0
        first_id = -1
        last_id = -1
        agg_id = -1
        price = 0
        qty = 0
        received = -1
        time_ms = -1
        for column in range(columns):
            role = roles[column]
            if role == 0:
                pos = _skip(buf, pos)
            elif role == _PRICE:
                price, price_scale, pos = _decimal(buf, pos)
                if pos >= 0:
                    out[row].price = price
                    out[row].price_scale = price_scale
            elif role == _QTY:
                qty, qty_scale, pos = _decimal(buf, pos)
                if pos >= 0:
                    out[row].qty = qty
                    out[row].qty_scale = qty_scale
            elif role == _MAKER:
                maker, pos = _boolean(buf, pos)
                out[row].buyer_is_maker = maker
            elif role == _ORDER_TYPE:
                end = _skip(buf, pos)
                if end >= 0 and not _matches(buf, pos, end, names, lengths, 0):
                    # Of another kind: the plain parser knows which.
                    end = -1
                pos = end
            elif role == _EVENT:
                end = _skip(buf, pos)
                if end >= 0 and not (
                    _matches(buf, pos, end, names, lengths, 1) or _matches(buf, pos, end, names, lengths, 2)
                ):
                    end = -1
                pos = end
            elif role == _SYMBOL:
                end = _skip(buf, pos)
                found = slot + 3
                if end >= 0 and not (found < known and _matches(buf, pos, end, names, lengths, found)):
                    found = -1
                    for index in range(3, known):
                        if _matches(buf, pos, end, names, lengths, index):
                            found = index
                            break
                    if found < 0:
                        end = -1
                    else:
                        slot = found - 3
                pos = end
            else:
                value, pos = _integer(buf, pos)
                if role == _ID:
                    agg_id = value
                elif role == _FIRST_ID:
                    first_id = value
                elif role == _LAST_ID:
                    last_id = value
                elif role == _TIME:
                    time_ms = _time_ms(value)
                    if time_ms < 0:
                        pos = -1
                elif role == _RECEIVE:
                    received = _time_ms(value)
                    if received < 0:
                        pos = -1
            if pos < 0:
                break
            if column + 1 < columns:
                if buf[pos] != _COMMA:
                    pos = -1
                    break
                pos += 1
        if pos >= 0 and buf[pos] == _RETURN:
            pos += 1
        if pos < 0 or buf[pos] != _NEWLINE:
            state[POSITION] = start
            state[ROWS] = row
            return True
        if first_id < 0:
            first_id = agg_id
        if last_id < 0:
            last_id = agg_id
        if last_id < first_id:
            state[POSITION] = start
            state[ROWS] = row
            return True
        if price == 0 or qty == 0:
            kind = 2
        out[row].slot = slot
        out[row].kind = kind
        out[row].agg_id = agg_id
        out[row].first_id = first_id
        out[row].last_id = last_id
        out[row].time_ms = time_ms
        receive_ms[row] = received
        pos += 1
        state[LINES] += 1
        lines[row] = state[LINES]
        row += 1
        state[POSITION] = pos
    state[ROWS] = row
    return False


@_compiled
def parse_decimals(mantissas: Any, scales: Any, state: Any, buf: Any) -> bool:
    """Read plain decimals, one a line, until the bytes end or one is not plain.

    Args:
        mantissas: int64[n], filled from `state[ROWS]` on.
        scales: uint8[n] beside it.
        state: int64[STATE_WORDS], moved on; at an odd one `POSITION` is its first byte.
        buf: uint8[bytes], each number followed by a newline.

    Returns:
        True where it stopped before a number it does not take.

    """
    pos = state[POSITION]
    row = state[ROWS]
    size = buf.shape[0]
    while pos < size:
        mantissa, scale, end = _decimal(buf, pos)
        if end < 0 or buf[end] != _NEWLINE:
            state[POSITION] = pos
            state[ROWS] = row
            return True
        mantissas[row] = mantissa
        scales[row] = scale
        pos = end + 1
        row += 1
    state[POSITION] = pos
    state[ROWS] = row
    return False


@_compiled
def parse_klines(times: Any, wholes: Any, fractions: Any, digits: Any, state: Any, buf: Any) -> bool:
    """Read plain rows of klines (12 columns) until the bytes end, the arrays are full, or a row is not plain.

    Args:
        times: int64[n, 3]: open time (ms), close time (ms) and the count of trades.
        wholes: int64[n, 8]: the whole part of open, high, low, close, volume, quote volume, taker-buy volume and
            taker-buy quote volume.
        fractions: int64[n, 8]: their fractions as integers, without trailing zeros.
        digits: uint8[n, 8]: how many digits those fractions have.
        state: int64[STATE_WORDS], moved on; at an odd row `POSITION` is its first byte.
        buf: uint8[bytes], whole lines, the last byte a newline.

    Returns:
        True where it stopped before a row it does not take.

    """
    pos = state[POSITION]
    row = state[ROWS]
    size = buf.shape[0]
    while pos < size and row < times.shape[0]:
        start = pos
        if buf[pos] == _NEWLINE:
            pos += 1
            state[LINES] += 1
            state[POSITION] = pos
            continue
        number = 0
        for column in range(12):
            if column == 0 or column == 6 or column == 8:
                value, pos = _integer(buf, pos)
                if pos >= 0 and column != 8:
                    value = _time_ms(value)
                    if value < 0:
                        pos = -1
                times[row, 0 if column == 0 else (1 if column == 6 else 2)] = value
            elif column == 11:
                pos = _skip(buf, pos)
            else:
                whole, pos = _integer(buf, pos)
                fraction = 0
                count = 0
                if pos >= 0 and buf[pos] == _POINT:
                    point = pos
                    fraction, count, pos = _decimal_fraction(buf, pos + 1)
                    if pos - point - 1 > _MAX_DIGITS:
                        pos = -1
                wholes[row, number] = whole
                fractions[row, number] = fraction
                digits[row, number] = count
                number += 1
            if pos < 0:
                break
            if column < 11:
                if buf[pos] != _COMMA:
                    pos = -1
                    break
                pos += 1
        if pos >= 0 and buf[pos] == _RETURN:
            pos += 1
        if pos < 0 or buf[pos] != _NEWLINE:
            state[POSITION] = start
            state[ROWS] = row
            return True
        pos += 1
        row += 1
        state[LINES] += 1
        state[POSITION] = pos
    state[ROWS] = row
    return False


@_compiled
def _decimal_fraction(buf: Any, pos: Any) -> Any:
    """The digits after a point: (value without trailing zeros, how many digits that are, position after all)."""
    first = pos
    value = 0
    count = 0
    zeros = 0
    while True:
        digit = buf[pos] - _ZERO
        if digit > 9 or digit < 0:
            break
        pos += 1
        if digit == 0:
            zeros += 1
            continue
        while zeros:
            value *= 10
            zeros -= 1
        value = value * 10 + digit
        count = pos - first
    return value, count, pos
