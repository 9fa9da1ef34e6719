// Charts as SVG, drawn in the pixels there are, so that texts keep their size on every screen.

import { h, svg } from "./dom.js";
import { clock, figure } from "./words.js";

const RIGHT = 12;
const TOP = 10;
const BOTTOM = 22;
const picked = new Map(); // by chart: the point that is pointed at, kept over redraws

/** A line over time, with a band from the least to the greatest when the points have one.
 *
 * `points` are {at, value, low, high}, in order of time (microseconds); `say` makes words of a value, and `whole` says
 * that there are no halves. The chart can be pointed at, and gone through with the arrow keys. `redraw` is called when
 * another point is chosen.
 */
export function lineChart({ key, label, points, width, height = 180, say = figure, whole = false, redraw }) {
  const known = points.filter((point) => Number.isFinite(point.value));
  if (known.length < 2) return h("p", { class: "empty", key }, `${label}: there are too few figures yet for a chart.`);
  const box = area(known, width, height, say, whole);
  const line = known.map((point, i) => `${i ? "L" : "M"}${box.x(point.at)} ${box.y(point.value)}`).join("");
  const hasBand = known.some((point) => point.high > point.low);
  const band = hasBand && svg("path", { class: "band", d: bandPath(known, box) });
  const last = known.at(-1);
  const values = known.map((point) => point.value);
  const chosen = known[Math.min(picked.get(key) ?? -1, known.length - 1)];
  const pick = (index) => {
    picked.set(key, index);
    redraw?.();
  };
  const handlers = redraw && {
    tabindex: 0,
    role: "slider",
    "aria-valuemin": 1,
    "aria-valuemax": known.length,
    "aria-valuenow": known.indexOf(chosen ?? last) + 1,
    "aria-valuetext": reading(chosen ?? last, say),
    onpointermove: (event) => {
      const x = event.clientX - event.currentTarget.getBoundingClientRect().left;
      pick(nearest(known, box, x));
    },
    onpointerleave: () => pick(undefined),
    onkeydown: (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") return pick(undefined);
      if (!step) return undefined;
      event.preventDefault();
      return pick(Math.max(0, Math.min(known.length - 1, (picked.get(key) ?? (step > 0 ? -1 : known.length)) + step)));
    },
  };
  const summary =
    `${label}: ${say(last.value)} at ${clock(last.at)}; ` +
    `between ${say(least(values))} and ${say(greatest(values))} since ${clock(known[0].at)}`;
  return h(
    "figure",
    { class: "chart", key },
    h("figcaption", {}, h("span", {}, label), h("span", { class: "read" }, reading(chosen ?? last, say))),
    svg(
      "svg",
      { role: "img", "aria-label": summary, width, height, viewBox: `0 0 ${width} ${height}`, ...handlers },
      grid(box, say),
      band,
      svg("path", { class: "line", d: line }),
      chosen && cursor(box, chosen),
    ),
  );
}

/** A small line without axes, for a card. */
export function spark(label, values, width = 160, height = 36) {
  const known = values.filter(Number.isFinite);
  if (known.length < 2) return svg("svg", { class: "spark", width, height, "aria-hidden": "true" });
  const top = greatest([...known, 1e-9]);
  const x = (i) => round((i / (known.length - 1)) * (width - 4) + 2);
  const y = (value) => round(height - 3 - (value / top) * (height - 6));
  const line = known.map((value, i) => `${i ? "L" : "M"}${x(i)} ${y(value)}`).join("");
  const words = `${label}: at most ${figure(greatest(known))} in the last minutes`;
  return svg(
    "svg",
    {
      class: "spark",
      role: "img",
      "aria-label": words,
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: "none",
    },
    svg("path", { class: "under", d: `${line}L${x(known.length - 1)} ${height}L2 ${height}Z` }),
    svg("path", { class: "line", d: line }),
  );
}

/** A row of states over time, as wide as its place. `spans` are {state, from, to}; each state has a colour and a height
 * of its own. */
