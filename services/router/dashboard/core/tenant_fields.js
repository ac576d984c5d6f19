// Fields of the forms for keys and teams: docs/policies.md describes the rules.

import { filled } from "./form.js";
import { known } from "./words.js";

const EFFORTS = ["none", "minimal", "low", "medium", "high", "xhigh"];
const WINDOWS = ["day", "week", "month", "total"];

const options = (values, none) => [["", none], ...values.map((value) => [value, value])];

const budget = (row) => [
  { name: "budget_usd", label: "Dollars", type: "number", min: 0, value: row.budget_usd },
  { name: "budget_tokens", label: "Tokens", type: "number", min: 1, value: row.budget_tokens },
  { name: "budget_window", label: "Window", type: "select", options: WINDOWS.map((window) => [window, window]), value: row.budget_window ?? "month" },
  { name: "budget_time_zone", label: "Time zone", type: "text", hint: "such as Europe/Berlin", value: row.budget_time_zone ?? "UTC" },
  { name: "budget_soft_percent", label: "Warn at percent", type: "number", min: 1, value: row.budget_soft_percent },
  { name: "budget_reserve", label: "Reserve what a request may cost", type: "check", value: row.budget_reserve },
].map((field) => ({ ...field, group: "Budget" }));

const RULES = ["models", "endpoints", "max_reasoning_effort", "service_tiers", "max_output_tokens", "ip_allow"];

const policy = ({ policy: rules }) => [
  { name: "policy.models", label: "Models", type: "list", hint: "globs, such as gpt-5.5*", value: rules?.models },
  { name: "policy.endpoints", label: "Endpoints", type: "list", hint: "such as responses", value: rules?.endpoints },
  { name: "policy.max_reasoning_effort", label: "Highest reasoning effort", type: "select", options: options(EFFORTS, "any"), value: rules?.max_reasoning_effort },
  { name: "policy.service_tiers", label: "Service tiers", type: "list", hint: "such as default, flex", value: rules?.service_tiers },
  { name: "policy.max_output_tokens", label: "Most output tokens", type: "number", min: 1, value: rules?.max_output_tokens },
  { name: "policy.ip_allow", label: "Client addresses", type: "list", hint: "networks, such as 10.0.0.0/8", value: rules?.ip_allow },
].map((field) => ({ ...field, group: "Policy: what requests may ask for" }));

// How a budget is counted is sent only with an amount, or if there was one.
export function withBudget(values, row = {}) {
  const amounts = ["budget_usd", "budget_tokens"];
  if (amounts.some((name) => known(values[name]) || known(row[name]))) return values;
  return Object.fromEntries(Object.entries(values).filter(([name]) => !name.startsWith("budget_")));
}

// Only fields that differ from the row, so that a change says what it changes. An empty
// field is null, except where there has to be a value.
export function changed(values, row) {
  const given = withBudget({ ...values, name: values.name ?? "" }, row);
  if ("policy" in given) given.policy = policyOf(given);
  const before = { ...row, policy: policyOf(row), expires_at: toMinute(row.expires_at) };
  const same = (name, value) => JSON.stringify(value ?? null) === JSON.stringify(before[name] ?? null);
  return Object.fromEntries(
    Object.entries(given).filter(([name, value]) => !same(name, value) && !(value === null && ALWAYS.includes(name))),
  );
}

const ALWAYS = ["queue_weight", "budget_window", "budget_time_zone", "budget_soft_percent"];
// As the field has it.
const toMinute = (iso) => (known(iso) ? new Date(Math.floor(new Date(iso) / 60_000) * 60_000).toISOString() : null);

// Its rules, those of a row in the order of the form; null: none.
const policyOf = ({ policy: rules }) => {
  const given = filled(rules ?? {});
  const ordered = RULES.filter((name) => name in given).map((name) => [name, given[name]]);
  return ordered.length ? Object.fromEntries(ordered) : null;
};

export function keyFields(key, teams) {
  const ids = teams.map(({ id }) => id);
  if (known(key.team_id) && !ids.includes(key.team_id)) ids.push(key.team_id);
  return [
    { name: "name", label: "Name", type: "text", value: key.name },
    { name: "team_id", label: "Team", type: "select", options: options(ids, "none"), value: key.team_id },
    { name: "pool_id", label: "Always this pool", type: "text", value: key.pool_id },
    { name: "pools", label: "Or one of these pools", type: "list", hint: "the first is the default", value: key.pools },
    { name: "expires_at", label: "Expires", type: "time", value: key.expires_at },
    { name: "requests_per_minute", label: "Requests per minute", type: "number", min: 1, value: key.requests_per_minute },
    { name: "tokens_per_minute", label: "Tokens per minute", type: "number", min: 1, value: key.tokens_per_minute },
    { name: "queue_weight", label: "Weight in queues", type: "number", min: 0.001, value: key.queue_weight ?? 1 },
    ...budget(key),
    ...policy(key),
  ];
}

export const teamFields = (team) => [
  { name: "name", label: "Name", type: "text", value: team.name },
  ...budget(team),
  ...policy(team),
];
