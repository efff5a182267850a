// The exchange's time as klagg tells it, carried on by this browser's steady clock between two tellings.

export class ServerTime {
  private base = Date.now();
  private at = performance.now();

  told(nowMs: number): void {
    this.base = nowMs;
    this.at = performance.now();
  }

  now(): number {
    return this.base + performance.now() - this.at;
  }
}
