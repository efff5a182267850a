// The feed: one connection that comes back by itself and goes on where it was. WebSocket, or where that cannot be opened while
// klagg answers (a proxy that does not pass it), server-sent events.

import type { FeedEvent } from "./wire";

/** klagg beats every 5 s: a connection that is silent for longer than two beats and a half is dead, whatever the socket says. */
const SILENCE_MS = 12_500;
const RETRY_MS = [250, 500, 1_000, 2_000, 4_000];
/** So many WebSockets that never said a word before server-sent events are tried. */
const SOCKETS_BEFORE_SSE = 2;
/** klagg closes a connection that says more than ten things a second. */
const OPEN_EVERY_MS = 250;

export interface Interest {
  readonly market: string;
  /** Of whose closed candles every event is told, with the candle. */
  readonly symbols: readonly string[];
  readonly intervals: readonly string[];
}

/** Whose running candles are pushed. */
export interface OpenInterest {
  readonly symbols: readonly string[];
  readonly intervals: readonly string[];
}

export interface FeedListener {
  /** Any event of the feed, in order; the control events (hello, beat, cut) too. */
  event(event: FeedEvent): void;
  /** Whether the connection stands has changed. */
  connected(yes: boolean): void;
}

interface Pipe {
  send(text: string): void;
  close(): void;
}

export class Feed {
  private pipe: Pipe | null = null;
  private heardAt = 0;
  private tries = 0;
  private mute = 0;
  private since: number | undefined;
  private interest: Interest | null = null;
  private open: OpenInterest = { symbols: [], intervals: [] };
  private timer: number | undefined;
  private openTimer: number | undefined;
  /** Each connection has a number: what an earlier one still says is not listened to. */
  private turn = 0;

  constructor(private readonly listener: FeedListener) {
    window.setInterval(() => this.watch(), 1_000);
    window.addEventListener("online", () => this.reconnect(0));
  }

  /** The sequence number to resume from. */
  get seq(): number | undefined {
    return this.since;
  }

  /** Follow this from now on; the connection is made anew and nothing in between is lost. */
  follow(interest: Interest, open: OpenInterest): void {
    if (this.interest?.market !== interest.market) this.since = undefined;
    this.interest = interest;
    this.open = open;
    this.reconnect(0);
  }

  /** Other running candles from now on; who scrolls is not told of at every frame. */
  followOpen(open: OpenInterest): void {
    this.open = open;
    this.openTimer ??= window.setTimeout(() => {
      this.openTimer = undefined;
      this.tellOpen();
    }, OPEN_EVERY_MS);
  }

  private tellOpen(): void {
    this.pipe?.send(JSON.stringify({ subscribe: { ...this.open, open: true } }));
  }

  private watch(): void {
    if (this.pipe && performance.now() - this.heardAt > SILENCE_MS) this.lost(this.turn);
  }

  private reconnect(delayMs: number): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.connect(), delayMs);
  }

  private connect(): void {
    if (!this.interest) return;
    this.pipe?.close();
    const turn = ++this.turn;
    this.heardAt = performance.now();
    this.mute += 1;
    this.pipe = this.mute > SOCKETS_BEFORE_SSE ? this.openSse(turn) : this.openSocket(turn);
  }

  private query(): string {
    const { market, symbols, intervals } = this.interest as Interest;
    const query = new URLSearchParams({ market, candles: "true", open: "true" });
    query.set("symbols", symbols.join(","));
    query.set("intervals", intervals.join(","));
    if (this.since !== undefined) query.set("since", String(this.since));
    return query.toString();
  }

  private openSocket(turn: number): Pipe {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/v1/feed?${this.query()}`);
    socket.onmessage = (message) => this.heard(turn, message.data as string);
    socket.onclose = () => this.lost(turn);
    return {
      send: (text) => {
        if (socket.readyState === WebSocket.OPEN) socket.send(text);
      },
      close: () => {
        // Closed before it is open, a socket is an error on the console: it is let open first.
        if (socket.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close();
        else socket.close();
      },
    };
  }

  private openSse(turn: number): Pipe {
    const source = new EventSource(`/v1/feed?${this.query()}`);
    source.onmessage = (message) => this.heard(turn, message.data as string);
    source.onerror = () => this.lost(turn);
    return { send: () => undefined, close: () => source.close() };
  }

  private heard(turn: number, text: string): void {
    if (turn !== this.turn) return;
    this.heardAt = performance.now();
    let told: FeedEvent | readonly FeedEvent[];
    try {
      told = JSON.parse(text) as FeedEvent | readonly FeedEvent[];
    } catch {
      return;
    }
    for (const event of Array.isArray(told) ? told : [told as FeedEvent]) this.take(event);
  }

  private take(event: FeedEvent): void {
    if (event.kind === "hello") {
      this.tries = 0;
      this.mute = 0;
      // A newest number below ours: another database than before.
      if (this.since === undefined || (event.seq ?? 0) < this.since) this.since = event.seq;
      this.tellOpen();
      this.listener.connected(true);
    } else if (event.kind === "cut") {
      this.since = event.reason === "too slow" ? event.from_seq : event.to_seq;
    } else if (event.kind === "beat") {
      // It tells up to where nothing more that is wanted has happened.
      if (event.seq !== undefined && this.since !== undefined) this.since = Math.max(this.since, event.seq);
    } else if (event.seq !== undefined) {
      // At least once: what was heard already is not told again.
      if (this.since !== undefined && event.seq <= this.since) return;
      this.since = event.seq;
    }
    this.listener.event(event);
  }

  private lost(turn: number): void {
    if (turn !== this.turn) return;
    this.turn += 1;
    this.pipe?.close();
    this.pipe = null;
    this.listener.connected(false);
    const delay = RETRY_MS[Math.min(this.tries, RETRY_MS.length - 1)] as number;
    this.tries += 1;
    // A little apart, so that many pages do not all come at once after a restart.
    this.reconnect(delay * (0.75 + Math.random() / 2));
  }
}
