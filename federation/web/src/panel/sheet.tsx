// The frame of what is opened, and the parts that every sheet is made of.

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Figure, useShown } from "../context.tsx";
import { count, milliseconds } from "../format.ts";
import type { ReplicasView } from "../views.ts";

/** The frame of everything that can be opened. Takes the focus when opened by hand; Escape closes it from anywhere. */
export function Sheet({ kind, title, children }: { kind: string; title: string; children: ComponentChildren }) {
  const { store } = useShown();
  const heading = useRef<HTMLHeadingElement>(null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    if (!(before instanceof HTMLElement || before instanceof SVGElement) || before === document.body) return;
    heading.current?.focus();
    return () => {
      if (before.isConnected && document.activeElement === document.body) before.focus();
    };
  }, []);
  useLayoutEffect(() => {
    const close = (event: KeyboardEvent) => {
      if (event.key === "Escape") location.hash = store.hashOf(null);
    };
    document.addEventListener("keydown", close);
    return () => document.removeEventListener("keydown", close);
  }, [store]);
  return (
    <div class="sheet">
      <div class="sheet-head">
        <div>
          <p class="kind">{kind}</p>
          <h2 tabIndex={-1} ref={heading}>
            {title}
          </h2>
        </div>
        <a class="icon" href={store.hashOf(null)} aria-label="Close" role="button">
          ✕
        </a>
      </div>
      {children}
    </div>
  );
}

export function Section({ title, aside, children }: { title: string; aside?: string; children: ComponentChildren }) {
  return (
    <section>
      <h3>
        {title} {aside && <small>{aside}</small>}
      </h3>
      {children}
    </section>
  );
}

export function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export const total = (rows: readonly { rps: number }[]) => rows.reduce((sum, row) => sum + row.rps, 0);

export function Latency({ ms, within }: { ms: number; within: boolean }) {
  return <span class={within ? "" : "late"}>{within ? milliseconds(ms) : `${milliseconds(ms)} late`}</span>;
}

export function Ready({ row, unknown }: { row: ReplicasView; unknown: boolean }) {
  const ready = unknown ? null : row.ready;
  const short = ready !== null && ready < row.desired;
  return (
    <span class={short ? "late" : ""}>
      <Figure text={count(ready)} /> / {count(row.desired)}
    </span>
  );
}
