// What several views are made of: badges, facts, tables, lists that go on, and buttons that change something.

import { h } from "./dom.js";
import { ago, brief, visible, when } from "./words.js";

const SIGNS = { ok: "✓", warn: "!", bad: "✕", info: "→", idle: "·" };
const TONES = {
  ok: "ok connected idle sent completed closed live running judged acknowledged resolved",
  warn: "pending unknown retrying paused retryable connecting scheduled silenced warning half-open cancelled",
  bad: "violated halted dead refused failing critical disconnected lost open",
  info: "queued available executing busy grouped info waiting",
};

/** A state as a word with a sign and a colour. */
export function badge(state, tone = toneOf(state)) {
  return h("span", { class: `badge ${tone}` }, h("span", { "aria-hidden": "true" }, SIGNS[tone]), `${state}`);
}

function toneOf(state) {
  return Object.keys(TONES).find((tone) => TONES[tone].split(" ").includes(state)) ?? "idle";
}

/** Since when: the moment, and how long ago that is. */
export function since(moment, now) {
  return h("span", { class: "soft small" }, "since ", when(moment), ` (${ago(moment, now)})`);
}

/** A list of facts: [name, value] pairs; those without a value are left out. */
export function facts(...pairs) {
  const there = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "dl",
    { class: "facts" },
    there.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A table that becomes a list of cards where there is no room. `columns` are heads (one that begins with "#" is of
 * numbers), `rows` are {key, cells}. */
export function table(label, columns, rows) {
  const heads = columns.map((column) => column.replace("#", ""));
  const kind = columns.map((column) => (column.startsWith("#") ? "number" : null));
  return h(
    "table",
    { "aria-label": label, role: "table" },
    h(
      "thead",
      { role: "rowgroup" },
      h(
        "tr",
        { role: "row" },
        heads.map((head, i) => h("th", { scope: "col", role: "columnheader", class: kind[i] }, head)),
      ),
    ),
    h(
      "tbody",
      { role: "rowgroup" },
      rows.map(({ key, cells }) =>
        h(
          "tr",
          { key, role: "row" },
          cells.map((cell, i) =>
            h("td", { role: i ? "cell" : "rowheader", "data-label": heads[i], class: kind[i] }, cell),
          ),
        ),
      ),
    ),
  );
}

/** What stands where there is nothing: a sentence, and what would put something there. */
export function empty(sentence, hint = "") {
  return h("div", { class: "empty" }, h("p", {}, sentence), hint && h("p", { class: "soft" }, hint));
}

/** A card: a titled part of a view. */
export function card(title, ...content) {
  return h("section", { class: "card", "aria-label": title }, h("h2", {}, title), content);
}

/** One of the rows of a list: a link that names it, badges, a line below, and buttons. */
export function item({ key, href, title, badges = [], line, buttons = [], more }) {
  return h(
    "li",
    { key, class: "item" },
    h(
      "div",
      {},
      h("div", { class: "head" }, h(href ? "a" : "span", { href, class: "title" }, brief(title, 200)), badges),
      line && h("p", { class: "soft line" }, line),
      more,
    ),
    buttons.some(Boolean) && h("div", { class: "buttons" }, buttons),
  );
}

/** A list and, if there is more of it, the link to older ones. */
export function list(label, items, older) {
  return [h("ul", { class: "items", "aria-label": label }, items), more(older)];
}

/** The link to what is older, if there is more of it. */
export function more(older) {
  return older && h("p", { class: "more" }, h("a", { href: older, class: "button quiet" }, "Older ones"));
}

/** A text of any length, to be read and not obeyed. */
export function raw(label, text) {
  return h("pre", { class: "raw", tabindex: 0, role: "region", "aria-label": label }, visible(text));
}

/** A form of filters that is kept in the address. `fields` are {name, label, options?, placeholder?, type?}. */
export function filters(ctx, label, fields) {
  const inputs = fields.map(({ name, label: text, options, value = ctx.params[name] ?? "", ...more }) => {
    const id = `filter-${name}`;
    const field = options
      ? h(
          "select",
          { id, name, value, onchange: (event) => event.currentTarget.form.requestSubmit() },
          options.map((option) => h("option", { value: option, selected: option === value }, option || "all")),
        )
      : h("input", { id, name, value, autocomplete: "off", spellcheck: "false", ...more });
    return h("div", { class: "field" }, h("label", { for: id }, text), field);
  });
  const search = fields.some((field) => !field.options) && h("button", { type: "submit" }, "Search");
  return h(
    "form",
    {
      class: "filters",
      role: "search",
      "aria-label": label,
      key: `filters-${ctx.view}`,
      onsubmit: (event) => {
        event.preventDefault();
        ctx.go(ctx.view, Object.fromEntries(new FormData(event.currentTarget)));
      },
    },
    inputs,
    search,
  );
}
