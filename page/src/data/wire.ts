// The native API's answers, as far as the page reads them: times are milliseconds UTC, decimals are strings.

export type Origin = "filled" | "seed" | "partial" | "flat" | "trades" | "exchange" | "unmatched";

export interface Candle {
  readonly market: string;
  readonly symbol: string;
  readonly interval: string;
  readonly open_time_ms: number;
  readonly close_time_ms: number;
  readonly open: string;
  readonly high: string;
  readonly low: string;
  readonly close: string;
  readonly volume: string;
  readonly quote_volume: string;
  readonly trades: number;
  readonly taker_buy_volume: string;
  readonly taker_buy_quote_volume: string;
  readonly first_trade_id: number | null;
  readonly last_trade_id: number | null;
  readonly closed: boolean;
  /** Null while it runs: it is decided when the candle closes. */
  readonly origin: Origin | null;
  readonly verified: boolean;
  readonly revision: number;
  readonly known_ms: number | null;
}

export interface CandlesAnswer {
  readonly meta: { readonly now_ms: number; readonly truncated: boolean };
  readonly candles: readonly Candle[];
}

export interface CandleHistory extends Candle {
  readonly history: readonly Partial<Candle>[];
}

export interface SymbolRow {
  readonly symbol: string;
  readonly status: string;
  readonly price_scale: number;
  readonly qty_scale: number;
}

export interface OverviewRow {
  readonly symbol: string;
  readonly status: string;
  readonly last: string | null;
  readonly change_24h_pct: number | null;
  readonly quote_volume_24h: string | null;
  readonly spark: readonly number[];
  readonly pending: number;
  readonly origin: Origin | null;
  readonly last_minute_ms: number | null;
}

export interface Overview {
  readonly market: string;
  readonly now_ms: number;
  readonly symbols: readonly OverviewRow[];
}

export interface Minute {
  readonly open_time_ms: number;
  readonly symbols: number;
  readonly verified: number;
  readonly pending: number;
  readonly gap: number;
  readonly pending_symbols: readonly string[];
  readonly gap_symbols: readonly string[];
}

export interface Connection {
  readonly name: string;
  readonly feed_age_ms: number | null;
  readonly reconnects: number;
  readonly last_trouble: string | null;
}

export interface MarketStatus {
  readonly market: string;
  readonly phase: string;
  readonly symbols: number;
  readonly boundary_ms: number | null;
  readonly durable_ms: number | null;
  readonly closed_lag_ms: number | null;
  readonly durable_lag_ms: number | null;
  readonly verified_share: number | null;
  readonly pending: number | null;
  readonly next_tick_ms: number | null;
  readonly offset_ms: number | null;
  readonly uncertainty_ms: number | null;
  readonly tick_lag_p99_ms: number | null;
  readonly trades_per_s: number | null;
  readonly connections: readonly Connection[];
  readonly weight_used: number | null;
  readonly weight_limit: number | null;
  readonly write_p99_ms: number | null;
  readonly repair_eta_s: number | null;
  readonly history_progress: { readonly done: number; readonly total: number; readonly left_s: number | null } | null;
}

export interface Note {
  readonly at_ms: number;
  readonly event: string;
  readonly text: string;
  readonly market: string | null;
}

export interface Status {
  readonly version: string;
  readonly now_ms: number;
  readonly ready: boolean;
  readonly missing: readonly string[];
  readonly markets: readonly MarketStatus[];
  readonly notes: readonly Note[];
}

export interface Ops {
  readonly step_ms: number;
  readonly series: Readonly<Record<string, readonly (number | null)[] | Readonly<Record<string, readonly (number | null)[]>>>>;
}

export interface FeedEvent {
  readonly kind: string;
  readonly seq?: number;
  readonly at_ms?: number;
  readonly market?: string;
  readonly symbol?: string;
  readonly interval?: string;
  readonly candle?: Candle;
  readonly now_ms?: number;
  readonly oldest_seq?: number;
  readonly from_seq?: number;
  readonly to_seq?: number;
  readonly start_ms?: number;
  readonly end_ms?: number;
  readonly reason?: string;
  readonly boundary_ms?: number;
  readonly symbols?: number;
}

export interface EventsAnswer {
  readonly newest_seq: number;
  readonly next_seq: number;
  readonly events: readonly FeedEvent[];
}
