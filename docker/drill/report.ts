// report.ts - the report of a drill as one HTML file that opens offline: a table, and plots as SVG. No script, no link.
import type { CycleRecord } from "./cycle.js";

export interface Group {
  scenario: string;
  backend: string;
  /** A service that is only there to be compared with. */
  isReference: boolean;
  cycles: CycleRecord[];
}

const html = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

const colors: Record<string, string> = {
  acknowledged: "#2a7f4f",
  refused: "#c9a227",
  ambiguous: "#b3361f",
  unreached: "#8a8f98",
  other: "#6b3fa0",
};
const phaseColors: Record<string, string> = {
  signal: "#6b3fa0",
  loop: "#3566b8",
  listener: "#2a9d8f",
  drain: "#c9a227",
  exit: "#b3361f",
};

function quantile(values: readonly number[], share: number): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

const total = (group: Group, pick: (record: CycleRecord) => number | undefined): number =>
  group.cycles.reduce((sum, record) => sum + (pick(record) ?? 0), 0);
const milliseconds = (value: number | undefined): string => (value === undefined ? "" : String(Math.round(value)));

/** None in n, by the rule of three: the true rate is below 3 / n, at 95 %. */
export function bound(count: number): string {
  return count === 0 ? "" : `below ${Number(Math.min(100, 300 / count).toPrecision(2))} %`;
}

/** The last line of a run, which scripts read. */
export const countsOf = (passed: number, failed: number): string => `${passed} passed, ${failed} failed`;

export function verdictOf({ cycles }: Group): "pass" | "fail" | "unknown" {
  if (cycles.some(({ verdict }) => verdict === "fail")) return "fail";
  return cycles.length === 0 || cycles.some(({ verdict }) => verdict === "unknown") ? "unknown" : "pass";
}

/** A group in a line, and a line for each of the first cycles that did not pass. */
export function tellGroup(group: Group): string {
  const { cycles } = group;
  const verdict = verdictOf(group);
  const figures = [
    `${cycles.length} cycles`,
    ...(["acknowledged", "refused", "ambiguous", "dropped"] as const).map(
      (name) => `${total(group, (record) => record[name])} ${name}`,
    ),
    `${total(group, ({ judgement }) => judgement?.lost)} lost`,
    `${total(group, ({ judgement }) => judgement?.torn)} torn`,
    `${total(group, ({ judgement }) => judgement?.duplicated)} twice`,
    ...timesOf(
      "stop",
      cycles.flatMap(({ stopMs }) => stopMs ?? []),
    ),
    ...timesOf(
      "takeover",
      cycles.flatMap(({ takeoverMs }) => takeoverMs ?? []),
    ),
  ];
  const lines = [
    `${(verdict === "fail" ? "FAIL" : verdict).padEnd(7)} ${group.scenario} on ${group.backend}: ${figures.join(", ")}`,
  ];
  for (const record of cycles.filter((one) => one.verdict !== "pass").slice(0, 5)) {
    const reasons = [
      ...record.violations.slice(0, 3).map((found) => `${found.invariant} ${found.detail}`),
      record.unknown,
    ];
    lines.push(`    cycle ${record.cycle}: ${reasons.filter(Boolean).join("; ")}`);
  }
  return lines.join("\n");
}

function timesOf(what: string, times: readonly number[]): string[] {
  if (times.length === 0) return [];
  return [`${what} ${milliseconds(quantile(times, 0.5))} ms median, ${milliseconds(Math.max(...times))} worst`];
}

function tableOf(groups: readonly Group[]): string {
  const heads =
    "scenario, backend, verdict, cycles, acknowledged, refused, ambiguous, dropped a cycle, of these late, torn, lost, twice, failure rate at 95 %, exit codes, stop median, stop worst, engine call median, ready median, takeover median, takeover worst";
  const rows = groups.map((group) => {
    const failed = group.cycles.filter(({ verdict }) => verdict === "fail").length;
    const verdict = group.isReference ? "reference" : verdictOf(group);
    const codes = new Map<number, number>();
    for (const { code } of group.cycles) if (code !== undefined) codes.set(code, (codes.get(code) ?? 0) + 1);
    const times = (name: "stopMs" | "callMs" | "readyMs" | "takeoverMs"): number[] =>
      group.cycles.flatMap((record) => record[name] ?? []);
    const median = (name: Parameters<typeof times>[0]): string => milliseconds(quantile(times(name), 0.5));
    const worst = (name: Parameters<typeof times>[0]): string => milliseconds(quantile(times(name), 1));
    const cells = [
      group.scenario,
      group.backend,
      verdict,
      group.cycles.length,
      total(group, (record) => record.acknowledged),
      total(group, (record) => record.refused),
      total(group, (record) => record.ambiguous),
      (total(group, (record) => record.dropped) / Math.max(1, group.cycles.length)).toFixed(2),
      (total(group, (record) => record.droppedLate) / Math.max(1, group.cycles.length)).toFixed(2),
      group.isReference ? "" : total(group, (record) => record.judgement?.torn),
      group.isReference ? "" : total(group, (record) => record.judgement?.lost),
      group.isReference ? "" : total(group, (record) => record.judgement?.duplicated),
      group.isReference ? "" : verdict === "pass" ? bound(group.cycles.length) : `${failed} of ${group.cycles.length}`,
      [...codes].map(([code, count]) => `${code} × ${count}`).join(", "),
      median("stopMs"),
      worst("stopMs"),
      median("callMs"),
      median("readyMs"),
      median("takeoverMs"),
      worst("takeoverMs"),
    ];
    return `<tr class="${verdict}">${cells.map((cell) => `<td>${html(String(cell))}</td>`).join("")}</tr>`;
  });
  const head = heads.split(", ").map((name) => `<th scope="col">${name}</th>`);
  return `<table><thead><tr>${head.join("")}</tr></thead><tbody>${rows.join("")}</tbody></table>`;
}

