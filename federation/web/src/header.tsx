// The first glance: is anyone hurt, what does it cost, how fresh is this, and is automation frozen.

import { useState } from "preact/hooks";
import { useShown } from "./context.tsx";
import { clock, count, day, duration, milliseconds, percent, rps, speed, usd } from "./format.ts";
import { currentTheme, toggleTheme } from "./theme.ts";

export function Header() {
  const { view, fresh, state } = useShown();
  const [, redraw] = useState(0);
  const live = !fresh.lost;
  const served = view.within_objective_share;
  return (
    <header class="header">
      <div class="brand">
        <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
          <circle cx="16" cy="16" r="3.5" />
          <path d="M16 8.5c5 0 8 3 7.5 7.5S20.500 23 16 23s-8-2.500-8-7 3-7.500 8-7.500z" />
          <path d="M17 3c7 .5 12 5 12 12.500S23.500 29 15.500 29 3 23.500 3 16 9 2.500 17 3z" opacity=".55" />
        </svg>
        <h1>Isochrone</h1>
      </div>
      <dl class={`figures${fresh.unknown ? " stale" : ""}`}>
        <FigureTile
          name="Within objective"
          value={percent(served)}
          tone={served !== null && served < 0.95 ? "warn" : ""}
        />
        <FigureTile
          name="Unserved"
          value={rps(view.unserved_rps)}
          unit="req/s"
          tone={view.unserved_rps > 0.01 * view.demand_rps ? "alarm" : ""}
        />
        <FigureTile name="Demand" value={rps(view.demand_rps)} unit="req/s" />
        <FigureTile
          name="Round trip"
          value={milliseconds(view.near?.rtt_ms_mean)}
          unit={
            view.near
              ? `p95 ${milliseconds(view.near.rtt_ms_p95)}, ${milliseconds(view.near.excess_ms_mean)} excess`
              : ""
          }
          note="mean; excess over the nearest cluster that could serve, full or not"
        />
        <FigureTile name="Cost" value={usd(view.usd_per_hour)} unit="per hour" />
        <FigureTile name="Plan" value={`${count(view.epoch)}.${count(view.generation)}`} note="epoch.generation" />
        <FigureTile name={`${day(view.at_s)} · ${speed(view.speed)}`} value={clock(view.at_s)} />
      </dl>
      <div class="status">
        <span class={`live ${live ? "on" : "off"}`}>
          {live ? "Live" : state.signedOut ? "Signed out" : "Lost"}
          <small>{live ? "updating" : `${duration(fresh.wallAgeS)} old`}</small>
        </span>
        <button
          type="button"
          class="icon"
          aria-label={`Use the ${currentTheme() === "dark" ? "light" : "dark"} theme`}
          onClick={() => {
            toggleTheme();
            redraw((n) => n + 1);
          }}
        >
          {currentTheme() === "dark" ? "☀" : "☾"}
        </button>
      </div>
      <p class="sentence">
        <span>Last cycle</span> {view.message || "no cycle yet"}
      </p>
    </header>
  );
}

function FigureTile(props: { name: string; value: string; unit?: string; note?: string; tone?: string }) {
  return (
    <div class={`figure ${props.tone ?? ""}`}>
      <dt title={props.note}>{props.name}</dt>
      <dd>
        {props.value} {props.unit && <small>{props.unit}</small>}
      </dd>
    </div>
  );
}

export function Banners() {
  const { view, fresh, state } = useShown();
  return (
    <div class="banners" role="alert">
      {state.signedOut && <SignedOut />}
      {fresh.lost && !state.signedOut && (
        <p class="banner lost">
          <strong>Live data lost {duration(fresh.wallAgeS)} ago, reconnecting.</strong>{" "}
          {fresh.unknown ? "What is shown is old: states are unknown." : "What is shown is getting old."}
        </p>
      )}
      {view.brake && (
        <p class="banner brake">
          <strong>Brake engaged: no moves.</strong> {view.brake}
        </p>
      )}
    </div>
  );
}

export function SignedOut() {
  return (
    <p class="banner lost">
      <strong>Signed out.</strong> Run <code>isochrone map</code>, or open the link that the controller printed when it
      started.
    </p>
  );
}
