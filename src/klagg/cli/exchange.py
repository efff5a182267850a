"""`klagg exchange`."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from klagg.cli.options import Common, Markets, list_option, load_settings
from klagg.errors import UsageError

if TYPE_CHECKING:
    from klagg.sim import ExchangeSettings

DEFAULT_PORT = 8421


def exchange(
    *,
    port: Annotated[int, Parameter(help="The port on 127.0.0.1; 0 takes a free one.")] = DEFAULT_PORT,
    market: Markets = None,
    symbols: Annotated[int, Parameter(help="How many symbols are trading.")] = 40,
    seed: Annotated[int, Parameter(help="The seed: the same one makes the same trades.")] = 1,
    rate: Annotated[float, Parameter(help="Multiplier of all trade rates.")] = 1.0,
    history: Annotated[str, Parameter(help="How far back trades exist at the start.")] = "2d",
    speed: Annotated[float, Parameter(help="Market time runs this much faster (klagg run --clock-speed).")] = 1.0,
    replay: Annotated[
        list[Path] | None, list_option("--replay", help="Recordings whose trades are served instead of a made market.")
    ] = None,
    faults: Annotated[
        Path | None,
        Parameter(
            help="A TOML file of faults to play (docs/EXCHANGE.md); how often each struck is printed at the end."
        ),
    ] = None,
    common: Common | None = None,
) -> int:
    """Run the offline exchange: Binance's REST and WebSocket market data for a market made from a seed.

    Prints its addresses on stdout and runs until Ctrl-C or SIGTERM.
    """
    if not 0 <= port <= 65_535:
        raise UsageError(f"--port {port}: write a number from 0 to 65535")
    settings = load_settings(common, market=market)
    from klagg.config import parse_duration_ms
    from klagg.sim import ExchangeSettings, load_faults

    played = () if faults is None else load_faults(faults)
    asyncio.run(
        _serve(
            port,
            [
                ExchangeSettings(
                    market=each,
                    symbols=symbols,
                    seed=seed,
                    rate=rate,
                    history_ms=parse_duration_ms(history),
                    speed=speed,
                    replay=_existing(replay or []),
                    faults=played,
                )
                for each in settings.markets
            ],
        )
    )
    return 0


def _existing(files: list[Path]) -> tuple[Path, ...]:
    for file in files:
        if not file.is_file():
            raise UsageError(f"--replay {file}: there is no such file")
    return tuple(files)


async def _serve(port: int, settings: "list[ExchangeSettings]") -> None:
    from klagg.sim import OfflineExchange

    offline = OfflineExchange(*settings)
    await offline.start(port=port)
    try:
        print(f"rest {offline.rest_url}\nws {offline.ws_url}", flush=True)
        print(_run_line(settings, offline.rest_url, offline.ws_url), file=sys.stderr)
        await _until_stopped()
    finally:
        await offline.stop()
        for each in settings:
            for kind, count in offline.played(each.market).items():
                print(f"klagg: {each.market} fault {kind} struck {count} times", file=sys.stderr)


def _run_line(settings: "list[ExchangeSettings]", rest_url: str, ws_url: str) -> str:
    """The command that runs the service against it."""
    markets = [each.market.value for each in settings]
    speed = f" --clock-speed {settings[0].speed:g}" if settings[0].speed != 1 else ""
    if len(markets) == 1:
        return f"klagg: run klagg against it: klagg run --market {markets[0]} --rest-url {rest_url} --ws-url {ws_url}{speed}"
    rest = " ".join(f"--rest-url {market}={rest_url}" for market in markets)
    ws = " ".join(f"--ws-url {market}={ws_url}" for market in markets)
    return f"klagg: run klagg against it: klagg run --market {','.join(markets)} {rest} {ws}{speed}"


async def _until_stopped() -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
