// Where one is on the page, as the address says it: #view/id?name=value. Anybody may have written it.

/** The place of an address: its view, one of `views` or else the first, the id of what is looked at, and parameters. */
export function read(hash, views) {
  const [path, query = ""] = hash.slice(1).split("?");
  const [view, id = ""] = path.split("/");
  return {
    view: views.includes(view) ? view : views[0],
    id: decoded(id),
    params: Object.fromEntries(new URLSearchParams(query)),
  };
}

/** The address of a view; parameters that are empty are left out. */
export function link(view, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== "" && value !== undefined);
  const query = new URLSearchParams(given).toString();
  return `#${view}${query ? `?${query}` : ""}`;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
