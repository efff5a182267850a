// The time that the running candle has left, as a label of the price axis below the last price.

import type { ISeriesPrimitive, ISeriesPrimitiveAxisView, SeriesAttachedParameter, Time } from "lightweight-charts";
import type { Palette } from "./looks";

/** Pixels between the middles of two labels of the axis. */
const LABEL_PX = 18;

export class Countdown implements ISeriesPrimitive<Time> {
  private attachedTo: SeriesAttachedParameter<Time> | null = null;
  private said = "";
  private price: number | null = null;
  private readonly views: readonly ISeriesPrimitiveAxisView[];

  constructor(palette: () => Palette) {
    this.views = [
      {
        coordinate: () => this.y() ?? -1_000,
        text: () => this.said,
        textColor: () => palette().text,
        backColor: () => palette().label,
        visible: () => this.said !== "" && this.y() !== null,
        tickVisible: () => false,
      },
    ];
  }

  attached(parameters: SeriesAttachedParameter<Time>): void {
    this.attachedTo = parameters;
  }

  detached(): void {
    this.attachedTo = null;
  }

  priceAxisViews(): readonly ISeriesPrimitiveAxisView[] {
    return this.views;
  }

  show(text: string, price: number | null): void {
    if (text === this.said && price === this.price) return;
    this.said = text;
    this.price = price;
    this.attachedTo?.requestUpdate();
  }

  private y(): number | null {
    if (this.price === null) return null;
    const y = this.attachedTo?.series.priceToCoordinate(this.price) ?? null;
    return y === null ? null : y + LABEL_PX;
  }
}
