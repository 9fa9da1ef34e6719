// Events: finding them, one with its causes and its consequences, and any number in them over time.

import { get } from "./api.js";
import { lineChart } from "./charts.js";
import { h } from "./dom.js";
import { badge, empty, facts, filters, more, raw, table } from "./parts.js";
import { ago, brief, figure, pretty, when } from "./words.js";

const HOURS = { "1 hour": 1, "6 hours": 6, "1 day": 24, "7 days": 168, "30 days": 720 };

export const title = "Events";
export const reloads = true;

export async function load({ params, id, now }) {
  if (id) return { one: await get(`events/${encodeURIComponent(id)}`) };
  const { type, subject, text, before, span } = params;
  const since = span ? Math.round(now - HOURS[span] * 3600e6) : "";
  const [events, chart] = await Promise.all([
    get("events", { type, subject, text, before, since }),
    charted(params, now),
  ]);
  return { events, chart };
}

// The numbers of one type over time: of the field that is asked for, or the one that bare values have.
async function charted({ type, subject, field, span }, now) {
  if (!type) return null;
  const fields = (await get("fields", { type })).fields;
  const name = fields.includes(field) ? field : fields.includes("value") ? "value" : fields[0];
  if (!name) return { fields };
  const since = Math.round(now - (HOURS[span] ?? 1) * 3600e6);
  const { points, complete } = await get("series", { type, subject, field: name, since, points: 300 });
  return { fields, name, points, complete };
}

export function draw(ctx) {
  return ctx.id ? one(ctx.data.one, ctx) : all(ctx);
}

function all(ctx) {
  const { events, chart } = ctx.data;
  const asked = ["type", "subject", "text", "span"].some((name) => ctx.params[name]);
  return [
    h("h1", { tabindex: -1 }, "Events"),
    filters(ctx, "Search events", [
      { name: "type", label: "Type", placeholder: "temperature.*" },
      { name: "subject", label: "Subject", placeholder: "freezer-*" },
      { name: "text", label: "Text", type: "search" },
      { name: "span", label: "Since", options: ["", ...Object.keys(HOURS)] },
      ...(chart?.fields.length > 1
        ? [{ name: "field", label: "Chart of", options: chart.fields, value: chart.name }]
        : []),
    ]),
    chart?.name && drawn(chart, ctx),
    chart &&
      !chart.name &&
      h("p", { class: "soft" }, "The latest events of this type hold no numbers: there is nothing to draw."),
    !ctx.params.type &&
      h("p", { class: "soft small" }, "Give a type, and the numbers in its events are drawn over time."),
    events.items.length
      ? table(
          "Events",
          ["Event", "Subject", "Occurred", "Says"],
          events.items.map((each) => shown(each, ctx)),
        )
      : empty(
          asked ? "No event fits." : "There are no events yet.",
          asked
            ? "A * stands for anything: freezer-*."
            : "Publish something on a topic that a route takes, or try edgeq emit.",
        ),
    more(ctx.older(events.next)),
  ];
}

function drawn({ name, points, complete }, { width, redraw, params }) {
  const label = [name, "of", params.type, params.subject && `about ${params.subject}`].filter(Boolean).join(" ");
  const drawnPoints = points.map(([at, low, value, high]) => ({ at, low, value, high }));
  return h(
    "section",
    { class: "card", "aria-label": "Chart" },
    lineChart({
      key: `series:${label}`,
      label,
      points: drawnPoints,
      width: width - 42,
      height: 220,
      say: figure,
      redraw,
    }),
    h(
      "p",
      { class: "soft small" },
      "The line is the mean, the band reaches from the least to the greatest of each stretch of time.",
      !complete && " There are more events than were looked at: only the latest are drawn.",
    ),
  );
}

function shown(event, ctx) {
  const same = { ...ctx.params, before: "", type: event.type, subject: event.subject };
  return {
    key: `event:${event.id}`,
    cells: [
      [
        h("a", { href: `#events/${event.id}` }, brief(event.type, 200)),
        " ",
        h("span", { class: "soft small id" }, `#${event.id}`),
      ],
      event.subject ? h("a", { class: "subject", href: ctx.link("events", same) }, brief(event.subject, 80)) : "–",
      h("span", {}, when(event.occurred_at), " ", h("span", { class: "soft small" }, ago(event.occurred_at, ctx.now))),
      event.description ? brief(event.description, 300) : h("code", {}, brief(JSON.stringify(event.data), 200)),
    ],
  };
}

function one({ event, causes = [], effects = [] }, ctx) {
  return [
    h("p", {}, h("a", { href: "#events" }, "All events")),
    h("h1", { tabindex: -1 }, `Event #${event.id}`),
    h(
      "section",
      { class: "card", key: `event:${event.id}` },
      h(
        "div",
        { class: "head" },
        h("h2", {}, brief(event.type, 200)),
        (event.tags ?? []).map((tag) => badge(brief(tag, 60), "idle")),
      ),
      event.description && h("p", { class: "text" }, brief(event.description, 2000)),
      facts(
        [
          "Subject",
          event.subject &&
            h(
              "a",
              { href: ctx.link("events", { type: event.type, subject: event.subject }) },
              brief(event.subject, 500),
            ),
        ],
        ["Topic", event.topic && h("code", {}, brief(event.topic, 300))],
        ["Occurred", when(event.occurred_at)],
        ["Recorded", when(event.recorded_at)],
        ["Key", event.idempotency_key && h("code", {}, brief(event.idempotency_key, 500))],
      ),
      h("h3", {}, "Data"),
      raw("Data", pretty(event.data)),
    ),
    chain("What caused it", causes, "Nothing in the store: it came from outside."),
    chain("What it caused", effects, "Nothing so far."),
  ];
}

function chain(name, events, nothing) {
  return h(
    "section",
    { class: "card", "aria-label": name },
    h("h2", {}, name),
    events.length
      ? h(
          "ol",
          { class: "chain" },
          events.map((each) =>
            h(
              "li",
              { key: `${each.what ?? "event"}:${each.id}` },
              link(each),
              h("span", { class: "soft" }, " ", when(each.occurred_at ?? each.created_at)),
            ),
          ),
        )
      : h("p", { class: "soft" }, nothing),
  );
}

function link(each) {
  const words = [each.type ?? each.kind ?? each.title, each.subject].filter(Boolean).join(" ");
  const view = (each.what ?? "events").replace("_", "-");
  const href = view === "notifications" ? "#notifications" : `#${view}/${each.id}`; // these have no view each
  return h("a", { href }, brief(`${view === "events" ? "" : `${view.replace("-", " ")} `}#${each.id} ${words}`, 200));
}
