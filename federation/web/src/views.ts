// Generated from federation/api/views.py by `make schemas`: the controller's answers as TypeScript knows them.

export type Phase = "unknown" | "ready" | "unreachable" | "lost";
export type WorstState = "ok" | "degraded" | "bad" | "unknown";
export type EventType = "Normal" | "Warning";
export type LatencyBasis = "measured" | "inferred" | "prior";
export type UnservedCode =
  | ""
  | "no-accelerator"
  | "residency"
  | "continent-cap"
  | "no-path"
  | "capacity"
  | "max-replicas"
  | "budget"
  | "price"
  | "warming"
  | "on-the-way"
  | "no-document"
  | "no-policy"
  | "not-routed";
export type Limit = "max_replicas" | "budget";
export type Explained = "plan" | "newest";

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

export interface ObservedView {
  model: string;
  requests_per_second: number | null;
  error_share: number | null;
  latency_ms_p95: number | null;
  running: number | null;
  waiting: number | null;
  kv_cache_used: number | null;
}

export interface GatewayView {
  name: string;
  cluster: string;
  state: "connected" | "gone";
  age_s: number;
  accepted: Record<string, string>;
  refused: Record<string, string>;
}

export interface PriceView {
  cluster: string;
  pool: string;
  usd_per_device_hour: number | null;
  source: string;
  age_s: number | null;
  catalogue_usd: number | null;
  offer: string;
  doubt: string;
  losses_per_hour: number;
  replacement_chance: number;
  seen_hours: number;
}

export interface ForecastView {
  minutes: number;
  rps: number;
  rps_below: number;
}

export interface DemandView {
  model: string;
  cell: string;
  rps: number;
  sources: string[];
  age_s: number;
  is_decaying: boolean;
  is_spread: boolean;
  forecast: ForecastView[];
}

export interface EngineView {
  model: string;
  cluster: string;
  replicas: number;
  requests_per_second: number | null;
  input_tokens_per_second: number | null;
  output_tokens_per_second: number | null;
  running: number | null;
  waiting: number | null;
  kv_cache_used: number | null;
  declared_rps: number | null;
  learnt_rps: number | null;
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
  gateways: GatewayView[];
  observed: ObservedView[];
  growth: GrowthView[];
  conditions: ConditionView[];
}

export interface NearView {
  rtt_ms_mean: number;
  rtt_ms_p95: number;
  excess_ms_mean: number;
}

export interface ModelView {
  name: string;
  runtime: string;
  policy: string;
  objective_ms: number;
  service_ms: number;
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
  latency_basis: LatencyBasis;
  latency_age_s: number | null;
  latency_confidence: number | null;
  rtt_ms_p95: number | null;
  within_objective: boolean;
}

export interface LatencyView {
  cell: string;
  cluster: string;
  rtt_ms_p50: number;
  rtt_ms_p95: number | null;
  basis: LatencyBasis;
  source: string;
  confidence: number | null;
  age_s: number | null;
}

export interface CellDemandView {
  model: string;
  rps: number;
  age_s: number;
  is_decaying: boolean;
  counted_by: string[];
  unserved_rps: number;
  code: UnservedCode;
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

export interface IsochronesView {
  model: string;
  epoch: number;
  generation: number;
  objective_ms: number;
  service_ms: number;
  west_deg: number;
  north_deg: number;
  step_deg: number;
  columns: number;
  rows: number;
  clusters: string[];
  latency_ms: number[];
  cluster: number[];
  basis: string;
}

export interface ReadyView {
  cluster: string;
  latency_ms: number;
  latency_source: string;
  latency_basis: LatencyBasis;
  latency_age_s: number | null;
  latency_confidence: number | null;
  rtt_ms_p95: number | null;
  within_objective: boolean;
}

export interface PlaceView {
  model: string;
  lat: number;
  lon: number;
  objective_ms: number;
  service_ms: number;
  clusters: ReadyView[];
}

export interface PlacementView {
  model: string;
  cluster: string;
  region: string;
  pool: string;
  desired: number;
  ready: number | null;
  usd_per_hour: number;
  reason: string;
}

export interface MoveView {
  model: string;
  cluster: string;
  pool: string;
  before: number;
  after: number;
  reason: string;
}

export interface CostView {
  accelerators: number;
  egress: number;
  late: number;
  unserved: number;
  moves: number;
  proximity: number;
  risk: number;
  total: number;
}

export interface PlannedUnservedView {
  model: string;
  code: UnservedCode;
  requests_per_second: number;
  cells: number;
}

export interface ShortfallView {
  model: string;
  rule: string;
  subject: string;
  reason: string;
}

export interface LimitView {
  limit: Limit;
  subject: string;
  reason: string;
}

export interface PlanView {
  epoch: number;
  generation: number;
  at_s: number;
  trigger: string;
  summary: string;
  cost: CostView;
  near: NearView | null;
  near_by_model: Record<string, NearView>;
  bound_usd_per_hour: number;
  gap: number;
  bound_is_loose: boolean;
  moves: number;
  changes: MoveView[];
  limits: string[];
  reached: LimitView[];
  unserved: PlannedUnservedView[];
  shortfalls: ShortfallView[];
}

export interface EventView {
  id: number;
  at_s: number;
  type: EventType;
  reason: string;
  object: string;
  message: string;
}

export interface RouteTableRow {
  model: string;
  cell: string;
  country: string;
  lat: number;
  lon: number;
  rps: number;
  unserved_share: number;
  routes: RouteView[];
}

export interface RouteTable {
  version: number;
  epoch: number;
  generation: number;
  items: RouteTableRow[];
}

export interface NearestRoute {
  model: string;
  lat: number;
  lon: number;
  cell: string;
  cell_distance_km: number;
  routes: RouteView[];
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
  of: Explained;
  kept_because: string;
  summary: string;
  filters: FilterView[];
  clusters: ClusterVerdictView[];
  unserved: string[];
}

export interface WayView {
  cluster: string;
  requests_per_second: number;
  latency_ms: number | null;
  code: string;
  reason: string;
  usd_per_hour: number | null;
  terms: ScoreTermView[];
}

export interface CellExplanationView {
  model: string;
  cell: string;
  epoch: number;
  generation: number;
  summary: string;
  ways: WayView[];
  unserved: string[];
}

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

export interface LatencyChangeView {
  model: string;
  cell: string;
  before_ms: number | null;
  after_ms: number | null;
}

export interface RestartView {
  model: string;
  replicas: number;
}

export interface DiffView {
  changed: boolean;
  usd_per_hour_before: number;
  usd_per_hour_after: number;
  near_before: NearView | null;
  near_after: NearView | null;
  changes: MoveView[];
  latency: LatencyChangeView[];
  unserved_rps_before: number;
  unserved_rps_after: number;
  refused: string[];
  restarts: RestartView[];
}

export interface ProblemView {
  file: string;
  line: number;
  column: number;
  message: string;
  expected: string;
  hint: string;
}

export interface PolicyFileView {
  name: string;
  revision: number;
  accepted_at_s: number | null;
  documents: string[];
  problems: ProblemView[];
  warnings: ProblemView[];
  carrying_out: string;
}

export interface AppliedView {
  revision: number;
  documents: string[];
  changed: boolean;
  warnings: ProblemView[];
}

export interface WithdrawnView {
  name: string;
  documents: string[];
}

export interface ErrorView {
  code: string;
  message: string;
  hint: string;
  problems: ProblemView[];
}

export interface ReasonBody {
  reason: string;
}

export interface Items {
  items: unknown[];
}
