// A place on the isochrones: what a user there would have of the ready replicas, and how that is known.

import { useEffect, useState } from "preact/hooks";
import { Link, useShown } from "../context.tsx";
import { milliseconds } from "../format.ts";
import { BasisBadge, knownLine } from "../known.tsx";
import { parseCoordinates, placeTitle } from "../selection.ts";
import type { PlaceView } from "../views.ts";
import { Latency, Sheet } from "./sheet.tsx";

type Answer = PlaceView | string | null;

function usePlace(model: string, lat: number, lon: number): Answer {
  const [answer, setAnswer] = useState<Answer>(null);
  useEffect(() => {
    setAnswer(null);
    if (!model) return;
    const stop = new AbortController();
    const query = new URLSearchParams({ lat: String(lat), lon: String(lon) });
    fetch(`/v1/isochrones/${encodeURIComponent(model)}?${query}`, { signal: stop.signal })
      .then(async (response) => {
        const body = await response.json();
        setAnswer(response.ok ? body : String(body.message));
      })
      .catch((error: Error) => {
        if (!stop.signal.aborted) setAnswer(`not reachable: ${error.message}`);
      });
    return () => stop.abort();
  }, [model, lat, lon]);
  return answer;
}

export function PlacePanel({ name }: { name: string }) {
  const { state } = useShown();
  const [lat, lon] = parseCoordinates(name) ?? [0, 0];
  const answer = usePlace(state.model, lat, lon);
  return (
    <Sheet kind="Place" title={placeTitle(lat, lon)}>
      {!state.model && <p>Choose a model: each has replicas and an objective of its own.</p>}
      {state.model && answer === null && <p class="muted">Asking the controller…</p>}
      {typeof answer === "string" && <p class="muted">No answer: {answer}</p>}
      {answer !== null && typeof answer === "object" && (
        <>
          <p>
            {answer.clusters.length === 0
              ? `No replica of ${answer.model} is ready.`
              : `A user here would have these ready replicas of ${answer.model}. A replica takes ` +
                `${milliseconds(answer.service_ms)}, the objective is ${milliseconds(answer.objective_ms)}. ` +
                "Residency and load are not looked at."}
          </p>
          <ul class="rows">
            {answer.clusters.map((one) => (
              <li key={one.cluster}>
                <div class="row">
                  <Link kind="cluster" name={one.cluster} />
                  <Latency ms={one.latency_ms} within={one.within_objective} />
                </div>
                <p class="muted">
                  <BasisBadge basis={one.latency_basis} /> {knownLine(one, one.latency_age_s)}
                </p>
              </li>
            ))}
          </ul>
        </>
      )}
    </Sheet>
  );
}
