// What every part of the page needs: the newest world, how old it is, and links that open things.

import { type ComponentChildren, createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Freshness } from "./freshness.ts";
import { isSame, type Selection } from "./selection.ts";
import type { State, Store } from "./state.ts";
import type { OverviewView, WorstState } from "./views.ts";

export interface Shown {
  store: Store;
  state: State;
  view: OverviewView;
  fresh: Freshness;
}

export const Context = createContext<Shown | null>(null);

export function useShown(): Shown {
  const shown = useContext(Context);
  if (!shown) throw new Error("nothing is shown yet");
  return shown;
}

export function Link({ kind, name, children }: Selection & { children?: ComponentChildren }) {
  const { store, state } = useShown();
  const selection = { kind, name };
  return (
    <a href={store.hashOf(selection)} aria-current={isSame(selection, state.selection) ? "true" : undefined}>
      {children ?? name}
    </a>
  );
}

/** A state in a word and a sign, so that colour is never the only difference. */
export function StateBadge({ state }: { state: WorstState }) {
  return <span class={`badge ${state}`}>{state}</span>;
}

/** A figure, or "unknown" set apart from figures. */
export function Figure({ text }: { text: string }) {
  return text === "unknown" || text === "never" ? <span class="not-reported">{text}</span> : text;
}
