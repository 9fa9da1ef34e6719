// Contracts: which promises are kept, which are broken, why, and how it was over the last hours.

import { get } from "./api.js";
import { timeLine } from "./charts.js";
import { h } from "./dom.js";
import { badge, empty, since, table } from "./parts.js";
import { brief, clock, duration, many, pretty, when } from "./words.js";

const SEVERITIES = ["critical", "warning", "info"];
const ORDER = ["violated", "unknown", "pending", "suppressed", "ok"];
const HOURS = { "1 hour": 1, "6 hours": 6, "1 day": 24, "7 days": 168 };
const LEAST = 600e6; // microseconds: a time line isn't shorter
const SUBJECTS_MAX = 50;
const lines = new Map(); // by contract: its time lines, and of which states

export const title = "Contracts";
export const reloads = true;

export async function load({ params, now }) {
  const contracts = (await get("contracts")).items;
  const hours = spanOf(params);
  const spans = await Promise.all(contracts.map((each) => timeLineOf(each, hours, Math.round(now - hours * 3600e6))));
  return { contracts, spans: Object.fromEntries(contracts.map((each, i) => [each.name, spans[i]])) };
}

// Asked for again only when the contract has changed: a page that stays open must not cost the gateway much.
async function timeLineOf({ name, states }, hours, since) {
  const version = JSON.stringify([hours, states.map((each) => [each.subject, each.state, each.since])]);
  const known = lines.get(name);
  if (known?.version === version) return known.spans;
  const { spans } = await get(`contracts/${encodeURIComponent(name)}/timeline`, { since });
  lines.set(name, { version, spans });
  return spans;
}

export function draw(ctx) {
  const { contracts } = ctx.data;
  const head = h("h1", { tabindex: -1 }, "Contracts");
  if (!contracts.length) {
    return [
      head,
      empty(
        "No contracts are configured.",
        "A contract is a promise about events, such as: every freezer reports within ten minutes. " +
          "They stand under contracts in the configuration.",
      ),
    ];
  }
  const sorted = contracts.toSorted(
    (a, b) => rank(a) - rank(b) || gravity(a) - gravity(b) || a.name.localeCompare(b.name),
  );
  const from = beginning(ctx);
  return [
    head,
    summary(contracts),
    spanLinks(ctx, from),
    h(
      "div",
      { class: "stack" },
      sorted.map((each) => shown(each, from, ctx)),
    ),
  ];
}

// Where the time lines begin: as far back as was chosen, or else where there is something to see.
function beginning({ params, now, data }) {
  const from = now - spanOf(params) * 3600e6;
  if (params.span) return from;
  const first = Object.values(data.spans)
    .flat()
    .reduce((least, span) => Math.min(least, span.from), now - LEAST);
  return Math.max(from, first);
}

const spanOf = (params) => HOURS[params.span] ?? 6;
const total = (contract) => Object.values(contract.subjects).reduce((sum, number) => sum + number, 0);
const rank = (contract) => ORDER.findIndex((state) => contract.subjects[state]) >>> 0; // without subjects: last
const gravity = (contract) => SEVERITIES.indexOf(contract.severity) >>> 0;

function summary(contracts) {
  const counts = ORDER.map((state) => [state, contracts.reduce((sum, each) => sum + (each.subjects[state] ?? 0), 0)]);
  return h(
    "p",
    { class: "badges" },
    counts.filter(([, number]) => number).map(([state, number]) => badge(`${number} ${state}`, toneOf(state))),
  );
}

function spanLinks(ctx, from) {
  return h(
    "div",
    { class: "choices", role: "group", "aria-label": "Time shown" },
    Object.keys(HOURS).map((span) =>
      h(
        "a",
        { href: ctx.link("contracts", { span }), "aria-current": HOURS[span] === spanOf(ctx.params) ? "true" : null },
        span,
      ),
    ),
    h("p", { class: "soft small" }, "Time lines reach from ", when(from), " until now."),
  );
}

function shown(contract, from, ctx) {
  const states = contract.states.toSorted(
    (a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.subject.localeCompare(b.subject),
  );
  const rows = states.slice(0, SUBJECTS_MAX).map((each) => subjectRow(contract, each, from, ctx));
  return h(
    "section",
    { class: "card", key: `contract:${contract.name}`, "aria-label": contract.name },
    h(
      "div",
      { class: "head" },
      h("h2", {}, contract.name),
      h("span", { class: "soft" }, contract.kind),
      contract.configured
        ? badge(contract.severity, contract.severity === "critical" && contract.subjects.violated ? "bad" : "idle")
        : badge("not configured", "warn"),
    ),
    contract.description && h("p", {}, brief(contract.description, 500)),
    contract.promise && h("p", { class: "soft" }, brief(contract.promise, 500)),
    rows.length
      ? table(contract.name, ["Subject", "State", "Why", "Time line"], rows)
      : h("p", { class: "soft" }, "There is no subject yet: nothing has come that this is about."),
    total(contract) > rows.length &&
      h(
        "p",
        { class: "soft" },
        `and ${many(total(contract) - rows.length, "subject")} more; edgeq contracts list shows them all`,
      ),
  );
}

function subjectRow(contract, each, from, ctx) {
  const spans = ctx.data.spans[contract.name].filter(
    (span) => span.subject === each.subject && (span.to ?? ctx.now) > from,
  );
  const story = spans.map((span) => `${span.state} from ${clock(span.from)}`).join(", ") || each.state;
  const words = `${each.subject || "all"}: ${story}`;
  return {
    key: `${contract.name}:${each.subject}`,
    cells: [
      h(
        "a",
        { href: ctx.link("events", { type: "contract.*", subject: each.subject }) },
        brief(each.subject, 80) || "(all)",
      ),
      [
        badge(each.state),
        h("span", { class: "below" }, since(each.since, ctx.now)),
      ],
      why(each, ctx.now),
      timeLine({ label: words, spans, from, to: ctx.now }),
    ],
  };
}

function why(each, now) {
  const { message, observed, cure } = each.detail;
  const left = each.deadline_at ? (each.deadline_at - now) / 1e6 : null;
  const parts = [
    message
      ? brief(message, 300)
      : observed !== undefined && observed !== null && `observed ${brief(pretty(observed), 120)}`,
    left !== null && (left > 0 ? `next decision in ${duration(left)}` : "to be decided now"),
  ].filter(Boolean);
  if (!parts.length) return h("span", { class: "soft" }, "–");
  return [
    h("span", {}, parts.join("; ")),
    cure && h("span", { class: "soft small below" }, `Waits for: ${brief(cure, 300)}`),
  ];
}

function toneOf(state) {
  return { violated: "bad", unknown: "warn", pending: "warn", suppressed: "idle", ok: "ok" }[state];
}
