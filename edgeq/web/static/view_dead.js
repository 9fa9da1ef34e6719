// Dead letters: what could not be handled, kept whole, to be tried again or let go.

import { get } from "./api.js";
import { h } from "./dom.js";
import { badge, empty, facts, filters, item, list, raw } from "./parts.js";
import { ago, brief, gist, many, size, when } from "./words.js";

const SHOWN_BYTES_MAX = 256 * 1024;

export const title = "Dead letters";
export const reloads = true;

export async function load({ params, id }) {
  if (id) return get(`dead-letters/${encodeURIComponent(id)}`);
  const { source, reason, before } = params;
  return get("dead-letters", { source, reason, before });
}

export function draw(ctx) {
  return ctx.id ? one(ctx.data, ctx) : all(ctx);
}

function all(ctx) {
  const counted = ctx.status.dead_letters ?? [];
  const unique = (name) => ["", ...new Set(counted.map((each) => each[name]))];
  return [
    h("h1", { tabindex: -1 }, "Dead letters"),
    h(
      "p",
      { class: "soft" },
      "What could not be handled lies here until somebody decides. " +
        "To redrive one is to give it another chance, once its cause is gone.",
    ),
    filters(ctx, "Choose dead letters", [
      { name: "source", label: "Source", options: unique("source") },
      { name: "reason", label: "Reason", options: unique("reason") },
    ]),
    ofAll(counted, ctx),
    ctx.data.items.length
      ? list(
          "Dead letters",
          ctx.data.items.map((each) => shown(each, ctx)),
          ctx.older(ctx.data.next),
        )
      : empty("There are no dead letters.", "That is how it should be."),
  ];
}

// What can be done with all that are chosen at once.
function ofAll(counted, ctx) {
  const { source = "", reason = "" } = ctx.params;
  const fits = (each) => [each.source, ""].includes(source) && [each.reason, ""].includes(reason);
  const number = counted.filter(fits).reduce((sum, each) => sum + each.count, 0);
  if (number < 2) return null;
  const letters = many(number, "dead letter");
  const more = { body: { source, reason }, about: letters };
  const buttons = [
    ctx.button("Redrive all", {
      ...more,
      path: "dead-letters/redrive",
      done: `${letters} get another chance`,
      confirm: [`Redrive ${letters}?`, "Each is handled once more. What fails again comes back here."],
    }),
    ctx.button("Discard all", {
      ...more,
      path: "dead-letters/discard",
      done: `${letters} are gone`,
      danger: true,
      confirm: [`Discard ${letters}?`, "What they hold is deleted for good. This can't be undone."],
    }),
  ].filter(Boolean);
  return buttons.length > 0 && h("div", { class: "buttons", key: "all" }, h("p", { class: "soft" }, letters), buttons);
}

function shown(letter, ctx) {
  return item({
    key: `letter:${letter.id}`,
    href: `#dead-letters/${letter.id}`,
    title: letter.topic || `#${letter.id} from ${letter.source}`,
    badges: [badge(letter.reason, "bad"), ...fate(letter)],
    line: [letter.source, " · ", when(letter.created_at), ` (${ago(letter.created_at, ctx.now)})`],
    more: h("p", { class: "wrong" }, gist(letter.error)),
    buttons: buttons(letter, ctx),
  });
}

function fate(letter) {
  if (letter.redriven_at) return [badge("redriven", "ok")];
  return letter.redrive_requested_at ? [badge("redrive asked for", "info")] : [];
}

function buttons(letter, ctx) {
  if (letter.redriven_at) return [];
  const about = `dead letter #${letter.id}`;
  const path = `dead-letters/${letter.id}`;
  return [
    ctx.button("Redrive", { path: `${path}/redrive`, about, done: `Dead letter #${letter.id} gets another chance` }),
    ctx.button("Discard", {
      path: `${path}/discard`,
      about,
      done: `Dead letter #${letter.id} is gone`,
      danger: true,
      then: "dead-letters",
      confirm: [`Discard dead letter #${letter.id}?`, "What it holds is deleted for good. This can't be undone."],
    }),
  ];
}

function one(letter, ctx) {
  return [
    h("p", {}, h("a", { href: "#dead-letters" }, "All dead letters")),
    h("h1", { tabindex: -1 }, `Dead letter #${letter.id}`),
    h(
      "section",
      { class: "card", key: `letter:${letter.id}` },
      h(
        "div",
        { class: "head" },
        badge(letter.reason, "bad"),
        fate(letter),
        h("div", { class: "buttons end" }, buttons(letter, ctx)),
      ),
      facts(
        ["Source", letter.source],
        ["Topic", letter.topic && h("code", {}, brief(letter.topic, 300))],
        ["Since", when(letter.created_at)],
        ["Redriven", letter.redriven_at && when(letter.redriven_at)],
        ["Event", letter.event_id && h("a", { href: `#events/${letter.event_id}` }, `#${letter.event_id}`)],
        ["Job", letter.job_id && h("a", { href: `#jobs/${letter.job_id}` }, `#${letter.job_id}`)],
      ),
      h("h3", {}, "Error"),
      raw("Error", letter.error ?? ""),
      payload(letter),
    ),
  ];
}

function payload({ payload: held, payload_encoding: encoding, payload_bytes: bytes }) {
  if (held === null || held === undefined) return null;
  const isCut = bytes > SHOWN_BYTES_MAX;
  const note = [
    size(bytes),
    encoding === "base64" && "not all of it is text: � stands for the rest",
    isCut && "of which this is the beginning",
  ]
    .filter(Boolean)
    .join(", ");
  return [
    h("h3", {}, "Payload"),
    note && h("p", { class: "soft small" }, note),
    raw("Payload", encoding === "base64" ? decoded(held) : held),
  ];
}

function decoded(base64) {
  return new TextDecoder().decode(Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0)));
}
