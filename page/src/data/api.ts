// Questions to klagg, typed. Every one is bounded in time, so that a connection that hangs shows as one.

import type { CandleHistory, CandlesAnswer, EventsAnswer, Minute, Ops, Overview, Status, SymbolRow } from "./wire";

const TIMEOUT_MS = 15_000;

/** An answer that is not the one asked for; `message` is klagg's own. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

type Parameters = Readonly<Record<string, string | number | undefined>>;

async function ask<T>(path: string, parameters: Parameters, signal?: AbortSignal): Promise<T> {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) query.set(name, String(value));
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  const answer = await fetch(`/v1/${path}?${query}`, {
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
    headers: { accept: "application/json" },
    cache: "no-store",
  });
  if (!answer.ok) {
    const told = (await answer.json().catch(() => null)) as { error?: { message?: string } } | null;
    throw new Refused(answer.status, told?.error?.message ?? `${answer.status} ${answer.statusText}`);
  }
  return (await answer.json()) as T;
}

export const candles = (
  market: string,
  symbol: string,
  interval: string,
  limit: number,
  end: number | undefined,
  signal?: AbortSignal,
): Promise<CandlesAnswer> =>
  ask(
    "candles",
    { market, symbols: symbol, intervals: interval, limit, end, open: end === undefined ? "include" : "exclude" },
    signal,
  );

export const candle = (market: string, symbol: string, interval: string, openMs: number): Promise<CandleHistory> =>
  ask("candle", { market, symbol, interval, open_time: openMs });

export const symbols = async (market: string): Promise<readonly SymbolRow[]> =>
  (await ask<{ symbols: readonly SymbolRow[] }>("symbols", { market })).symbols;

export const overview = (market: string): Promise<Overview> => ask("overview", { market });

export const minutes = async (market: string, count: number): Promise<readonly Minute[]> =>
  (await ask<{ minutes: readonly Minute[] }>("minutes", { market, minutes: count })).minutes;

export const status = (): Promise<Status> => ask("status", {});

export const ops = (market: string): Promise<Ops> => ask("ops", { market });

export const events = (market: string, since: number, kinds: string, limit: number): Promise<EventsAnswer> =>
  ask("events", { market, since, kinds, limit });
