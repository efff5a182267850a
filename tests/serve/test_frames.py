"""Frames against an implementation that others wrote: `websockets`, on whose client side the tests stand."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode as Their
from websockets.streams import StreamReader

from klagg.serve.frames import (
    MAX_MESSAGE,
    CloseCode,
    Message,
    Opcode,
    ProtocolError,
    Reader,
    accept_token,
    close_frame,
    frame,
)

PAYLOADS = st.one_of(st.binary(max_size=200), st.integers(65_530, 65_540).map(lambda size: b"klagg" * (size // 5)))


def masked(opcode: Their, payload: bytes, *, fin: bool = True) -> bytes:
    return TheirFrame(opcode, payload, fin=fin).serialize(mask=True)


def parsed(data: bytes) -> TheirFrame:
    reader = StreamReader()
    reader.feed_data(data)
    parser = TheirFrame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as stopped:
        next(parser)
    return stopped.value.value


@given(PAYLOADS, st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
def test_what_is_written_is_read_by_others(payload: bytes, opcode: Opcode) -> None:
    read = parsed(frame(payload, opcode))
    assert (read.data, read.opcode, read.fin) == (payload, int(opcode), True)


@given(
    st.lists(st.tuples(st.sampled_from([Their.TEXT, Their.PING, Their.BINARY]), st.binary(max_size=125)), max_size=6),
    st.integers(),
)
def test_messages_arrive_however_the_bytes_are_cut(sent: list[tuple[Their, bytes]], seed: int) -> None:
    data = b"".join(masked(opcode, payload) for opcode, payload in sent)
    reader, chance, found = Reader(), random.Random(seed), []
    while data:
        size = chance.randint(1, 40)
        found += reader.feed(data[:size])
        data = data[size:]
    assert found == [Message(Opcode(int(opcode)), payload) for opcode, payload in sent]


def test_fragments_are_put_together_around_a_ping() -> None:
    data = masked(Their.TEXT, b"ab", fin=False) + masked(Their.PING, b"!") + masked(Their.CONT, b"cd")
    assert list(Reader().feed(data)) == [Message(Opcode.PING, b"!"), Message(Opcode.TEXT, b"abcd")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (TheirFrame(Their.TEXT, b"x").serialize(mask=False), CloseCode.PROTOCOL_ERROR),
        (b"\xf1\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),
        (b"\x83\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),
        (masked(Their.CONT, b"x"), CloseCode.PROTOCOL_ERROR),
        (masked(Their.TEXT, b"x", fin=False) + masked(Their.TEXT, b"y"), CloseCode.PROTOCOL_ERROR),
        (b"\x89\xfe\x00\x7e", CloseCode.PROTOCOL_ERROR),
        (b"\x81\xff" + (MAX_MESSAGE + 1).to_bytes(8, "big"), CloseCode.TOO_BIG),
        (b"\x81\xff" + (2**62).to_bytes(8, "big"), CloseCode.TOO_BIG),
        (masked(Their.TEXT, b"x" * MAX_MESSAGE, fin=False) + masked(Their.CONT, b"y"), CloseCode.TOO_BIG),
    ],
    # Masks are drawn anew each time; the tests' names must not be.
    ids=(
        "unmasked",
        "reserved bits",
        "opcode",
        "continues nothing",
        "interrupted",
        "long ping",
        "big",
        "huge",
        "big in parts",
    ),
)
def test_what_breaks_the_protocol_is_refused(data: bytes, code: CloseCode) -> None:
    with pytest.raises(ProtocolError) as raised:
        list(Reader().feed(data))
    assert raised.value.code is code


def test_a_close_frame_tells_code_and_reason() -> None:
    read = parsed(close_frame(CloseCode.POLICY, "Reads too slowly"))
    assert (read.opcode, read.data) == (Their.CLOSE, b"\x03\xf0Reads too slowly")
    assert len(parsed(close_frame(CloseCode.POLICY, "x" * 300)).data) <= 125


def test_the_handshake_of_the_standard() -> None:
    assert accept_token("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert accept_token("short") is None
    assert accept_token("!" * 24) is None
