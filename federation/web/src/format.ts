// How figures are written: one place, so that absent knowledge reads "unknown" everywhere and never as a zero.

import type { ObservedView } from "./views.ts";

export const UNKNOWN = "unknown";

type Figure = number | null | undefined;

export const isKnown = (value: Figure): value is number => typeof value === "number" && Number.isFinite(value);

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const cents = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export function count(value: Figure): string {
  return isKnown(value) ? whole.format(value) : UNKNOWN;
}

export function rps(value: Figure): string {
  if (!isKnown(value)) return UNKNOWN;
  if (value > 0 && value < 0.05) return "<0.1";
  return Math.abs(value) < 100 ? tenths.format(value) : whole.format(value);
}

export function usd(value: Figure): string {
  if (!isKnown(value)) return UNKNOWN;
  const sign = value < 0 ? "−" : "";
  const size = Math.abs(value);
  return `${sign}$${size < 100 ? cents.format(size) : whole.format(size)}`;
}

export function milliseconds(value: Figure): string {
  return isKnown(value) ? `${value < 10 ? tenths.format(value) : whole.format(value)} ms` : UNKNOWN;
}

/** Never rounds up to 100 % nor down to 0 % what is not quite that. */
export function percent(value: Figure): string {
  if (!isKnown(value)) return UNKNOWN;
  const scaled = value * 100;
  if (scaled > 99.9 && scaled < 100) return ">99.9 %";
  if (scaled > 0 && scaled < 0.1) return "<0.1 %";
  return Number.isInteger(scaled) ? `${scaled} %` : `${tenths.format(scaled)} %`;
}

export function duration(seconds: Figure): string {
  if (!isKnown(seconds)) return UNKNOWN;
  const s = Math.max(0, seconds);
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function age(seconds: Figure): string {
  return isKnown(seconds) ? `${duration(seconds)} ago` : "never";
}

/** Time of day of the controller's clock, in UTC since on-call engineers sit in different zones. */
export function clock(unixSeconds: number): string {
  return `${new Date(unixSeconds * 1000).toISOString().slice(11, 19)} UTC`;
}

export function day(unixSeconds: number): string {
  return new Date(unixSeconds * 1000).toISOString().slice(0, 10);
}

export function speed(value: number): string {
  return value === 1 ? "real time" : `×${whole.format(value)} speed`;
}

export function plural(amount: number, one: string, many = `${one}s`): string {
  return `${whole.format(amount)} ${amount === 1 ? one : many}`;
}

/** What is known of a cluster's answers besides their latency. */
export function observedLine(one: ObservedView): string {
  return [
    ...(one.requests_per_second === null ? [] : [`${rps(one.requests_per_second)} req/s`]),
    ...(one.error_share === null ? [] : [`${percent(one.error_share)} errors`]),
    ...(one.waiting === null ? [] : [`${count(one.waiting)} waiting`]),
    ...(one.running === null ? [] : [`${count(one.running)} running`]),
    ...(one.kv_cache_used === null ? [] : [`KV cache ${percent(one.kv_cache_used)} used`]),
  ].join(" · ");
}
