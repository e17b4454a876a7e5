// How old what is on the screen is. A map that has lost its stream must not go on looking healthy: what was green
// becomes unknown after a while, whatever was heard last.

import type { OverviewView, WorstState } from "./views.ts";

/** Without a world for so long the stream is called lost; the controller sends one at least every six seconds. */
export const LOST_AFTER_S = 8;
/** From here on nothing heard is taken for true any more. */
export const UNKNOWN_AFTER_S = 15;

export interface Freshness {
  /** Seconds of this machine since the world was received. */
  wallAgeS: number;
  /** The same in seconds of the controller's clock: what every age has grown by. */
  grownS: number;
  lost: boolean;
  unknown: boolean;
}

export function freshness(view: OverviewView, receivedMs: number, nowMs: number, streamBroken: boolean): Freshness {
  const wallAgeS = Math.max(0, (nowMs - receivedMs) / 1000);
  return {
    wallAgeS,
    grownS: wallAgeS * view.speed,
    lost: streamBroken || wallAgeS >= LOST_AFTER_S,
    unknown: wallAgeS >= UNKNOWN_AFTER_S,
  };
}

export function grown(ageS: number | null, fresh: Freshness): number | null {
  return ageS === null ? null : ageS + fresh.grownS;
}

export function shownState(state: WorstState, fresh: Freshness): WorstState {
  return fresh.unknown ? "unknown" : state;
}
