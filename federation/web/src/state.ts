// What the page knows: the newest world, the events, what is selected. One object, changed only here; every change asks
// for one drawing in the next frame, however many changes there were.

import { formatPlace, type Place, parsePlace, type Selection, START } from "./selection.ts";
import type { EventView, OverviewView } from "./views.ts";

export const MAX_EVENTS = 300;

export interface State extends Place {
  view: OverviewView | null;
  receivedMs: number;
  broken: boolean;
  signedOut: boolean;
  /** Newest first. */
  events: readonly EventView[];
}

export class Store {
  state: State = {
    view: null,
    receivedMs: 0,
    broken: false,
    signedOut: false,
    events: [],
    ...START,
  };
  readonly #changed: () => void;

  constructor(changed: () => void) {
    this.#changed = changed;
  }

  #set(change: Partial<State>): void {
    this.state = { ...this.state, ...change };
    this.#changed();
  }

  world(view: OverviewView): void {
    this.#set({ view, receivedMs: Date.now(), broken: false, signedOut: false });
  }

  event(event: EventView): void {
    this.#set({ events: withEvent(this.state.events, event) });
  }

  broken(): void {
    this.#set({ broken: true });
  }

  signedOut(): void {
    this.#set({ signedOut: true, broken: true });
  }

  place(hash: string): void {
    this.#set(parsePlace(hash));
  }

  hashOf(selection: Selection | null): string {
    return formatPlace({ ...this.state, selection });
  }
}

/** With `event` as the newest; one that is known already (a stream that was resumed) changes nothing. */
export function withEvent(events: readonly EventView[], event: EventView): readonly EventView[] {
  if (events.some((known) => known.id === event.id && known.at_s === event.at_s)) return events;
  return [event, ...events].slice(0, MAX_EVENTS);
}
