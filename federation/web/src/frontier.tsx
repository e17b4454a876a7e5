// What nearer service would cost and farther save: the curve of dollars against milliseconds, asked for when opened.

import { useEffect, useState } from "preact/hooks";
import { count, milliseconds, usd } from "./format.ts";
import type { FrontierPointView, FrontierView } from "./views.ts";

const WIDTH = 340;
const HEIGHT = 190;
const LEFT = 52;
const RIGHT = 12;
const TOP = 12;
const BOTTOM = 34;

type Answer = { frontier: FrontierView } | { failed: string } | null;

/** Asks until the curve is finished; each answer has the points so far. */
function useFrontier(model: string): [Answer, () => void] {
  const [answer, setAnswer] = useState<Answer>(null);
  const [asked, ask] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    const query = model ? `?${new URLSearchParams({ model })}` : "";
    const next = async (): Promise<void> => {
      const response = await fetch(`/v1/frontier${query}`, { signal: stop.signal });
      const body = await response.json();
      if (!response.ok) return setAnswer({ failed: `${body.message} ${body.hint ?? ""}` });
      setAnswer({ frontier: body });
      if (!body.is_done) await next();
    };
    next().catch((error: Error) => {
      if (!stop.signal.aborted) setAnswer({ failed: `not reachable: ${error.message}` });
    });
    return () => stop.abort();
  }, [model, asked]);
  return [answer, () => ask((n) => n + 1)];
}

/** Of one model with all others where they are; of the fleet with an empty `model`. */
export function Frontier({ model }: { model: string }) {
  const [open, setOpen] = useState(false);
  return (
    <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>What would nearer cost?</summary>
      {open && <Curve model={model} />}
    </details>
  );
}

function Curve({ model }: { model: string }) {
  const [answer, refresh] = useFrontier(model);
  if (answer === null) return <p class="muted">Asking the planner…</p>;
  if ("failed" in answer) {
    return (
      <p class="muted">
        No curve: {answer.failed}{" "}
        <button type="button" class="text" onClick={refresh}>
          Ask again
        </button>
      </p>
    );
  }
  const { frontier } = answer;
  return (
    <div class="frontier">
      {frontier.points.length > 1 && <Chart frontier={frontier} />}
      <p aria-live="polite">
        {frontier.is_done
          ? frontier.says
          : `${count(frontier.points.length)} of at most ${count(frontier.wanted)} points…`}
      </p>
      {frontier.is_done && (
        <p class="muted">
          {frontier.in_parts && "The curve counts parts of replicas. "}Of plan {frontier.epoch}.{frontier.generation},
          in {frontier.seconds.toFixed(1)} s.{" "}
          <button type="button" class="text" onClick={refresh}>
            Ask again
          </button>
        </p>
      )}
    </div>
  );
}

function Chart({ frontier }: { frontier: FrontierView }) {
  const { on_curve: here, planned } = frontier;
  const curve = [...frontier.points].sort((a, b) => a.rtt_ms_mean - b.rtt_ms_mean);
  const shown = [...curve, ...(here ? [here] : []), ...(planned ? [planned] : [])];
  const most = Math.max(...shown.map((one) => one.rtt_ms_mean)) * 1.05;
  const dollars = shown.map((one) => one.usd_per_hour);
  const [least, dearest] = [Math.min(...dollars), Math.max(...dollars)];
  const spread = Math.max(dearest - least, 1e-9);
  const x = (one: FrontierPointView) => LEFT + (one.rtt_ms_mean / most) * (WIDTH - LEFT - RIGHT);
  const y = (one: FrontierPointView) => TOP + ((dearest - one.usd_per_hour) / spread) * (HEIGHT - TOP - BOTTOM);
  const floor = HEIGHT - BOTTOM;
  return (
    <svg
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      role="img"
      aria-label={`Dollars per hour against mean round trip. ${frontier.says}`}
    >
      <path class="axis" d={`M${LEFT} ${TOP}V${floor}H${WIDTH - RIGHT}`} />
      <text x={LEFT - 6} y={TOP + 4} text-anchor="end">
        {usd(dearest)}
      </text>
      <text x={LEFT - 6} y={floor} text-anchor="end">
        {usd(least)}
      </text>
      <text x={LEFT} y={floor + 14}>
        0 ms
      </text>
      <text x={WIDTH - RIGHT} y={floor + 14} text-anchor="end">
        {milliseconds(most)}
      </text>
      <text x={(LEFT + WIDTH - RIGHT) / 2} y={floor + 28} text-anchor="middle">
        mean round trip · dollars per hour
      </text>
      <polyline class="curve" points={curve.map((one) => `${x(one)},${y(one)}`).join(" ")} />
      {curve.map((one) => (
        <circle key={one.usd_per_1000_per_ms} class="point" cx={x(one)} cy={y(one)} r="2.5">
          <title>
            {milliseconds(one.rtt_ms_mean)}, {usd(one.usd_per_hour)} per hour: {one.usd_per_1000_per_ms.toPrecision(2)}{" "}
            USD per 1,000 and ms
          </title>
        </circle>
      ))}
      {here && <circle class="here" cx={x(here)} cy={y(here)} r="5.5" />}
      {here && (
        <text class="mark" x={x(here) - 9} y={y(here) + 12} text-anchor="end">
          policy
        </text>
      )}
      {planned && <path class="planned" d={`M${x(planned) - 4} ${y(planned) - 4}h8v8h-8z`} />}
      {planned && (
        <text class="mark" x={x(planned) + 9} y={y(planned) - 4}>
          plan, whole replicas
        </text>
      )}
    </svg>
  );
}
