// Numbers, times and states, said as people say them.

import { h } from "./dom.js";

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const ROUGH = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const EXACT = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "long" });
const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];
// Controls but tab and line end; marks of direction; a byte order mark.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;
const NOTHING = "–";

/** 12,345; a dash for what isn't known. */
export function count(value) {
  return Number.isFinite(value) ? WHOLE.format(value) : NOTHING;
}

/** Up to three digits: 0.25, 12.3, 1,230. */
export function figure(value) {
  return Number.isFinite(value) ? SHORT.format(value) : NOTHING;
}

/** How often: "12.3/s", or per minute when that is less than one in ten seconds. */
export function rate(perSecond) {
  if (!Number.isFinite(perSecond)) return NOTHING;
  if (perSecond > 0 && perSecond < 0.1) return `${ROUGH.format(perSecond * 60)}/min`;
  return `${(perSecond < 100 ? ROUGH : WHOLE).format(perSecond)}/s`;
}

/** 12 events, 1 event. */
export function many(number, noun, plural = `${noun}s`) {
  return `${count(number)} ${number === 1 ? noun : plural}`;
}

/** 3.2 MiB. */
export function size(bytes) {
  if (!Number.isFinite(bytes)) return NOTHING;
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit ? figure(bytes) : count(bytes)} ${UNITS[unit]}`;
}

/** 250 ms, 4 s, 3 min 20 s, 2 h 5 min, 3 d 4 h: never broken between two lines. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return NOTHING;
  if (seconds < 0.9995) return seconds <= 0 ? "0\u00a0s" : `${figure(seconds * 1000)}\u00a0ms`;
  if (seconds < 10) return `${figure(Math.round(seconds * 10) / 10)}\u00a0s`;
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [
    Math.floor(whole / 86400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ];
  const parts = [
    [days, "d"],
    [hours, "h"],
    [minutes, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([number]) => number > 0);
  return parts
    .slice(first, first + 2)
    .filter(([number]) => number > 0)
    .map(([number, unit]) => `${number}\u00a0${unit}`)
    .join("\u00a0");
}

/** A moment (microseconds since 1970 UTC) by this device's clock: of today the time, of other days the day too. */
export function clock(moment) {
  if (!Number.isFinite(moment)) return NOTHING;
  const date = new Date(moment / 1000);
  return (date.toDateString() === new Date().toDateString() ? CLOCK : DAY).format(date);
}

/** Exactly when, in the time of this device. */
export function exactly(moment) {
  return Number.isFinite(moment) ? EXACT.format(new Date(moment / 1000)) : NOTHING;
}

/** A moment as an element: short, with the exact one to be pointed at. */
export function when(moment) {
  if (!Number.isFinite(moment)) return NOTHING;
  return h("time", { datetime: new Date(moment / 1000).toISOString(), title: exactly(moment) }, clock(moment));
}

/** How long ago: "12 s ago", "just now". */
export function ago(moment, now, never = "never") {
  if (!Number.isFinite(moment)) return never;
  const seconds = (now - moment) / 1e6;
  return seconds < 1.5 ? "just now" : `${duration(Math.round(seconds))}\u00a0ago`;
}

/** A text as it is, but with signs that aren't seen, or that turn the writing round, spelled out. */
export function visible(text) {
  return String(text ?? "").replace(
    HIDDEN,
    (sign) => `⟨U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );
}

/** The same of a text that may be very long, cut to `most` characters. */
export function brief(text, most = 300) {
  const whole = String(text ?? "");
  return visible(whole.length > most ? `${whole.slice(0, most)}…` : whole);
}

/** What an error comes to: its first line, or the last one of a traceback. */
export function gist(text) {
  const lines = String(text ?? "").trim().split("\n");
  return brief(lines.at(lines[0].startsWith("Traceback ") ? -1 : 0));
}

/** JSON, laid out for reading. */
export function pretty(value) {
  return typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? NOTHING);
}
