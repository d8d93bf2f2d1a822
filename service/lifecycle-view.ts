// lifecycle-view.ts - what the HTTP side may know of the process's life. Implemented by lifecycle.ts.

export type LifecycleState = "starting" | "standby" | "ready" | "lameduck" | "draining" | "forced" | "stopped";

/** Why a request is turned away; the name of its problem. */
export type Refusal = "starting" | "standby" | "draining";

export interface LifecycleView {
  state(): LifecycleState;
  /** When this state began, in milliseconds since 1970. */
  since(): number;
  /** True from the first TERM on: every answer then closes its connection. */
  closing(): boolean;
  /**
   * Asked once for every request. Undefined: it counts as in flight until finished() is called for it. Otherwise it
   * is refused and not counted.
   */
  admit(mutating: boolean): Refusal | undefined;
  finished(): void;
  inFlight(): number;
  /** Batches inside a critical section, in all threads. */
  gateDepth(): number;
  /** Aborted by the first signal. Answers without an end (event streams, long polls) say goodbye and end then. */
  readonly stopSignal: AbortSignal;
  /** Asked by GET /readyz: the signals are handled here, or are so again from now on. */
  keepSignals?(): void;
  /** More for GET /v1/status: how the last run ended and the like. */
  statusDetail(): object;
  /** More lines for GET /metrics, in the Prometheus text format. */
  metricsText?(): string;
}
