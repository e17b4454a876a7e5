// The controller's answers as TypeScript knows them; a test holds these fields equal to those of federation/api/views.py.

export type Phase = "unknown" | "ready" | "unreachable" | "lost";
export type WorstState = "ok" | "degraded" | "bad" | "unknown";

export interface PoolView {
  name: string;
  product: string;
  mig_profile: string;
  market: string;
  vram_gib: number | null;
  allocatable: number | null;
  free: number | null;
  usd_per_device_hour: number;
  verified: boolean;
  sharing: string;
  largest_free: number | null;
}

export interface GrowthView {
  group: string;
  source: string;
  pool: string | null;
  devices: number | null;
  provisioning_s: number | null;
}

export interface ConditionView {
  type: string;
  object: string;
  message: string;
}

export interface ReplicasView {
  model: string;
  pool: string;
  desired: number;
  ready: number | null;
  reason: string;
}

export interface AckView {
  epoch: number;
  generation: number;
  ok: boolean;
  error: string;
  age_s: number;
}

export interface ClusterView {
  name: string;
  provider: string;
  region: string;
  zone: string;
  tier: string;
  city: string;
  country: string;
  lat: number;
  lon: number;
  jurisdictions: string[];
  phase: Phase;
  cordoned: boolean;
  draining: boolean;
  worst_state: WorstState;
  reason: string;
  report_age_s: number | null;
  accelerators: number | null;
  pools: PoolView[];
  replicas: ReplicasView[];
  ack: AckView | null;
  growth: GrowthView[];
  conditions: ConditionView[];
}

/** Round trips of served requests; the excess is over the nearest cluster that could serve them, full or not. */
export interface NearView {
  rtt_ms_mean: number;
  rtt_ms_p95: number;
  excess_ms_mean: number;
}

/** A plan on the curve; the price is of a millisecond of 1,000 requests. */
export interface FrontierPointView {
  usd_per_1000_per_ms: number;
  usd_per_hour: number;
  rtt_ms_mean: number;
  excess_ms_mean: number;
  unserved_rps: number;
  gap: number;
}

export interface FrontierView {
  model: string;
  epoch: number;
  generation: number;
  is_done: boolean;
  wanted: number;
  points: FrontierPointView[];
  in_parts: boolean;
  on_curve: FrontierPointView | null;
  planned: FrontierPointView | null;
  says: string;
  seconds: number;
}

export interface ModelView {
  name: string;
  runtime: string;
  policy: string;
  objective_ms: number;
  demand_rps: number;
  served_rps: number;
  late_rps: number;
  unserved_rps: number;
  replicas_desired: number;
  replicas_ready: number;
  usd_per_hour: number;
  near: NearView | null;
  state: WorstState;
  reasons: string[];
}

export interface RouteView {
  cluster: string;
  share: number;
  target_share: number;
  latency_ms: number;
  excess_ms: number | null;
  latency_source: string;
  within_objective: boolean;
}

export interface CellDemandView {
  model: string;
  rps: number;
  age_s: number;
  unserved_rps: number;
  reason: string;
  routes: RouteView[];
}

export interface CellView {
  name: string;
  country: string;
  lat: number;
  lon: number;
  demand: CellDemandView[];
}

export interface OverviewView {
  at_s: number;
  speed: number;
  epoch: number;
  generation: number;
  usd_per_hour: number;
  demand_rps: number;
  unserved_rps: number;
  within_objective_share: number | null;
  near: NearView | null;
  brake: string;
  message: string;
  clusters: ClusterView[];
  models: ModelView[];
  cells: CellView[];
}

export interface EventView {
  id: number;
  at_s: number;
  type: "Normal" | "Warning";
  reason: string;
  object: string;
  message: string;
}

export interface ScoreTermView {
  name: string;
  usd_per_hour: number;
}

export interface ClusterVerdictView {
  cluster: string;
  replicas: number;
  code: string;
  reason: string;
  usd_per_hour_if_placed: number | null;
  terms: ScoreTermView[];
}

export interface FilterView {
  name: string;
  survivors: number;
  removed: string[];
}

export interface ExplanationView {
  model: string;
  epoch: number;
  generation: number;
  of: "plan" | "newest";
  kept_because: string;
  summary: string;
  filters: FilterView[];
  clusters: ClusterVerdictView[];
  unserved: string[];
}
