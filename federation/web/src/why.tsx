// "Why here, why not there?": the planner's own explanation, asked for when someone looks and not before.

import { useEffect, useState } from "preact/hooks";
import { Link, useShown } from "./context.tsx";
import { count, usd } from "./format.ts";
import type { ClusterVerdictView, ExplanationView } from "./views.ts";

type Answer = { explanation: ExplanationView } | { failed: string } | null;

function useExplanation(model: string, cluster: string): [Answer, () => void] {
  const [answer, setAnswer] = useState<Answer>(null);
  const [asked, ask] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    const query = cluster ? `?${new URLSearchParams({ cluster })}` : "";
    fetch(`/v1/explain/placement/${encodeURIComponent(model)}${query}`, { signal: stop.signal })
      .then(async (response) => {
        const body = await response.json();
        setAnswer(response.ok ? { explanation: body } : { failed: `${body.message} ${body.hint ?? ""}` });
      })
      .catch((error: Error) => {
        if (!stop.signal.aborted) setAnswer({ failed: `not reachable: ${error.message}` });
      });
    return () => stop.abort();
  }, [model, cluster, asked]);
  return [answer, () => ask((n) => n + 1)];
}

/** The explanation of one model, for one cluster or for all (an empty `cluster`). */
export function Why({ model, cluster }: { model: string; cluster: string }) {
  const { view } = useShown();
  const [answer, refresh] = useExplanation(model, cluster);
  if (answer === null) return <p class="muted">Asking the planner…</p>;
  if ("failed" in answer) {
    return (
      <p class="muted">
        No explanation: {answer.failed}{" "}
        <button type="button" class="text" onClick={refresh}>
          Ask again
        </button>
      </p>
    );
  }
  const { explanation } = answer;
  const moved = explanation.generation !== view.generation || explanation.epoch !== view.epoch;
  const placed = explanation.clusters.filter((verdict) => verdict.replicas > 0);
  const others = explanation.clusters.filter((verdict) => verdict.replicas <= 0);
  return (
    <div class="why">
      <p class="muted">
        Of plan {explanation.epoch}.{explanation.generation}
        {moved && (
          <>
            {"; now it is "}
            {view.epoch}.{view.generation}.{" "}
            <button type="button" class="text" onClick={refresh}>
              Ask again
            </button>
          </>
        )}
      </p>
      <p>{explanation.summary}</p>
      {explanation.kept_because && (
        <p class="muted">The newest solve has another placement, which is not adopted: {explanation.kept_because}</p>
      )}
      {!cluster && explanation.filters.length > 0 && (
        <ol class="filters">
          {explanation.filters.map((filter) => (
            <li key={filter.name}>
              <span>{filter.name}</span>
              <span class="muted">
                {filter.removed.length > 0 && `−${filter.removed.length} · `}
                {count(filter.survivors)} left
              </span>
            </li>
          ))}
        </ol>
      )}
      <Verdicts verdicts={placed} />
      {others.length > 0 &&
        (cluster ? (
          <Verdicts verdicts={others} />
        ) : (
          <details>
            <summary>Why not the other {others.length}</summary>
            <Verdicts verdicts={others} />
          </details>
        ))}
      {!cluster && explanation.unserved.length > 0 && (
        <ul class="reasons">
          {explanation.unserved.map((text) => (
            <li key={text}>{text}</li>
          ))}
        </ul>
      )}
    </div>
  );
}

function Verdicts({ verdicts }: { verdicts: readonly ClusterVerdictView[] }) {
  return (
    <ul class="verdicts">
      {verdicts.map((verdict) => (
        <li key={verdict.cluster}>
          <div class="row">
            <Link kind="cluster" name={verdict.cluster} />
            <span class="muted">
              {verdict.replicas > 0
                ? `${count(verdict.replicas)} ${verdict.replicas === 1 ? "replica" : "replicas"}`
                : verdict.usd_per_hour_if_placed !== null
                  ? `${usd(verdict.usd_per_hour_if_placed)}/h if placed`
                  : verdict.code}
            </span>
          </div>
          <p>{verdict.reason}</p>
          {verdict.terms.length > 0 && (
            <p class="muted">{verdict.terms.map((term) => `${term.name} ${usd(term.usd_per_hour)}/h`).join(" · ")}</p>
          )}
        </li>
      ))}
    </ul>
  );
}
