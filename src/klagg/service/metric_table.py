"""The metrics of a running service: name, kind, labels and help. docs/METRICS.md has the same, which a test holds."""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric; `labels` come after `market`, which all but `klagg_build_info` have."""

    kind: Literal["gauge", "counter", "summary"]
    help: str
    labels: tuple[str, ...] = ()


def _gauge(text: str, *labels: str) -> Spec:
    return Spec("gauge", text, labels)


def _counter(text: str, *labels: str) -> Spec:
    return Spec("counter", text, labels)


METRICS: Final = {
    "klagg_live": _gauge("1 while the market is live: everything up to its boundary is closed, and trades flow"),
    "klagg_history_ready": _gauge("1 when the configured depth of history is there"),
    "klagg_history_days": _gauge("days of symbols of the history's backfill under way"),
    "klagg_history_done_days": _gauge("days of symbols of it that are done"),
    "klagg_history_left_seconds": _gauge("how long it will take yet"),
    "klagg_symbols": _gauge("symbols whose candles are made"),
    "klagg_boundary_timestamp_seconds": _gauge("the boundary up to which every worker has closed its candles"),
    "klagg_closed_minutes_total": _counter("minute boundaries closed since the start"),
    "klagg_tick_lag_seconds": _gauge("how long after the newest boundary its minutes were closed", "worker"),
    "klagg_tick_margin_seconds": _gauge("how long a tick waits after its boundary"),
    "klagg_durable_timestamp_seconds": _gauge("the boundary that is durable", "worker"),
    "klagg_write_lag_seconds": _gauge("how long after the newest durable boundary its commit was through", "worker"),
    "klagg_write_failing_seconds": _gauge("for how long the database has not taken commits, 0 if it does", "worker"),
    "klagg_commit_seconds": Spec("summary", "time that commits took in the database", ("worker",)),
    "klagg_written_candles_total": _counter("candles that commits have written", "worker"),
    "klagg_waiting_candles": _gauge("candles that wait for the database", "worker"),
    "klagg_waiting_bytes": _gauge("memory that they take", "worker"),
    "klagg_candles": _gauge("closed candles in the database", "origin", "verified"),
    "klagg_last_hour_minutes": _gauge("closed minutes of the hour before the boundary, by how they stand", "state"),
    "klagg_verified_minutes_total": _counter("minutes seen to be equal to the exchange's", "by"),
    "klagg_completed_minutes_total": _counter("minutes known to be incomplete that a closing push completed"),
    "klagg_differences_total": _counter("candles that evidence called whole and the exchange has otherwise", "source"),
    "klagg_unverified_candles": _gauge("candles in the repair queue", "urgency"),
    "klagg_repair_pending_candles": _gauge("urgent candles in the repairer's last plan and on their way"),
    "klagg_repaired_candles_total": _counter("candles replaced by the exchange's"),
    "klagg_unmatched_candles_total": _counter("candles found to have no match at the exchange"),
    "klagg_repair_requests_total": _counter("requests of the repairer"),
    "klagg_repair_refused_total": _counter("requests of the repairer that the exchange refused"),
    "klagg_repair_dropped_total": _counter("spans that the repairer was asked for and had no room for"),
    "klagg_gaps": _gauge("gaps on record, by what became of them", "state"),
    "klagg_messages_received_total": _counter("messages of the streams", "worker"),
    "klagg_messages_dropped_total": _counter("messages dropped because the inbox was full", "worker"),
    "klagg_rejected_messages_total": _counter("messages rejected", "reason"),
    "klagg_trades_total": _counter("trades by what became of them", "outcome"),
    "klagg_id_holes_total": _counter("holes in the ids of trades that late arrivals did not fill"),
    "klagg_renumberings_total": _counter("new numberings of a symbol's trades"),
    "klagg_pushes_dropped_total": _counter("closing pushes dropped for want of room"),
    "klagg_folds_dropped_total": _counter("minutes whose longer candles were left to the repairer for want of room"),
    "klagg_lane_symbols": _gauge("symbols of a connection", "lane"),
    "klagg_lane_symbols_in_sight": _gauge("symbols of a connection whose data flow", "lane"),
    "klagg_lane_feed_age_seconds": _gauge("how long ago a connection brought data", "lane"),
    "klagg_lane_messages_total": _counter("messages of a connection", "lane"),
    "klagg_lane_reconnects_total": _counter("connections that were lost and opened again", "lane"),
    "klagg_lane_renewals_total": _counter("connections replaced before the end of their life", "lane"),
    "klagg_clock_offset_seconds": _gauge("how far the exchange's time is ahead of the host's"),
    "klagg_clock_uncertainty_seconds": _gauge("how far the exchange's time may be off"),
    "klagg_clock_calibration_age_seconds": _gauge("how long ago the exchange's time was confirmed"),
    "klagg_weight_used": _gauge("request weight used in the running minute"),
    "klagg_weight_limit": _gauge("request weight that the exchange allows in a minute"),
    "klagg_weight_share": _gauge("weight in a minute up to which requests of a purpose are sent", "purpose"),
    "klagg_weight_shared": _gauge("1 while other processes on the database are heeded"),
    "klagg_weight_banned_seconds": _gauge("for how long the exchange refuses everything, 0 if it does not"),
    "klagg_audit_candles_total": _counter("candles that the audit compared or missed, by result", "result"),
    "klagg_audit_repaired_total": _counter("candles that the audit has repaired"),
    "klagg_audit_timestamp_seconds": _gauge("when the audit last compared anything, 0 for never"),
    "klagg_notes_total": _counter("things worth telling a person, by event of the log", "event"),
    "klagg_build_info": _gauge("1; version and python as labels", "version", "python"),
}
