// The charts of a time window, for everything or for one resource, key, team or model.

import "./chart.js";

import { json, withQuery } from "./api.js";
import { html, nothing, tabs } from "./html.js";
import { link } from "./address.js";
import { dollars, milliseconds, number, short } from "./words.js";

const WINDOWS = [["hour", "Hour"], ["day", "Day"], ["week", "Week"]];

// Charts: title, then lines as (name, series of the API, color), and how values are written.
const CHARTS = [
  ["Requests", [["requests", "requests", "accent"]], number],
  ["Errors", [["failed", "failed", "bad"], ["failovers", "failovers", "warn"]], number],
  ["Latency", [["median", "latency_p50_ms", "accent"], ["95th percentile", "latency_p95_ms", "warn"]], milliseconds],
  ["First token", [["median", "first_token_p50_ms", "accent"], ["95th percentile", "first_token_p95_ms", "warn"]], milliseconds],
  ["Tokens", [["input", "input_tokens", "accent"], ["cached", "cached_tokens", "good"], ["output", "output_tokens", "warn"]], short],
  ["Cost", [["dollars", "cost_usd", "accent"]], dollars],
];

export async function loadCharts(params) {
  const { model, resource_id, proxy_key_id, team_id } = params;
  const window = WINDOWS.some(([name]) => name === params.window) ? params.window : "hour";
  const answer = await json(withQuery("/admin/charts", { window, model, resource_id, proxy_key_id, team_id }));
  return { window, charts: CHARTS.map((chart) => drawn(chart, answer)), series: answer.series };
}

function drawn([title, lines, format], { times, series }) {
  return {
    title,
    chart: {
      times,
      format,
      lines: lines.map(([name, key, color]) => ({ name, color, values: series[key] ?? [] })),
    },
  };
}

export function chartsSection(data, { name, id = null, params }, titles = null) {
  const choices = WINDOWS.map(([value, text]) => [value, text, link(name, id, { ...params, window: value })]);
  const shown = (data?.charts ?? []).filter(({ title }) => !titles || titles.includes(title));
  return html`<section aria-labelledby="charts-title">
    <div class="bar"><h2 id="charts-title">Over time</h2>${tabs("Time window", choices, data?.window ?? params.window ?? "hour")}</div>
    <div class="charts">${shown.map(({ title, chart }) => html`<figure><figcaption>${title}</figcaption>
      <time-chart label=${title} .chart=${chart}></time-chart></figure>`)}</div>
    ${data && !data.charts ? html`<p class="empty">No figures.</p>` : nothing}
  </section>`;
}
