// Elements made from data. What comes from outside is only ever a text or an attribute's value: nothing reads HTML.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "onsubmit", "onchange", "onkeydown", "onpointermove", "onpointerleave"];

/** An HTML element. `props` are its attributes (null and false: not there, true: empty) and handlers; `key` is what
 * `patch` knows it by. Children are nodes, texts, lists of them, or nothing. */
export function h(name, props, ...children) {
  return fill(document.createElement(name), props, children);
}

/** The same for an SVG element. */
export function svg(name, props, ...children) {
  return fill(document.createElementNS(SVG, name), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (HANDLERS.includes(name)) element[name] = value;
    else element.setAttribute(name === "key" ? "data-key" : name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Make the children of `parent` like `wanted`, but keep what fits: focus, selection, what is open and where it is
 * scrolled to stay. */
export function patch(parent, wanted) {
  const keys = new Set(wanted.map(keyOf));
  const keyed = new Map();
  for (const child of [...parent.childNodes]) {
    const key = keyOf(child);
    if (key === null) continue;
    if (keys.has(key)) keyed.set(key, child);
    else child.remove();
  }
  let place = parent.firstChild;
  for (const node of wanted) {
    const key = keyOf(node);
    const old = key !== null ? keyed.get(key) : place && keyOf(place) === null ? place : undefined;
    if (!old || old.nodeName !== node.nodeName) {
      parent.insertBefore(node, place);
      continue;
    }
    if (old === place) place = place.nextSibling;
    else parent.insertBefore(old, place);
    become(old, node);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function keyOf(node) {
  return node.dataset?.key ?? null;
}

function become(old, wanted) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  const value = wanted.getAttribute("value");
  const isField = old.nodeName === "INPUT" || old.nodeName === "SELECT";
  const isNew = isField && value !== old.getAttribute("value"); // what somebody is typing stays
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value: text } of wanted.attributes) {
    if (old.getAttribute(name) !== text) old.setAttribute(name, text);
  }
  for (const name of HANDLERS) old[name] = wanted[name];
  patch(old, [...wanted.childNodes]);
  if (isNew) old.value = value ?? "";
}
