// Notifications: what was told to whom, what waits, what failed; acknowledging and trying again.

import { get } from "./api.js";
import { h } from "./dom.js";
import { badge, empty, filters, item, list, table } from "./parts.js";
import { ago, brief, count, duration, many, when } from "./words.js";

const STATES = ["", "queued", "sent", "grouped", "silenced", "dead"];
const FAILED = ["queued", "dead"]; // of others, the error says why they weren't to be sent

export const title = "Notifications";
export const reloads = true;

export async function load({ params }) {
  const { state, channel, before } = params;
  return get("notifications", { state, channel, before });
}

export function draw(ctx) {
  const channels = Object.entries(ctx.status.notifications ?? {});
  const head = h("h1", { tabindex: -1 }, "Notifications");
  if (!channels.length && !ctx.data.items.length) {
    return [
      head,
      empty(
        "No channels are configured.",
        "A channel is where people are told: ntfy, mail, a webhook. They stand under channels in the configuration.",
      ),
    ];
  }
  return [
    head,
    channels.length > 0 && overview(channels),
    h("h2", {}, "History"),
    filters(ctx, "Choose notifications", [
      { name: "state", label: "State", options: STATES },
      { name: "channel", label: "Channel", options: ["", ...channels.map(([name]) => name)] },
    ]),
    ctx.data.items.length
      ? list(
          "Notifications",
          ctx.data.items.map((each) => shown(each, ctx)),
          ctx.older(ctx.data.next),
        )
      : empty(
          "There is no such notification.",
          "People are told of events with the tag notification, and of contracts that are broken.",
        ),
  ];
}

function overview(channels) {
  return table(
    "Channels",
    ["Channel", "State", "#Waiting", "#Sent", "#Given up", "Longest wait"],
    channels.map(([name, each]) => ({
      key: `channel:${name}`,
      cells: [
        name,
        [
          each.configured === false
            ? badge("not configured", "warn")
            : each.last_error
              ? badge("failing")
              : badge("ready", "ok"),
          each.last_error && h("span", { class: "soft small below" }, brief(each.last_error, 300)),
        ],
        count(each.queued),
        count(each.sent),
        count(each.dead),
        each.queued ? duration(each.oldest_seconds) : "–",
      ],
    })),
  );
}

function shown(each, ctx) {
  const path = `notifications/${each.id}`;
  const line = [
    each.channel,
    " · ",
    each.sent_at ? ["sent ", when(each.sent_at)] : ["raised ", when(each.created_at)],
    ` (${ago(each.sent_at ?? each.created_at, ctx.now)})`,
    each.attempt > 1 && ` · ${many(each.attempt, "attempt")}`,
  ];
  return item({
    key: `notification:${each.id}`,
    title: each.title || "(without a title)",
    href: each.event_id ? `#events/${each.event_id}` : null,
    badges: [
      badge(each.state),
      badge(each.severity, each.severity === "critical" ? "bad" : "idle"),
      each.kind !== "alert" && badge(each.kind, "idle"),
    ],
    line,
    more: [
      each.body && each.body !== each.title && h("p", { class: "text" }, brief(each.body, 600)),
      each.error && h("p", { class: FAILED.includes(each.state) ? "wrong" : "soft" }, brief(each.error, 600)),
    ],
    buttons: [
      each.state === "dead" &&
        ctx.button("Try again", { path: `${path}/retry`, about: each.title, done: "It is queued again" }),
      each.state === "queued" &&
        ctx.button("Send now", {
          path: `${path}/retry`,
          about: each.title,
          done: "It is sent as soon as its channel can",
        }),
      (each.open ?? true) &&
        ctx.button("Acknowledge", {
          path: `${path}/ack`,
          about: each.title,
          done: "It is acknowledged: there will be no more reminders",
        }),
    ],
  });
}
