// Routes: what comes in where, and when something last did.

import { h } from "./dom.js";
import { empty, table } from "./parts.js";
import { counter, routeRate } from "./rates.js";
import { ago, count, rate, when } from "./words.js";

export const title = "Routes";

export function draw({ status, now }) {
  const routes = status.routes ?? [];
  return [h("h1", { tabindex: -1 }, "Routes"), routes.length ? listed(routes, now) : nothing(), aside(status)];
}

function listed(routes, now) {
  return table(
    "Routes",
    ["Topic", "#Rate", "#Messages", "Last message"],
    routes.map((route) => ({
      key: `route:${route.topic}`,
      cells: [
        h("code", {}, route.topic),
        rate(routeRate(route.topic)),
        count(route.messages),
        route.last_message_at
          ? last(route.last_message_at, now)
          : h("span", { class: "soft" }, "none since the start"),
      ],
    })),
  );
}

function last(moment, now) {
  return h("span", {}, when(moment), h("span", { class: "soft" }, ` ${ago(moment, now)}`));
}

function nothing() {
  return empty(
    "No routes are configured.",
    "Each entry of routes in the configuration takes the messages of a topic and makes events or jobs of them.",
  );
}

// What did not go its usual way, since the start.
function aside(status) {
  const gone = [
    ["dropped", "edgeq_messages_dropped_total"],
    ["made dead letters", "edgeq_messages_rejected_total"],
  ].flatMap(([what, name]) =>
    Object.entries(counter(status, name)).map(([reason, number]) => ({ what, reason, number })),
  );
  if (!gone.length) return h("p", { class: "soft" }, "Since the start, no message was dropped or refused.");
  return h(
    "section",
    { "aria-label": "Dropped or refused" },
    h("h2", {}, "Not handled, since the start"),
    table(
      "Dropped or refused",
      ["What became of them", "Why", "#Messages"],
      gone.map(({ what, reason, number }) => ({
        key: `${what}:${reason}`,
        cells: [what, reason || "–", count(number)],
      })),
    ),
  );
}
