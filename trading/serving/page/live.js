// What the server tells, as it changes: server-sent events, applied to one document.

// After so long without any event the connection counts as lost; the server beats every 5 s.
const SILENT_MS = 15_000;
// An answer ends now and then and is asked for again: only a longer break is worth a word.
const BREAK_MS = 4_000;

/** `patch` (RFC 7396) applied to `target`; what did not change keeps its identity. */
export function merged(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const known = target !== null && typeof target === "object" && !Array.isArray(target);
  const result = known ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = merged(result[name], value);
  }
  return result;
}

/**
 * Follow the account. `changed` is called with `{ content, heardMs, gone, cut }`: the document (null
 * before the first), when something was last heard, why the server has no news (or ""), and since
 * when there is no connection (or 0).
 */
export function follow(changed) {
  const state = { content: null, heardMs: 0, gone: "", cut: performance.now() };
  let source = null;
  const tell = () => changed({ ...state });
  const heard = () => {
    state.heardMs = performance.now();
    state.cut = 0;
  };
  const open = () => {
    source?.close();
    source = new EventSource("events");
    source.addEventListener("whole", (event) => {
      heard();
      // What is null counts as absent, here as in a patch.
      Object.assign(state, { content: merged(null, JSON.parse(event.data)), gone: "" });
      tell();
    });
    source.addEventListener("change", (event) => {
      heard();
      Object.assign(state, { content: merged(state.content, JSON.parse(event.data)), gone: "" });
      tell();
    });
    source.addEventListener("gone", (event) => {
      heard();
      state.gone = JSON.parse(event.data).reason;
      tell();
    });
    source.addEventListener("beat", heard);
    source.onerror = () => {
      if (!state.cut) state.cut = performance.now();
      tell();
    };
  };
  open();
  setInterval(() => {
    const now = performance.now();
    const silent = state.heardMs && now - state.heardMs > SILENT_MS;
    if (silent && !state.cut) state.cut = now;
    // A browser gives up on an answer that is an error, such as that of a proxy.
    if (source.readyState === EventSource.CLOSED || (silent && now - state.cut > SILENT_MS)) {
      state.cut ||= now;
      open();
    }
    tell();
  }, 2_000);
}

/** Whether a connection has been lost for longer than it takes to ask again. */
export const isCut = (state) => state.cut > 0 && performance.now() - state.cut > BREAK_MS;
