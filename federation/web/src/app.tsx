// The page: header, map, what is open, and the dock with events and tables.

import { useRef, useState } from "preact/hooks";
import { Context } from "./context.tsx";
import { Announcer, Events } from "./events.tsx";
import { freshness } from "./freshness.ts";
import { Banners, Header, SignedOut } from "./header.tsx";
import { Legend } from "./map/legend.tsx";
import { Toolbar } from "./map/toolbar.tsx";
import { WorldMap } from "./map/world.tsx";
import { Panel } from "./panel/panel.tsx";
import type { State, Store } from "./state.ts";
import { CellsTable, ClustersTable, ModelsTable } from "./tables.tsx";
import type { OverviewView } from "./views.ts";

export function App({ store, state, nowMs }: { store: Store; state: State; nowMs: number }) {
  const { view } = state;
  if (!view) return <Waiting state={state} />;
  const fresh = freshness(view, state.receivedMs, nowMs, state.broken);
  return (
    <Context.Provider value={{ store, state, view, fresh }}>
      <div class={`app${fresh.unknown ? " is-unknown" : ""}`}>
        <Header />
        <Banners />
        <Announcer />
        <main class="main">
          <section class="stage" aria-label="Latency map">
            <Toolbar />
            {view.clusters.length > 0 ? <WorldMap /> : <NoClusters />}
            <Legend />
          </section>
          <aside class="side" aria-label="Details">
            <Panel />
          </aside>
          <Dock view={view} state={state} />
        </main>
      </div>
    </Context.Provider>
  );
}

function Waiting({ state }: { state: State }) {
  return (
    <main class="waiting" aria-live="polite">
      <h1>Isochrone</h1>
      {state.signedOut ? (
        <SignedOut />
      ) : state.broken ? (
        <p>The controller cannot be reached. Trying again; nothing is known until it answers.</p>
      ) : (
        <p>Asking the controller…</p>
      )}
    </main>
  );
}

function NoClusters() {
  return (
    <div class="map-frame">
      <p class="empty">
        No cluster is known yet. Add a Cluster document to the policy directory, or run{" "}
        <code>isochrone apply -f cluster.yaml</code>, then start its agent.
      </p>
    </div>
  );
}

function Dock({ view, state }: { view: OverviewView; state: State }) {
  const [open, setOpen] = useState(0);
  const list = useRef<HTMLDivElement>(null);
  const tabs = [
    { name: "Events", amount: state.events.length, body: Events },
    { name: "Clusters", amount: view.clusters.length, body: ClustersTable },
    { name: "User cells", amount: view.cells.length, body: CellsTable },
    { name: "Models", amount: view.models.length, body: ModelsTable },
  ];
  const Body = tabs[open]!.body;
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (open + step + tabs.length) % tabs.length;
    setOpen(next);
    list.current?.querySelectorAll<HTMLButtonElement>("[role=tab]")[next]?.focus();
  };
  return (
    <section class="dock" aria-label="Events and tables">
      <div class="tabs" role="tablist" ref={list} onKeyDown={onKeyDown}>
        {tabs.map((tab, index) => (
          <button
            key={tab.name}
            id={`dock-tab-${index}`}
            type="button"
            role="tab"
            aria-selected={index === open}
            aria-controls="dock-body"
            tabIndex={index === open ? 0 : -1}
            onClick={() => setOpen(index)}
          >
            {tab.name} <small>{tab.amount}</small>
          </button>
        ))}
      </div>
      <div class="dock-body" id="dock-body" role="tabpanel" aria-labelledby={`dock-tab-${open}`} tabIndex={0}>
        <Body key={tabs[open]!.name} />
      </div>
    </section>
  );
}
