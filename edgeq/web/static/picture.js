// The picture of the flow as SVG: stages of boxes, and lines between them, across a wide screen or down a narrow one.

import { svg } from "./dom.js";

const NARROW = 720;
const BOX = 54;
const GAP = 12;
const HEAD = 30;
const WIDTHS = { Routes: 1.35, "Processors and queues": 1.15, Store: 0.75 }; // of columns; others have 0.9
const NAME = "640 13.6px system-ui, sans-serif"; // as charts.css has it
const SAYS = "400 12.5px system-ui, sans-serif";
const pen = document.createElement("canvas").getContext("2d");

/** Draw it. `stages` are {name, boxes}, a box is {id, name, says, also, tone, href}; `lines` are {from, to, rate,
 * tone}. `width` is the room there is. */
export function picture(label, stages, lines, width) {
  return width < NARROW ? down(label, stages, lines, width) : across(label, stages, lines, width);
}

function across(label, stages, lines, width) {
  const gutter = Math.max(34, width * 0.04);
  const shares = stages.map((stage) => WIDTHS[stage.name] ?? 0.9);
  const unit = (width - gutter * (stages.length - 1)) / shares.reduce((sum, share) => sum + share, 0);
  const lefts = shares.map((_, column) => shares.slice(0, column).reduce((x, share) => x + share * unit + gutter, 0));
  const tallest = Math.max(...stages.map((stage) => stage.boxes.length));
  const height = HEAD + tallest * (BOX + GAP) + 4;
  const places = new Map();
  stages.forEach((stage, column) => {
    const used = stage.boxes.length * (BOX + GAP) - GAP;
    const top = HEAD + (height - HEAD - used) / 2;
    stage.boxes.forEach((box, row) =>
      places.set(box.id, { x: lefts[column], y: top + row * (BOX + GAP), w: shares[column] * unit }),
    );
  });
  const curves = lines
    .filter(({ from, to }) => places.has(from) && places.has(to))
    .map((line) => {
      const [a, b] = [places.get(line.from), places.get(line.to)];
      const [x1, y1, x2, y2] = [a.x + a.w, a.y + BOX / 2, b.x, b.y + BOX / 2];
      const bend = (x2 - x1) / 2;
      return wire(line, `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`);
    });
  const heads = stages.map((stage, column) => svg("text", { class: "stage", x: lefts[column], y: 16 }, stage.name));
  return whole(label, width, height, heads, curves, boxes(stages, places));
}

function down(label, stages, lines, width) {
  const places = new Map();
  const heads = [];
  const spine = 8;
  let y = 0;
  let last = 0;
  const branches = [];
  for (const stage of stages) {
    heads.push(svg("text", { class: "stage", x: 26, y: y + 18 }, stage.name));
    y += HEAD;
    for (const box of stage.boxes) {
      places.set(box.id, { x: 26, y, w: width - 26 });
      const line = lines.find((each) => each.to === box.id) ?? lines.find((each) => each.from === box.id) ?? {};
      last = y + BOX / 2;
      branches.push(wire(line, `M${spine} ${last - 12}Q${spine} ${last} ${spine + 12} ${last}H26`));
      y += BOX + GAP;
    }
    y += GAP;
  }
  const rate = Math.max(0, ...lines.map((line) => line.rate ?? 0));
  const trunk = wire({ rate }, `M${spine} ${HEAD + BOX / 2}V${last - 12}`);
  return whole(label, width, y, heads, [trunk, branches], boxes(stages, places));
}

function whole(label, width, height, ...content) {
  return svg(
    "svg",
    { class: "flow", role: "group", "aria-label": label, width, height, viewBox: `0 0 ${width} ${height}` },
    content,
  );
}

function wire({ rate, tone }, d) {
  const thick = 1.5 + Math.min(3.5, Math.log2(1 + (rate || 0)) * 0.7);
  return svg("path", {
    class: `wire ${tone ?? ""} ${rate > 0 ? "moving" : ""}`,
    d,
    "stroke-width": thick.toFixed(1),
    "aria-hidden": "true",
  });
}

function boxes(stages, places) {
  return stages
    .flatMap((stage) => stage.boxes)
    .map((box) => {
      const { x, y, w } = places.get(box.id);
      const room = w - 24;
      const words = [box.name, box.says, box.also].filter(Boolean).join(", ");
      const right = box.also && w > 240;
      return svg(
        "a",
        { href: box.href, class: `box ${box.tone ?? ""}`, "aria-label": words, key: box.id },
        svg("rect", { x: x + 0.75, y: y + 0.75, width: w - 1.5, height: BOX - 1.5, rx: 8 }),
        svg("rect", { class: "edge", x: x + 0.75, y: y + 10, width: 4, height: BOX - 20, rx: 2 }),
        svg(
          "text",
          { class: "name", x: x + 14, y: y + 22 },
          cut(box.name, right ? room - broad(box.also, SAYS) - 10 : room, NAME),
        ),
        svg(
          "text",
          { class: "says", x: x + 14, y: y + 41 },
          cut(right ? box.says : [box.says, box.also].filter(Boolean).join(" · "), room, SAYS),
        ),
        right && svg("text", { class: "says", x: x + w - 12, y: y + 22, "text-anchor": "end" }, box.also),
        svg("title", {}, words),
      );
    });
}

function broad(text, font) {
  pen.font = font;
  return pen.measureText(text).width;
}

// As much of a text as there is room for, in pixels.
function cut(text, room, font) {
  if (broad(text, font) <= room) return text;
  let length = Math.min(text.length, Math.ceil(room / 3));
  while (length > 1 && broad(`${text.slice(0, length)}…`, font) > room) length -= 1;
  return `${text.slice(0, length)}…`;
}