export function timeLine({ label, spans, from, to }) {
  const [width, height] = [1000, 26];
  const x = (moment) => round(((Math.max(from, Math.min(to, moment)) - from) / Math.max(1, to - from)) * width);
  const heights = { violated: 1, pending: 0.7, unknown: 0.5, suppressed: 0.35, ok: 0.2 };
  const bars = spans.map((span) => {
    const tall = Math.round(height * (heights[span.state] ?? 0.5));
    const wide = Math.max(4, x(span.to ?? to) - x(span.from));
    const words = `${span.state} from ${clock(span.from)} to ${span.to ? clock(span.to) : "now"}`;
    return svg(
      "rect",
      { class: `span ${span.state}`, x: x(span.from), y: height - tall, width: wide, height: tall },
      svg("title", {}, words),
    );
  });
  return svg(
    "svg",
    {
      class: "timeline",
      role: "img",
      "aria-label": label,
      height,
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: "none",
    },
    svg("path", { class: "axis", d: `M0 ${height - 0.5}H${width}` }),
    bars,
  );
}

function area(points, width, height, say, whole) {
  const tops = points.map((point) => point.high ?? point.value);
  const lows = points.map((point) => point.low ?? point.value);
  const marks = steps(least(lows), greatest(tops), whole ? 1 : 0);
  const [low, high] = [marks[0], marks.at(-1)];
  const [from, to] = [points[0].at, points.at(-1).at];
  const left = 12 + 7 * Math.max(...marks.map((mark) => say(mark).length));
  return {
    width,
    height,
    marks,
    from,
    to,
    left,
    x: (at) => round(left + ((at - from) / Math.max(1, to - from)) * (width - left - RIGHT)),
    y: (value) => round(TOP + (1 - (value - low) / (high - low)) * (height - TOP - BOTTOM)),
  };
}

// Round values that enclose low and high, up to six of them.
function steps(low, high, smallest) {
  if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
  if (low > 0 && low < high * 0.4) low = 0;
  const raw = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step =
    [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= raw && size >= smallest) ?? smallest;
  const first = Math.floor(low / step + 1e-9);
  const count = Math.max(1, Math.ceil(high / step - 1e-9) - first);
  return Array.from({ length: count + 1 }, (_, i) => (first + i) * step);
}

function grid(box, say) {
  const across = box.marks.map((mark) => [
    svg("path", { class: "grid", d: `M${box.left} ${box.y(mark)}H${box.width - RIGHT}` }),
    svg("text", { x: box.left - 6, y: box.y(mark) + 4, "text-anchor": "end" }, say(mark)),
  ]);
  const places = box.width < 420 ? [0, 1] : [0, 0.5, 1];
  const times = places.map((place) =>
    svg(
      "text",
      {
        x: box.x(box.from + (box.to - box.from) * place),
        y: box.height - 5,
        "text-anchor": place === 0 ? "start" : place === 1 ? "end" : "middle",
      },
      clock(box.from + (box.to - box.from) * place),
    ),
  );
  return svg("g", { "aria-hidden": "true" }, across, times);
}

function bandPath(points, box) {
  const there = points.map((point) => `${box.x(point.at)} ${box.y(point.high ?? point.value)}`);
  const back = points.toReversed().map((point) => `${box.x(point.at)} ${box.y(point.low ?? point.value)}`);
  return `M${[...there, ...back].join("L")}Z`;
}

function cursor(box, point) {
  return svg(
    "g",
    { class: "cursor", "aria-hidden": "true" },
    svg("path", { d: `M${box.x(point.at)} ${TOP}V${box.height - BOTTOM}` }),
    svg("circle", { cx: box.x(point.at), cy: box.y(point.value), r: 4 }),
  );
}

function reading(point, say) {
  const band = point.high > point.low ? ` (${say(point.low)} to ${say(point.high)})` : "";
  return `${say(point.value)}${band} at ${clock(point.at)}`;
}

function nearest(points, box, x) {
  let best = 0;
  points.forEach((point, i) => {
    if (Math.abs(box.x(point.at) - x) < Math.abs(box.x(points[best].at) - x)) best = i;
  });
  return best;
}

const round = (number) => Math.round(number * 10) / 10;
const least = (values) => values.reduce((a, b) => Math.min(a, b));
const greatest = (values) => values.reduce((a, b) => Math.max(a, b));