const legend = (names: Record<string, string>): string =>
  `<p class="legend">${Object.entries(names)
    .map(([name, color]) => `<span><i style="background:${color}"></i>${name}</span>`)
    .join("")}</p>`;

/** A dot for each stop, a lane for each group. */
function stopsPlot(groups: readonly Group[]): string {
  const lanes = groups.filter((group) => group.cycles.some(({ stopMs }) => stopMs !== undefined));
  const most = Math.max(1, ...lanes.flatMap((group) => group.cycles.map(({ stopMs }) => stopMs ?? 0)));
  // Logarithmic, since a stop that runs into the kill is a hundred times as long as one that doesn't.
  const x = (ms: number): number => 300 + (640 * Math.log10(1 + Math.max(0, ms))) / Math.log10(1 + most);
  const height = lanes.length * 24 + 40;
  const parts = lanes.map((group, at) => {
    const y = at * 24 + 18;
    const dots = group.cycles.flatMap(({ stopMs, cycle, code }) =>
      stopMs === undefined
        ? []
        : `<circle cx="${x(stopMs).toFixed(1)}" cy="${y}" r="3.5"><title>cycle ${cycle}: ${Math.round(stopMs)} ms, exit code ${code}</title></circle>`,
    );
    const label = html(`${group.scenario}, ${group.backend}`);
    return `<g class="${group.isReference ? "is-reference" : ""}"><text x="290" y="${y + 4}" text-anchor="end">${label}</text><line x1="300" x2="940" y1="${y}" y2="${y}"/>${dots.join("")}</g>`;
  });
  const ticks = [1, 10, 100, 1000, 10_000]
    .filter((ms) => ms <= most * 1.5)
    .map((ms) => `<text class="tick" x="${x(ms)}" y="${height - 6}" text-anchor="middle">${ms} ms</text>`);
  return `<svg viewBox="0 0 960 ${height}" role="img" aria-label="From the signal to the end">${parts.join("")}${ticks.join("")}</svg>`;
}

/** Shares of each group's requests. */
function outcomesPlot(groups: readonly Group[]): string {
  const lanes = groups.filter((group) => total(group, ({ acknowledged }) => acknowledged) > 0);
  const names = ["refused", "unreached", "ambiguous"] as const;
  const most = Math.max(
    1,
    ...lanes.map((group) =>
      names.reduce((sum, name) => sum + total(group, (record) => record[name]) / group.cycles.length, 0),
    ),
  );
  const rows = lanes.map((group, at) => {
    let from = 300;
    const bars = names.map((name) => {
      const each = total(group, (record) => record[name]) / group.cycles.length;
      const width = (560 * each) / most;
      const bar = `<rect x="${from}" y="${at * 24 + 8}" width="${width.toFixed(1)}" height="16" fill="${colors[name]}"><title>${name}: ${each.toFixed(2)} a cycle</title></rect>`;
      from += width;
      return bar;
    });
    const label = html(`${group.scenario}, ${group.backend}`);
    return `<text x="290" y="${at * 24 + 20}" text-anchor="end">${label}</text>${bars.join("")}<text x="${from + 6}" y="${at * 24 + 20}">${(((from - 300) * most) / 560).toFixed(1)}</text>`;
  });
  return `<svg viewBox="0 0 960 ${lanes.length * 24 + 12}" role="img" aria-label="Requests that were not acknowledged, a cycle">${rows.join("")}</svg>`;
}

/** Where a stop's time went, in the mean of each group. */
function phasesPlot(groups: readonly Group[]): string {
  const lanes = groups.filter((group) => group.cycles.some(({ phases }) => Object.keys(phases).length > 0));
  const mean = (group: Group, phase: string): number => {
    const told = group.cycles.filter(({ phases }) => Object.keys(phases).length > 0);
    return told.reduce((sum, record) => sum + (record.phases[phase] ?? 0), 0) / told.length;
  };
  const names = Object.keys(phaseColors);
  const most = Math.max(1, ...lanes.map((group) => names.reduce((sum, name) => sum + mean(group, name), 0)));
  const rows = lanes.map((group, at) => {
    let from = 300;
    const bars = names.map((name) => {
      const width = (600 * mean(group, name)) / most;
      const bar = `<rect x="${from.toFixed(1)}" y="${at * 24 + 8}" width="${width.toFixed(1)}" height="16" fill="${phaseColors[name]}"><title>${name}: ${mean(group, name).toFixed(1)} ms</title></rect>`;
      from += width;
      return bar;
    });
    const label = html(`${group.scenario}, ${group.backend}`);
    return `<text x="290" y="${at * 24 + 20}" text-anchor="end">${label}</text>${bars.join("")}<text x="${(from + 6).toFixed(1)}" y="${at * 24 + 20}">${Math.round(((from - 300) * most) / 600)} ms</text>`;
  });
  return `<svg viewBox="0 0 960 ${lanes.length * 24 + 12}" role="img" aria-label="Phases of a stop">${rows.join("")}</svg>`;
}

