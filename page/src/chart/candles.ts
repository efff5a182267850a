// The candles as a series of lightweight-charts: its own candlesticks know no hollow, dashed or revised ones.

import type { CanvasRenderingTarget2D } from "fancy-canvas";
import {
  type CustomData,
  type CustomSeriesOptions,
  type CustomSeriesPricePlotValues,
  type ICustomSeriesPaneRenderer,
  type ICustomSeriesPaneView,
  type PaneRendererCustomData,
  type PriceToCoordinateConverter,
  type Time,
  customSeriesDefaultOptions,
} from "lightweight-charts";
import type { Look, Palette } from "./looks";

export interface Bar extends CustomData<Time> {
  readonly open: number;
  readonly high: number;
  readonly low: number;
  readonly close: number;
  readonly look: Look;
  readonly revised: boolean;
}

type Drawn = PaneRendererCustomData<Time, Bar>;

/** Below this many pixels a body has no inside that could be seen. */
const BODY_PX = 3;

class Renderer implements ICustomSeriesPaneRenderer {
  drawn: Drawn | null = null;

  constructor(private readonly palette: () => Palette) {}

  draw(target: CanvasRenderingTarget2D, toY: PriceToCoordinateConverter): void {
    const { drawn } = this;
    if (!drawn?.visibleRange) return;
    const palette = this.palette();
    target.useBitmapCoordinateSpace(({ context, horizontalPixelRatio: across, verticalPixelRatio: down }) => {
      const spacing = drawn.barSpacing * across;
      const line = Math.max(1, Math.floor(across));
      // Odd widths around a wick of odd width stay sharp.
      let width = Math.max(line, Math.floor(spacing * 0.72));
      if ((width - line) % 2) width -= 1;
      width = Math.max(line, width);
      const { from, to } = drawn.visibleRange as { from: number; to: number };
      for (let index = from; index < to; index += 1) {
        const item = drawn.bars[index];
        if (!item) continue;
        const bar = item.originalData;
        const x = Math.round(item.x * across);
        const y = (price: number): number => Math.round((toY(price) ?? 0) * down);
        one(context, bar, palette, { x, width, line, high: y(bar.high), low: y(bar.low), open: y(bar.open), close: y(bar.close) });
        if (bar.revised && spacing >= 2.5 * line) mark(context, palette.mark, x, y(bar.low) + 4 * down, Math.min(4 * across, spacing / 2 + 1));
      }
    });
  }
}

interface Place {
  readonly x: number;
  readonly width: number;
  readonly line: number;
  readonly high: number;
  readonly low: number;
  readonly open: number;
  readonly close: number;
}

function one(context: CanvasRenderingContext2D, bar: Bar, palette: Palette, at: Place): void {
  const unknown = bar.look === "dashed" || bar.look === "final";
  const colour = unknown ? palette.flat : bar.close >= bar.open ? palette.up : palette.down;
  const top = Math.min(at.open, at.close);
  const bottom = Math.max(at.open, at.close, top + at.line);
  const left = at.x - Math.floor(at.width / 2);
  const wick = at.x - Math.floor(at.line / 2);
  context.fillStyle = colour;
  if (top > at.high) context.fillRect(wick, at.high, at.line, top - at.high);
  if (at.low > bottom) context.fillRect(wick, bottom, at.line, at.low - bottom);
  if (bar.look === "solid" || bar.look === "final" || at.width < BODY_PX * at.line) {
    context.fillRect(left, top, at.width, bottom - top);
    return;
  }
  const height = bottom - top;
  if (bar.look === "hollow") {
    if (height > 2 * at.line) {
      context.fillRect(left, top, at.width, at.line);
      context.fillRect(left, bottom - at.line, at.width, at.line);
      context.fillRect(left, top, at.line, height);
      context.fillRect(left + at.width - at.line, top, at.line, height);
    } else {
      // Too flat for an inside: an open middle says the same.
      const third = Math.max(at.line, Math.floor(at.width / 3));
      context.fillRect(left, top, third, height);
      context.fillRect(left + at.width - third, top, third, height);
    }
    return;
  }
  context.strokeStyle = colour;
  context.lineWidth = at.line;
  context.setLineDash([2 * at.line, 2 * at.line]);
  const half = at.line / 2;
  context.strokeRect(left + half, top + half, at.width - at.line, Math.max(0, height - at.line));
  context.setLineDash([]);
}

function mark(context: CanvasRenderingContext2D, colour: string, x: number, y: number, half: number): void {
  context.fillStyle = colour;
  context.beginPath();
  context.moveTo(x + 0.5, y);
  context.lineTo(x + half + 0.5, y + half * 1.5);
  context.lineTo(x - half + 0.5, y + half * 1.5);
  context.fill();
}

export class CandleView implements ICustomSeriesPaneView<Time, Bar> {
  private readonly drawer: Renderer;

  constructor(palette: () => Palette) {
    this.drawer = new Renderer(palette);
  }

  renderer(): ICustomSeriesPaneRenderer {
    return this.drawer;
  }

  update(drawn: Drawn): void {
    this.drawer.drawn = drawn;
  }

  priceValueBuilder(bar: Bar): CustomSeriesPricePlotValues {
    return [bar.high, bar.low, bar.close];
  }

  isWhitespace(bar: Bar | CustomData<Time>): bar is CustomData<Time> {
    return (bar as Partial<Bar>).close === undefined;
  }

  defaultOptions(): CustomSeriesOptions {
    return customSeriesDefaultOptions;
  }
}
