// What happened, newest first. Screen readers hear warnings one at a time: a full log would never let them go.

import { Link, useShown } from "./context.tsx";
import { clock } from "./format.ts";
import type { Kind } from "./selection.ts";

const LINKED: readonly string[] = ["cluster", "model", "cell"];

export function Events() {
  const { state } = useShown();
  if (!state.events.length) return <p class="empty">No events yet: the controller tells here what it does and why.</p>;
  return (
    <ol class="events" aria-label="Events, newest first">
      {state.events.map((event) => (
        <li key={`${event.id} ${event.at_s}`} class={event.type === "Warning" ? "warning" : ""}>
          <time dateTime={new Date(event.at_s * 1000).toISOString()}>{clock(event.at_s)}</time>
          <span class="event-reason">{event.type === "Warning" ? `⚠ ${event.reason}` : event.reason}</span>
          <span class="event-object">
            <EventObject text={event.object} />
          </span>
          <span class="event-message">{event.message}</span>
        </li>
      ))}
    </ol>
  );
}

function EventObject({ text }: { text: string }) {
  const slash = text.indexOf("/");
  const kind = text.slice(0, Math.max(0, slash));
  if (!LINKED.includes(kind)) return <>{text}</>;
  return (
    <Link kind={kind as Kind} name={text.slice(slash + 1)}>
      {text}
    </Link>
  );
}

export function Announcer() {
  const { state } = useShown();
  const warning = state.events.find((event) => event.type === "Warning");
  return (
    <div class="visually-hidden" role="status" aria-live="polite">
      {warning ? `${warning.reason}, ${warning.object}: ${warning.message}` : ""}
    </div>
  );
}