/** Each connection of one cycle as a lane, around the signal. */
function timelinePlot(group: Group): string {
  const record = group.cycles.findLast(({ timeline }) => timeline.length > 0);
  if (record === undefined) return "";
  const clients = [...new Set(record.timeline.map(([client]) => client))].sort((a, b) => a - b);
  const lane = 9;
  const height = clients.length * lane + 30;
  const x = (ms: number): number => 40 + ((Math.max(-150, Math.min(600, ms)) + 150) * 900) / 750;
  const bars = record.timeline.map(([client, from, to, what]) => {
    const left = x(from);
    const width = Math.max(1, x(to) - left);
    return `<rect x="${left.toFixed(1)}" y="${clients.indexOf(client) * lane + 2}" width="${width.toFixed(1)}" height="${lane - 3}" fill="${colors[what]}"><title>${what}, ${from} to ${to} ms</title></rect>`;
  });
  const line = (ms: number, text: string): string =>
    `<line class="mark" x1="${x(ms)}" x2="${x(ms)}" y1="0" y2="${height - 18}"/><text class="tick" x="${x(ms)}" y="${height - 5}" text-anchor="middle">${text}</text>`;
  const end =
    record.stopMs === undefined ? "" : line(record.stopMs, `exit ${record.code}, ${Math.round(record.stopMs)} ms`);
  return `<h3>${html(group.scenario)} on ${html(group.backend)}, cycle ${record.cycle}</h3><svg viewBox="0 0 960 ${height}" role="img" aria-label="Requests around the signal">${bars.join("")}${line(0, "signal")}${end}</svg>`;
}

function findings(groups: readonly Group[]): string {
  const items = groups.flatMap((group) =>
    group.isReference
      ? []
      : group.cycles
          .filter(({ verdict }) => verdict !== "pass")
          .map((record) => {
            const reasons = [
              ...record.violations.slice(0, 10).map((found) => `${found.invariant} ${found.detail}`),
              record.unknown ?? "",
            ];
            return `<li>${html(`${group.scenario} on ${group.backend}, cycle ${record.cycle}: ${reasons.filter(Boolean).join("; ")}`)}</li>`;
          }),
  );
  return items.length === 0 ? "<p>None.</p>" : `<ul>${items.join("")}</ul>`;
}

const style = `:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.8rem}th,td{border-bottom:1px solid #8886;padding:.3rem .5rem;text-align:right;vertical-align:bottom}
td:nth-child(-n+3),th:nth-child(-n+3){text-align:left}td:first-child{white-space:nowrap}.pass td:nth-child(3){color:#2a7f4f}.fail td:nth-child(3){color:#d0442a;font-weight:700}
.reference td{opacity:.75}svg{width:100%;height:auto;font-size:11px}svg text{fill:currentColor}svg line{stroke:#8884}svg circle{fill:#3566b8aa}.is-reference circle{fill:#b3361faa}
svg .mark{stroke:currentColor;stroke-dasharray:3 3}.tick{opacity:.7}.legend span{margin-right:1.2rem}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em}`;

export function reportOf(
  groups: readonly Group[],
  run: { seed: number; at: Date; skipped: readonly string[]; summary?: readonly string[] },
): string {
  const summary = (run.summary ?? []).map((sentence) => `<p><strong>${html(sentence)}.</strong></p>`).join("");
  const skipped = run.skipped.length === 0 ? "" : `<p>Skipped: ${html(run.skipped.join("; "))}.</p>`;
  const lines = groups.filter((group) => /under-load|kill-random|retries/.test(group.scenario)).map(timelinePlot);
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>holdfast drill</title><style>${style}</style></head><body>
<h1>Stops and kills</h1>
<p>${run.at.toISOString()}, seed ${run.seed}. Times in milliseconds. A dropped request was sent on a connection that the service's kernel had accepted, and got no answer; a late one was sent after the drain's patience for clients that are silent.</p>
${summary}${skipped}<div class="wide">${tableOf(groups)}</div>
<h2>What was found</h2>${findings(groups)}
<h2>From the signal to the end</h2>${stopsPlot(groups)}
<h2>Where a stop's time went, in the mean</h2>${legend(phaseColors)}${phasesPlot(groups)}
<h2>Requests that were not acknowledged, a cycle</h2>${legend(colors)}${outcomesPlot(groups)}
<h2>Around the signal, a lane for each connection</h2>${legend(colors)}${lines.join("")}
</body></html>
`;
}
