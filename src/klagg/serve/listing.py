"""The symbol list as the exchange gives it (exchangeInfo): what klagg keeps, with the filters that the exchange told.

Where a database was made before klagg kept filters, they are made of the instrument's scales.
"""

from collections.abc import Iterable
from typing import Any, Final

from klagg.model import Instrument, Market, Status
from klagg.serve.digits import Digits, decimal
from klagg.serve.source import Listing

WEIGHT_PER_MINUTE: Final = {Market.SPOT: 6_000, Market.USDM: 2_400}
"""The request weight of a minute that clients are told, which is the exchange's: they pace themselves by it."""
PERPETUAL_DELIVERY_MS: Final = 4_133_404_800_000
_STATUS: Final = {
    Market.SPOT: {Status.PENDING: "PRE_TRADING", Status.HALTED: "HALT", Status.RETIRED: "BREAK"},
    Market.USDM: {Status.PENDING: "PENDING_TRADING", Status.HALTED: "PENDING_TRADING", Status.RETIRED: "SETTLING"},
}


def exchange_info(market: Market, listings: Iterable[Listing], now_ms: int, unit: int = 1) -> dict[str, Any]:
    """The body of exchangeInfo."""
    spot = market is Market.SPOT
    info: dict[str, Any] = {"timezone": "UTC", "serverTime": now_ms * unit}
    if not spot:
        info["futuresType"] = "U_MARGINED"
    limits = [_limit("REQUEST_WEIGHT", "MINUTE", 1, WEIGHT_PER_MINUTE[market])]
    if spot:
        limits += [_limit("ORDERS", "SECOND", 10, 100), _limit("ORDERS", "DAY", 1, 200_000)]
        limits += [_limit("RAW_REQUESTS", "MINUTE", 5, 300_000)]
    else:
        limits += [_limit("ORDERS", "MINUTE", 1, 1_200), _limit("ORDERS", "SECOND", 10, 300)]
    info |= {"rateLimits": limits, "exchangeFilters": []}
    listed = list(listings)
    if not spot:
        assets = dict.fromkeys(_margin_asset(one.instrument) for one in listed)
        info["assets"] = [
            {"asset": asset, "marginAvailable": True, "autoAssetExchange": "-100"} for asset in assets if asset
        ]
    info["symbols"] = [_spot_symbol(one) if spot else _futures_symbol(one) for one in listed]
    return info


def native_status(one: Listing) -> str:
    """The exchange's word for what a symbol is doing."""
    status = Status.RETIRED if one.retired_ms is not None else one.instrument.status
    if status is one.instrument.status and one.instrument.native_status:
        return one.instrument.native_status
    return _STATUS[one.instrument.market].get(status, "TRADING")


def is_trading(one: Listing) -> bool:
    """Whether the exchange's lists of trading symbols have it."""
    return native_status(one) == "TRADING"


def _limit(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _margin_asset(instrument: Instrument) -> str:
    return str(instrument.extra.get("margin_asset") or instrument.quote)


def _filters(instrument: Instrument) -> list[dict[str, Any]]:
    told = instrument.extra.get("filters")
    if told:
        return list(told)
    digits = Digits.of(instrument)
    tick = decimal(1, instrument.price_scale, digits.price)
    step = decimal(1, instrument.qty_scale, digits.qty)
    grids = [{"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000", "tickSize": tick}]
    lot = {"minQty": step, "maxQty": "9000000", "stepSize": step}
    return [*grids, {"filterType": "LOT_SIZE", **lot}, {"filterType": "MARKET_LOT_SIZE", **lot}]


def _spot_symbol(one: Listing) -> dict[str, Any]:
    instrument, status = one.instrument, native_status(one)
    return {
        "symbol": instrument.symbol,
        "status": status,
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": _filters(instrument),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"],
    }


def _futures_symbol(one: Listing) -> dict[str, Any]:
    instrument = one.instrument
    digits, extra = Digits.of(instrument), instrument.extra
    underlying = str(extra.get("underlying_type") or "COIN")
    return {
        "symbol": instrument.symbol,
        "pair": instrument.base + instrument.quote,
        "contractType": extra.get("contract_type") or "PERPETUAL",
        "deliveryDate": extra.get("delivery_ms") or PERPETUAL_DELIVERY_MS,
        "onboardDate": instrument.listed_ms,
        "status": native_status(one),
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": instrument.base,
        "quoteAsset": instrument.quote,
        "marginAsset": _margin_asset(instrument),
        "pricePrecision": digits.price,
        "quantityPrecision": digits.qty,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": underlying,
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10_000,
        "filters": _filters(instrument),
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }
