// A question asked again and again: never twice at a time, sooner when something calls for it, rarely while nobody looks.

/** How much rarer while the page is hidden. */
const HIDDEN = 6;

export class Poll {
  private timer: number | undefined;
  private asking = false;
  private again = false;

  constructor(
    /** How often while somebody looks. */
    public everyMs: number,
    private readonly ask: () => Promise<void>,
  ) {}

  /** Ask now; if an answer is under way, once more after it. */
  now(): void {
    window.clearTimeout(this.timer);
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = true;
    this.again = false;
    // A refusal or no answer at all: the next turn asks again, and the silence of the feed tells the viewer.
    void this.ask()
      .catch(() => undefined)
      .finally(() => {
        this.asking = false;
        if (this.again) this.soon();
        else this.timer = window.setTimeout(() => this.now(), document.hidden ? this.everyMs * HIDDEN : this.everyMs);
      });
  }

  /** Ask within a moment: many calls in that moment are one question. */
  soon(): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.now(), 300);
  }
}
