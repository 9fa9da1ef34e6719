// How it is now: what is wrong first, in words; then the figures.

import { spark } from "./charts.js";
import { h } from "./dom.js";
import { badge, card, facts, since } from "./parts.js";
import { troubles } from "./trouble.js";
import { ago, brief, count, duration, exactly, figure, many, rate, size, when } from "./words.js";

export const title = "Now";
export const wantsHistory = true;

export function draw({ status, history, now, skew }) {
  return [h("h1", { tabindex: -1 }, "Now"), verdict(status, now), figures(status, history), details(status, now, skew)];
}

function verdict(status, now) {
  const found = troubles(status);
  if (!found.length) {
    return h(
      "section",
      { class: "verdict ok", "aria-label": "What is wrong" },
      h("p", { class: "headline" }, h("span", { class: "sign", "aria-hidden": "true" }, "✓"), "All is well"),
      h("p", { class: "soft" }, "Messages come in, are stored and handled; no promise is broken."),
    );
  }
  const worst = found[0].tone;
  return h(
    "section",
    { class: `verdict ${worst}`, "aria-label": "What is wrong" },
    h(
      "p",
      { class: "headline" },
      h("span", { class: "sign", "aria-hidden": "true" }, worst === "bad" ? "✕" : "!"),
      found.length === 1 ? "One thing needs attention" : `${found.length} things need attention`,
    ),
    h(
      "ul",
      { class: "troubles" },
      found.map((each) =>
        h(
          "li",
          { class: each.tone },
          badge(each.tone === "bad" ? "problem" : "notice", each.tone),
          h(
            "div",
            {},
            each.href ? h("a", { href: each.href }, each.what) : h("strong", {}, each.what),
            Number.isFinite(each.since) && [" ", since(each.since, now)],
            each.why && h("p", { class: "soft" }, each.why),
            each.todo && h("p", { class: "todo" }, each.todo),
          ),
        ),
      ),
    ),
  );
}

function figures(status, history) {
  const last = (status.processors ?? []).reduce((a, b) => (a?.lag_events >= b.lag_events ? a : b), null);
  const lags = history?.at.map((_, i) =>
    Object.values(history.lag).reduce((most, each) => Math.max(most, each[i] ?? 0), 0),
  );
  const latency = history?.latency_ms.filter(Number.isFinite).at(-1);
  const tiles = [
    [
      "Messages",
      rate(status.rates?.messages_per_second),
      history?.messages_per_second,
      "came in, over the last minute",
    ],
    ["Events", rate(status.rates?.events_per_second), history?.events_per_second, "were stored, over the last minute"],
    [
      "Latency",
      latency === undefined ? "–" : duration(latency / 1000),
      history?.latency_ms,
      "from arrival to acknowledgement",
    ],
    [
      "Lag",
      count(last?.lag_events),
      lags,
      last?.lag_events
        ? `events wait for ${brief(last.name, 80)}, which is furthest behind`
        : "events wait for processors",
    ],
  ];
  return h(
    "ul",
    { class: "tiles", "aria-label": "Figures" },
    tiles.map(([name, value, values, what]) =>
      h(
        "li",
        { class: "tile" },
        h("h2", {}, name),
        h("p", { class: "value" }, value),
        spark(name, values ?? []),
        h("p", { class: "soft small" }, what),
      ),
    ),
  );
}

function details(status, now, skew) {
  const { session, store = {}, retention = {}, backup, heartbeat } = status;
  const synced = status.clock.synchronised;
  return h(
    "div",
    { class: "cards" },
    card(
      "Session",
      session
        ? facts(
            ["State", badge(session.state)],
            ["Broker", h("code", {}, session.url)],
            ["Why", session.reason],
            [
              session.connected_since ? "Connected" : "Lost",
              (session.connected_since ?? session.disconnected_since) &&
                ago(session.connected_since ?? session.disconnected_since, now),
            ],
            ["Last message", ago(session.last_message_at, now)],
            ["Waiting", many(session.waiting, "message")],
            ["Not yet acknowledged", many(session.in_flight, "message")],
            ["Client id", h("code", {}, session.client_id)],
            ["Connections so far", count(session.connections)],
          )
        : h("p", { class: "soft" }, "It is starting."),
    ),
    card(
      "Store and disk",
      facts(
        ["State", store.ok === false ? badge("takes nothing", "bad") : badge("takes commits", "ok")],
        ["Why", store.ok === false ? store.reason : null],
        ["Place", h("code", {}, store.place)],
        [
          "Free on the disk",
          Number.isFinite(store.free_disk_bytes) ? `${size(store.free_disk_bytes)} of ${size(store.disk_bytes)}` : null,
        ],
        [
          "Taken by rows",
          Number.isFinite(store.used_bytes)
            ? size(store.used_bytes) + (retention.max_size ? ` of at most ${size(retention.max_size)}` : "")
            : null,
        ],
        ["Database", Number.isFinite(store.file_bytes) ? size(store.file_bytes) : null],
        ["Write-ahead log", Number.isFinite(store.wal_bytes) ? size(store.wal_bytes) : null],
        ["Latest event", store.head ? h("a", { href: `#events/${store.head}` }, `#${store.head}`) : null],
        ["Oldest event", store.oldest_event_at ? when(store.oldest_event_at) : null],
        ["Backup", backup && (backup.last_error ? badge("failing") : `made ${ago(backup.last_success_at, now)}`)],
      ),
    ),
    card(
      "Clock",
      facts(
        [
          "State",
          synced === null
            ? badge("unknown whether synchronised", "idle")
            : synced
              ? badge("synchronised", "ok")
              : badge("not synchronised", "warn"),
        ],
        ["The gateway's time", exactly(now)],
        [
          "Against this device",
          Math.abs(skew) < 2 ? "the same" : `${duration(Math.abs(skew))} ${skew > 0 ? "ahead" : "behind"}`,
        ],
        [
          "Heartbeat",
          heartbeat && (heartbeat.last_error ? badge("failing") : `got through ${ago(heartbeat.last_success_at, now)}`),
        ],
      ),
    ),
    card(
      "This gateway",
      facts(
        ["Name", status.gateway],
        ["edgeq", status.version],
        ["Running for", duration((now - status.started_at) / 1e6)],
        ["Process", status.pid && h("code", {}, status.pid)],
        ["Leader", status.leader],
        [
          "Workers",
          status.workers?.length
            ? status.workers
                .map((each) => `${each.queue}: ${figure(each.running)} of ${each.concurrency} busy`)
                .join(", ")
            : null,
        ],
      ),
    ),
  );
}
