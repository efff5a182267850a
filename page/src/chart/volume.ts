// Volume with the takers' share: each bar's lower part is what takers bought.

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
import type { Palette } from "./looks";

export interface VolumeBar extends CustomData<Time> {
  readonly volume: number;
  readonly bought: number;
}

type Drawn = PaneRendererCustomData<Time, VolumeBar>;

class Renderer implements ICustomSeriesPaneRenderer {
  drawn: Drawn | null = null;

  constructor(private readonly palette: () => Palette) {}

  draw(target: CanvasRenderingTarget2D, toY: PriceToCoordinateConverter): void {
    const { drawn } = this;
    if (!drawn?.visibleRange) return;
    const { buy, sell } = this.palette();
    target.useBitmapCoordinateSpace(({ context, horizontalPixelRatio: across, verticalPixelRatio: down }) => {
      const line = Math.max(1, Math.floor(across));
      let width = Math.max(line, Math.floor(drawn.barSpacing * across * 0.72));
      if ((width - line) % 2) width -= 1;
      width = Math.max(line, width);
      const floor = Math.round((toY(0) ?? 0) * down);
      const { from, to } = drawn.visibleRange as { from: number; to: number };
      for (let index = from; index < to; index += 1) {
        const item = drawn.bars[index];
        if (!item || item.originalData.volume <= 0) continue;
        const { volume, bought } = item.originalData;
        const left = Math.round(item.x * across) - Math.floor(width / 2);
        const top = Math.round((toY(volume) ?? 0) * down);
        const middle = Math.round((toY(bought) ?? 0) * down);
        context.fillStyle = sell;
        context.fillRect(left, top, width, middle - top);
        context.fillStyle = buy;
        context.fillRect(left, middle, width, floor - middle);
      }
    });
  }
}

export class VolumeView implements ICustomSeriesPaneView<Time, VolumeBar> {
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

  priceValueBuilder(bar: VolumeBar): CustomSeriesPricePlotValues {
    return [0, bar.volume];
  }

  isWhitespace(bar: VolumeBar | CustomData<Time>): bar is CustomData<Time> {
    return (bar as Partial<VolumeBar>).volume === undefined;
  }

  defaultOptions(): CustomSeriesOptions {
    return customSeriesDefaultOptions;
  }
}
