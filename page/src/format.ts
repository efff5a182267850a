// How numbers and times are written. A decimal that klagg sends as text is shown as that text: only what is counted here is rounded.

import { language } from "./words";

export type Zone = "utc" | "local";

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

const two = (n: number): string => String(n).padStart(2, "0");

interface Parts {
  readonly year: number;
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
}

export function partsOf(ms: number, zone: Zone): Parts {
  const date = new Date(ms);
  return zone === "utc"
    ? {
        year: date.getUTCFullYear(),
        month: date.getUTCMonth() + 1,
        day: date.getUTCDate(),
        hour: date.getUTCHours(),
        minute: date.getUTCMinutes(),
        second: date.getUTCSeconds(),
      }
    : {
        year: date.getFullYear(),
        month: date.getMonth() + 1,
        day: date.getDate(),
        hour: date.getHours(),
        minute: date.getMinutes(),
        second: date.getSeconds(),
      };
}

export function clock(ms: number, zone: Zone, seconds = false): string {
  const p = partsOf(ms, zone);
  return `${two(p.hour)}:${two(p.minute)}${seconds ? `:${two(p.second)}` : ""}`;
}

export function day(ms: number, zone: Zone): string {
  const p = partsOf(ms, zone);
  return `${p.year}-${two(p.month)}-${two(p.day)}`;
}

/** A candle's open: days and longer are named by their date alone, where the zone cuts them at midnight. */
export function openTime(ms: number, stepMs: number, zone: Zone): string {
  const time = clock(ms, zone);
  return stepMs >= DAY_MS && time === "00:00" ? day(ms, zone) : `${day(ms, zone)} ${time}`;
}

/** The label of a mark on the time axis; `rank`: 0 year, 1 month, 2 day, 3 and more: time. */
export function axisTime(ms: number, rank: number, zone: Zone): string {
  const p = partsOf(ms, zone);
  const time = `${two(p.hour)}:${two(p.minute)}`;
  if (rank >= 3) return time;
  const date = `${two(p.month)}-${two(p.day)}`;
  if (time !== "00:00") return rank === 2 ? time : `${date}`;
  if (rank === 0 || (p.month === 1 && p.day === 1)) return String(p.year);
  return rank === 1 && p.day === 1 ? `${p.year}-${two(p.month)}` : date;
}

/** A short age or span: `850 ms`, `12 s`, `3 min 5 s`, `2 h 4 min`. */
export function span(ms: number): string {
  const zh = language() === "zh";
  const [s, min, hour] = zh ? [" 秒", " 分", " 小时"] : [" s", " min", " h"];
  if (ms < 1_000) return `${Math.round(ms)} ${zh ? "毫秒" : "ms"}`;
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 60) return `${seconds}${s}`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 && minutes < 10 ? `${minutes}${min} ${seconds % 60}${s}` : `${minutes}${min}`;
  return `${Math.floor(minutes / 60)}${hour}${minutes % 60 ? ` ${minutes % 60}${min}` : ""}`;
}

/** The countdown on the price axis: `0:42`, `12:05`, `3:07:12`, `2d 04:11`. */
export function countdown(ms: number): string {
  const left = Math.max(0, Math.ceil(ms / 1_000));
  const hours = Math.floor(left / 3_600);
  const minutes = Math.floor(left / 60) % 60;
  if (hours >= 24) return `${Math.floor(hours / 24)}d ${two(hours % 24)}:${two(minutes)}`;
  return hours ? `${hours}:${two(minutes)}:${two(left % 60)}` : `${minutes}:${two(left % 60)}`;
}

export const lag = (ms: number | null): string => (ms === null ? "–" : `${ms < 0 ? "−" : "+"}${short(Math.abs(ms))}`);

function short(ms: number): string {
  return ms < 10_000 ? `${Math.round(ms)}ms` : `${Math.round(ms / 1_000)}s`;
}

export function percent(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return "–";
  const sign = value > 0 ? "+" : value < 0 ? "−" : "";
  const size = Math.abs(value);
  return `${sign}${size.toFixed(size < 1_000 ? 2 : 0)}`;
}

/** A share, never rounded up to 100: `99.98%`, and `100%` only where it is. */
export function share(value: number | null): string {
  if (value === null) return "–";
  if (value >= 1) return "100%";
  return `${(Math.floor(value * 10_000) / 100).toFixed(2)}%`;
}

const UNITS: readonly (readonly [number, string])[] = [
  [1e12, "T"],
  [1e9, "B"],
  [1e6, "M"],
  [1e3, "K"],
];

/** Three significant digits and a unit: `1.23B`, `45.6M`, `789`. */
export function brief(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size < 1_000 && Number.isInteger(value)) return String(value);
  for (const [unit, name] of UNITS) if (size >= unit * 0.9995) return digits3(value / unit) + name;
  return size >= 1 || size === 0 ? digits3(value) : value.toPrecision(3);
}

function digits3(value: number): string {
  const size = Math.abs(value);
  return size === 0 ? "0" : value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

export const count = (value: number): string => value.toLocaleString("en-US");

const STEPS: Readonly<Record<string, number>> = { m: MINUTE_MS, h: 60 * MINUTE_MS, d: DAY_MS, w: 7 * DAY_MS, M: 30 * DAY_MS };

/** About how long an interval is; a month counts as 30 days. */
export function stepOf(interval: string): number {
  return Number.parseInt(interval, 10) * (STEPS[interval.slice(-1)] ?? MINUTE_MS);
}

/** How many digits after the point a decimal has. */
export function scaleOf(decimal: string): number {
  const point = decimal.indexOf(".");
  return point < 0 ? 0 : decimal.length - point - 1;
}
