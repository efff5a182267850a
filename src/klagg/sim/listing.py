"""The exchange's symbol list (exchangeInfo) and its contract events, as JSON-ready objects."""

from typing import Any, Final

from klagg.sim.contracts import PERPETUAL_DELIVERY_MS, Contract
from klagg.sim.settings import ExchangeSettings
from klagg.sim.wire import Scribe

ANNOUNCED_MS: Final = 3_600_000
"""A delisting is in the symbol list (as the delivery date) this long before it."""
WEIGHT_LIMIT: Final = {"usdm": 2_400, "spot": 6_000}


def weight_limit(settings: ExchangeSettings) -> int:
    """The request weight of a minute."""
    return settings.own(settings.weight_limit, WEIGHT_LIMIT["usdm"], WEIGHT_LIMIT["spot"])


def status_of(contract: Contract, now_ms: int, *, spot: bool) -> str:
    """The exchange's own word for what the contract is doing."""
    retired = contract.retired_ms is not None and now_ms >= contract.retired_ms
    if contract.status is not None and retired:
        return contract.status
    for start_ms, end_ms, status in contract.pauses:
        if start_ms <= now_ms < end_ms and not retired:
            return status
    if now_ms < contract.listed_ms:
        return "PENDING_TRADING"
    if retired:
        return "BREAK" if spot else "SETTLING"
    return "TRADING"


def visible(contract: Contract, now_ms: int) -> bool:
    """Whether the symbol list has it."""
    return now_ms >= contract.visible_from_ms


def exchange_info(contracts: list[Contract], settings: ExchangeSettings, now_ms: int, unit: int = 1) -> dict[str, Any]:
    """The body of exchangeInfo."""
    spot = settings.is_spot
    limits = [_limit("REQUEST_WEIGHT", "MINUTE", 1, weight_limit(settings))]
    if spot:
        limits += [_limit("ORDERS", "SECOND", 10, 100), _limit("ORDERS", "DAY", 1, 200_000)]
        limits += [_limit("RAW_REQUESTS", "MINUTE", 5, 300_000)]
    else:
        limits += [_limit("ORDERS", "MINUTE", 1, 1_200), _limit("ORDERS", "SECOND", 10, 300)]
    info: dict[str, Any] = {"timezone": "UTC", "serverTime": now_ms * unit}
    if not spot:
        info["futuresType"] = "U_MARGINED"
        # The futures' list is served from a cache: its serverTime is old.
        info["serverTime"] = now_ms // 60_000 * 60_000 - 30_000
    info |= {"rateLimits": limits, "exchangeFilters": []}
    if not spot:
        info["assets"] = [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-100"}]
    describe = _spot_symbol if spot else _futures_symbol
    info["symbols"] = [describe(contract, now_ms) for contract in contracts if visible(contract, now_ms)]
    return info


def contract_event(contract: Contract, now_ms: int) -> dict[str, Any]:
    """The futures' `contractInfo` event."""
    return {
        "e": "contractInfo",
        "E": now_ms,
        "s": contract.symbol,
        "ps": contract.base + contract.quote,
        "ct": contract.contract_type,
        "dt": _delivery_ms(contract, now_ms),
        "ot": contract.listed_ms,
        "cs": status_of(contract, now_ms, spot=False),
        "bks": [],
        "st": 1,
    }


def _limit(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _delivery_ms(contract: Contract, now_ms: int) -> int:
    if contract.retired_ms is None:
        return PERPETUAL_DELIVERY_MS
    dated = contract.contract_type not in ("PERPETUAL", "TRADIFI_PERPETUAL")
    return contract.retired_ms if dated or now_ms >= contract.retired_ms - ANNOUNCED_MS else PERPETUAL_DELIVERY_MS


def _price_filter(contract: Contract, scribe: Scribe, now_ms: int) -> dict[str, str]:
    tick, _ = contract.grid_at(now_ms)
    return {
        "filterType": "PRICE_FILTER",
        "maxPrice": scribe.price(tick * 10**7),
        "minPrice": scribe.price(tick),
        "tickSize": scribe.price(tick),
    }


def _lot(kind: str, contract: Contract, scribe: Scribe, now_ms: int) -> dict[str, str]:
    _, step = contract.grid_at(now_ms)
    return {
        "filterType": kind,
        "maxQty": scribe.qty(step * 10**7),
        "minQty": scribe.qty(step),
        "stepSize": scribe.qty(step),
    }


def _futures_symbol(contract: Contract, now_ms: int) -> dict[str, Any]:
    scribe = Scribe(contract, spot=False)
    tradifi = contract.contract_type == "TRADIFI_PERPETUAL"
    return {
        "symbol": contract.symbol,
        "pair": contract.base + contract.quote,
        "contractType": contract.contract_type,
        "deliveryDate": _delivery_ms(contract, now_ms),
        "onboardDate": contract.listed_ms,
        "status": status_of(contract, now_ms, spot=False),
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": contract.base,
        "quoteAsset": contract.quote,
        "marginAsset": contract.quote,
        "pricePrecision": contract.price_decimals,
        "quantityPrecision": contract.qty_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "EQUITY" if tradifi else "COIN",
        "underlyingSubType": ["TradFi"] if tradifi else ["PoW"],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10_000,
        "filters": [
            _price_filter(contract, scribe, now_ms),
            _lot("LOT_SIZE", contract, scribe, now_ms),
            _lot("MARKET_LOT_SIZE", contract, scribe, now_ms),
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierDown": "0.9500",
                "multiplierUp": "1.0500",
                "multiplierDecimal": "4",
            },
            {"filterType": "POSITION_RISK_CONTROL", "positionControlSide": "NONE", "notionalLimit": None},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD", "RPI"],
        "permissionSets": ["GRID", "COPY"],
        "fieldOfTomorrow": {"anything": [1, None, "x"]},
    }


def _spot_symbol(contract: Contract, now_ms: int) -> dict[str, Any]:
    scribe = Scribe(contract, spot=True)
    return {
        "symbol": contract.symbol,
        "status": status_of(contract, now_ms, spot=True),
        "baseAsset": contract.base,
        "baseAssetPrecision": 8,
        "quoteAsset": contract.quote,
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
        "filters": [
            _price_filter(contract, scribe, now_ms),
            _lot("LOT_SIZE", contract, scribe, now_ms),
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": "0.00000000",
                "maxQty": scribe.qty(contract.step * 10**6),
                "stepSize": "0.00000000",
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": "5.00000000",
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        ],
        "permissions": [],
        "permissionSets": [["SPOT", "TRD_GRP_004"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"],
        "fieldOfTomorrow": {"anything": [1, None, "x"]},
    }
