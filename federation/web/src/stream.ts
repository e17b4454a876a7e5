// The live connection: the whole world once, then newer worlds and events as the controller sends them. Tells apart
// "not signed in", which a person must mend, from "not reachable", which is tried again for ever.

import type { EventView, OverviewView } from "./views.ts";

export interface Listener {
  world(view: OverviewView): void;
  event(event: EventView): void;
  /** The stream broke; what is shown is getting old. */
  broken(): void;
  signedOut(): void;
}

const FIRST_DELAY_MS = 1_000;
const MAX_DELAY_MS = 15_000;
/** A connection that is open and silent for so long is dead, whatever TCP thinks. */
const SILENCE_MS = 20_000;

export class Stream {
  #source: EventSource | null = null;
  #delayMs = FIRST_DELAY_MS;
  #watchdog: ReturnType<typeof setTimeout> | undefined;
  readonly #listener: Listener;

  constructor(listener: Listener) {
    this.#listener = listener;
  }

  async open(): Promise<void> {
    try {
      const answer = await fetch("/v1/overview", { headers: { Accept: "application/json" } });
      if (answer.status === 401 || answer.status === 403) {
        this.#listener.signedOut();
        return this.#retry();
      }
      if (!answer.ok) throw new Error(`the controller answered ${answer.status}`);
      this.#listener.world((await answer.json()) as OverviewView);
    } catch {
      this.#listener.broken();
      return this.#retry();
    }
    this.#listen();
  }

  #listen(): void {
    const source = new EventSource("/v1/stream");
    this.#source = source;
    this.#watch();
    source.addEventListener("world", (message) => {
      this.#delayMs = FIRST_DELAY_MS;
      this.#watch();
      this.#listener.world(JSON.parse((message as MessageEvent<string>).data) as OverviewView);
    });
    source.addEventListener("event", (message) => {
      this.#listener.event(JSON.parse((message as MessageEvent<string>).data) as EventView);
    });
    source.addEventListener("error", () => {
      this.#listener.broken();
      // While it is CONNECTING the browser itself tries again, and says which event it saw last.
      if (source.readyState === EventSource.CLOSED) this.#again();
    });
  }

  #watch(): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      this.#listener.broken();
      this.#again();
    }, SILENCE_MS);
  }

  #again(): void {
    this.#source?.close();
    this.#source = null;
    clearTimeout(this.#watchdog);
    this.#retry();
  }

  #retry(): void {
    // Full jitter: all the world's open maps must not come back in the same instant.
    setTimeout(() => void this.open(), this.#delayMs * (0.5 + Math.random() / 2));
    this.#delayMs = Math.min(MAX_DELAY_MS, this.#delayMs * 2);
  }
}
