// Asking the gateway. Whatever fails becomes a Refused with a sentence for people.

const WAIT_MILLISECONDS = 20_000;

/** What the gateway said no to, or could not be asked. `status` is HTTP's, 0 when there was no answer. */
class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** The answer of `/api/…`; `params` that are empty are left out. Throws Refused. */
export function get(path, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given).toString();
  return ask(query ? `${path}?${query}` : path, {});
}

/** Change something. Throws Refused. */
export function post(path, body = {}) {
  const headers = { "Content-Type": "application/json", "X-Edgeq": "1" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

async function ask(path, options) {
  let response, text;
  try {
    const signal = AbortSignal.timeout(WAIT_MILLISECONDS);
    response = await fetch(`/api/${path}`, { ...options, signal, credentials: "same-origin" });
    text = await response.text();
  } catch {
    throw new Refused(0, "The gateway can't be reached from here.");
  }
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new Refused(response.status, `The gateway gave an answer that is no JSON (status ${response.status}).`);
  }
  if (!response.ok)
    throw new Refused(response.status, answer?.error ?? `The gateway refused that (status ${response.status}).`);
  return answer;
}
