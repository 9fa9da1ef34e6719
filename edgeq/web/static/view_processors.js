// Processors: how far each has got, over time too.

import { lineChart } from "./charts.js";
import { h } from "./dom.js";
import { badge, empty, facts } from "./parts.js";
import { processorRate } from "./rates.js";
import { ago, brief, count, duration, many, rate } from "./words.js";

export const title = "Processors";
export const wantsHistory = true;

export function draw(ctx) {
  const processors = ctx.status.processors ?? [];
  return [
    h("h1", { tabindex: -1 }, "Processors"),
    h(
      "p",
      { class: "soft" },
      "Each reads the events in their order and remembers how far it got. Lag is what lies before it still.",
    ),
    processors.length
      ? h(
          "div",
          { class: "stack" },
          processors.map((each) => shown(each, ctx)),
        )
      : empty(
          "No processors are configured.",
          "Contracts bring the sentinel, channels the courier; others stand under processors in the configuration.",
        ),
  ];
}

function shown(each, ctx) {
  const path = `processors/${encodeURIComponent(each.name)}`;
  const stopped = each.state === "paused" || each.state === "halted";
  return h(
    "section",
    { class: "card", key: `processor:${each.name}`, "aria-label": each.name },
    h(
      "div",
      { class: "head" },
      h("h2", {}, each.name),
      each.kind && h("span", { class: "soft" }, each.kind),
      badge(each.state),
      h(
        "div",
        { class: "buttons end" },
        stopped
          ? ctx.button("Resume", { path: `${path}/resume`, about: each.name, done: `${each.name} goes on` })
          : ctx.button("Pause", {
              path: `${path}/pause`,
              about: each.name,
              done: `${each.name} is paused. Events wait for it; none is lost`,
            }),
      ),
    ),
    each.error && h("p", { class: "wrong" }, brief(each.error, 2000)),
    facts(
      ["Lag", each.lag_events ? `${many(each.lag_events, "event")}, ${duration(each.lag_seconds)}` : "none"],
      ["Handles", rate(processorRate(each.name))],
      ["Read up to", `#${each.last_consumed_id}`],
      [each.attempt ? "Last tried" : "Last moved", each.updated_at ? ago(each.updated_at, ctx.now) : null],
      ["Attempt", each.attempt ? count(each.attempt) : null],
      ["Busy with", each.busy_with ? `#${each.busy_with}` : null],
      ["Says", each.says && said(each.says)],
      ["On", each.owner],
    ),
    chart(each, ctx),
  );
}

function said(says) {
  if (typeof says !== "object") return String(says);
  return Object.entries(says)
    .map(
      ([name, value]) => `${name.replaceAll("_", " ")}: ${typeof value === "object" ? JSON.stringify(value) : value}`,
    )
    .join(", ");
}

function chart(each, { history, width, redraw }) {
  const lag = history?.lag[each.name];
  if (!lag) return null;
  const points = history.at.map((at, i) => ({ at, value: lag[i] }));
  return lineChart({
    key: `lag:${each.name}`,
    label: "Lag, in events",
    points,
    width: width - 42,
    height: 130,
    say: count,
    whole: true,
    redraw,
  });
}
