// One drawing: candles, volume, axes, cross-hair. It is told candles and says where the viewer looks; it asks nobody for anything.

import {
  type IChartApi,
  type ISeriesApi,
  type MouseEventParams,
  type Time,
  type UTCTimestamp,
  CrosshairMode,
  createChart,
} from "lightweight-charts";
import type { Candle } from "../data/wire";
import { type Zone, axisTime, openTime, scaleOf, stepOf } from "../format";
import { type Bar, CandleView } from "./candles";
import { Countdown } from "./countdown";
import { type Palette, lookOf, readPalette } from "./looks";
import { type VolumeBar, VolumeView } from "./volume";

/** Candles left of the view that are asked for before the viewer gets there. */
const AHEAD = 120;
const SPACING_PX = 7;
const FIGURE_SPACE = "\u2007";

const timeOf = (candle: Candle): UTCTimestamp => (candle.open_time_ms / 1_000) as UTCTimestamp;
const msOf = (time: Time): number => (time as number) * 1_000;

export interface DrawingListener {
  /** The candle under the cross-hair, or none. */
  inspected(openMs: number | null): void;
  /** A candle was clicked. */
  chosen(openMs: number): void;
  /** The viewer nears the oldest candle. */
  wantsOlder(): void;
}

export class Drawing {
  private readonly chart: IChartApi;
  private readonly candles: ISeriesApi<"Custom", Time>;
  private readonly volume: ISeriesApi<"Custom", Time>;
  private readonly countdown: Countdown;
  private palette: Palette = readPalette();
  private zone: Zone = "utc";
  private step = 60_000;
  private shown = 0;

  constructor(host: HTMLElement, listener: DrawingListener) {
    const palette = (): Palette => this.palette;
    this.chart = createChart(host, {
      autoSize: true,
      // The notice stands in the page's foot: the library's own logo needs an inline style, which the page's policy forbids.
      layout: { attributionLogo: false, fontSize: 11 },
      crosshair: { mode: CrosshairMode.Normal },
      timeScale: { timeVisible: true, secondsVisible: false, rightOffset: 4, barSpacing: SPACING_PX, minBarSpacing: 0.6 },
      rightPriceScale: { scaleMargins: { top: 0.06, bottom: 0.24 } },
    });
    this.candles = this.chart.addCustomSeries(new CandleView(palette), { priceLineWidth: 1 });
    this.volume = this.chart.addCustomSeries(new VolumeView(palette), {
      priceScaleId: "volume",
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.volume.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.countdown = new Countdown(palette);
    this.candles.attachPrimitive(this.countdown);
    this.chart.subscribeCrosshairMove((at: MouseEventParams<Time>) =>
      listener.inspected(at.time === undefined ? null : msOf(at.time)),
    );
    this.chart.subscribeClick((at: MouseEventParams<Time>) => {
      if (at.time !== undefined) listener.chosen(msOf(at.time));
    });
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range && this.shown > 0 && range.from < AHEAD) listener.wantsOlder();
    });
    this.repaint();
  }

  /** Read the colours again. */
  repaint(): void {
    this.palette = readPalette();
    const { ground, text, line, faint, label, font } = this.palette;
    this.chart.applyOptions({
      layout: { background: { color: ground }, textColor: text, fontFamily: font },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      rightPriceScale: { borderColor: line },
      timeScale: { borderColor: line },
      crosshair: {
        vertLine: { color: faint, labelBackgroundColor: label },
        horzLine: { color: faint, labelBackgroundColor: label },
      },
    });
  }

  setZone(zone: Zone): void {
    this.zone = zone;
    this.chart.applyOptions({
      localization: { timeFormatter: (time: Time) => openTime(msOf(time), this.step, this.zone) },
      timeScale: { tickMarkFormatter: (time: Time, rank: number) => axisTime(msOf(time), rank, this.zone) },
    });
  }

  /** Show all of these, in place of what was shown. A new series begins at its newest candle; another page of the same stays in view. */
  show(all: readonly Candle[], interval: string, scale: number | null, fresh: boolean): void {
    this.step = stepOf(interval);
    const newest = all.at(-1);
    const digits = scale ?? (newest ? scaleOf(newest.close) : 2);
    this.candles.applyOptions({
      priceFormat: { type: "price", precision: digits, minMove: 1 / 10 ** digits },
    });
    this.candles.setData(all.map((one) => this.bar(one)));
    this.volume.setData(all.map((one) => volumeBar(one)));
    this.shown = all.length;
    if (fresh) {
      this.chart.priceScale("right").applyOptions({ autoScale: true });
      this.chart.timeScale().applyOptions({ barSpacing: SPACING_PX });
      this.chart.timeScale().scrollToRealTime();
    }
  }

  /** One candle that is new or has changed; `late` if newer ones are shown. */
  update(candle: Candle, late: boolean): void {
    this.candles.update(this.bar(candle), late);
    this.volume.update(volumeBar(candle), late);
    if (!late) this.shown += 1;
  }

  /** Time left of the running candle; none where nothing runs. */
  count(text: string, close: string | undefined): void {
    // As wide as the price above it, so that it covers the axis' own figures as that one does.
    const room = Math.max(0, (close?.length ?? 0) - text.length) / 2;
    const padded = text && FIGURE_SPACE.repeat(Math.floor(room)) + text + FIGURE_SPACE.repeat(Math.ceil(room));
    this.countdown.show(padded, close === undefined ? null : Number(close));
  }

  /** Put the cross-hair on a candle, or take it away. */
  point(candle: Candle | null): void {
    if (!candle) {
      this.chart.clearCrosshairPosition();
      return;
    }
    this.chart.setCrosshairPosition(Number(candle.close), timeOf(candle), this.candles);
  }

  /** Bring the candle at this place into view. */
  reveal(place: number): void {
    const scale = this.chart.timeScale();
    const range = scale.getVisibleLogicalRange();
    if (!range || (place >= range.from + 2 && place <= range.to - 2)) return;
    const half = (range.to - range.from) / 2;
    scale.setVisibleLogicalRange({ from: place - half, to: place + half });
  }

  /** The places that are in view. */
  range(): { from: number; to: number } | null {
    return this.chart.timeScale().getVisibleLogicalRange();
  }

  /** What is drawn, as the series hold it. */
  drawn(): { candles: readonly unknown[]; volume: readonly unknown[] } {
    return { candles: this.candles.data(), volume: this.volume.data() };
  }

  /** Where a candle stands on the screen, from the chart's own corner. */
  spot(candle: Candle): { x: number; y: number } | null {
    const x = this.chart.timeScale().timeToCoordinate(timeOf(candle));
    const y = this.candles.priceToCoordinate(Number(candle.close));
    return x === null || y === null ? null : { x, y };
  }

  destroy(): void {
    this.chart.remove();
  }

  private bar(candle: Candle): Bar {
    const look = lookOf(candle);
    const [open, close] = [Number(candle.open), Number(candle.close)];
    return {
      time: timeOf(candle),
      open,
      high: Number(candle.high),
      low: Number(candle.low),
      close,
      look,
      revised: candle.revision > 0,
      color: close >= open ? this.palette.up : this.palette.down,
    };
  }
}

function volumeBar(candle: Candle): VolumeBar {
  return { time: timeOf(candle), volume: Number(candle.volume), bought: Number(candle.taker_buy_volume) };
}
