// Staying in touch: the stream of status, its loss, and coming back.

const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 15_000;
const SILENCE_MAX = 40_000; // the gateway says something every 15 s at least

/** Follow the gateway. `onStatus(status)` gets every figure, `onLink(connected)` what became of the connection.
 * A page that nobody sees lets go, and catches up when it is looked at again. Returns what begins anew, as after a
 * login. */
export function follow(onStatus, onLink) {
  let source = null;
  let wait = FIRST_WAIT;
  let retry = 0;
  let silence = 0;

  function heard() {
    clearTimeout(silence);
    silence = setTimeout(lost, SILENCE_MAX);
    wait = FIRST_WAIT;
  }

  function close() {
    clearTimeout(silence);
    clearTimeout(retry);
    source?.close();
    source = null;
  }

  function lost() {
    close();
    onLink(false);
    retry = setTimeout(open, wait);
    wait = Math.min(wait * 2, LONGEST_WAIT);
  }

  function open() {
    close();
    source = new EventSource("/api/stream");
    silence = setTimeout(lost, SILENCE_MAX);
    source.onerror = lost;
    source.addEventListener("status", (event) => {
      heard();
      onLink(true);
      onStatus(JSON.parse(event.data));
    });
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("online", open);
  window.addEventListener("pagehide", close);
  open();
  return open;
}
